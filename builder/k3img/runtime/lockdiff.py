"""What changed between two locks, in lines for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.runtime.lock import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.runtime.lock import Lock

SHOWN = 15
"""Packages that are named for each section; of the rest only the count is said."""


def changes(old: Lock | None, new: Lock) -> list[str]:
    """One line for k3s and one for each section, each followed by the packages that changed."""
    return [*_k3s(old, new), *(line for section in SECTIONS for line in _section(section, old, new))]


def _k3s(old: Lock | None, new: Lock) -> Iterator[str]:
    before = {arch: file.sha256 for arch, file in old.k3s.files.items()} if old and old.k3s else {}
    was = old.k3s.version if old and old.k3s else ""
    if new.k3s is None:
        return
    for arch, file in new.k3s.files.items():
        same = was == new.k3s.version and before.get(arch) == file.sha256
        change = "unchanged" if same else f"was {was}" if was not in ("", new.k3s.version) else "new"
        yield f"k3s      {new.k3s.version} for {arch}, sha256 {file.sha256[:16]}...: {change}"


def _section(section: str, old: Lock | None, new: Lock) -> Iterator[str]:
    packages = {(p.name, p.arch): p.version for p in new.packages.get(section, ())}
    before = {(p.name, p.arch): p.version for p in old.packages.get(section, ())} if old else {}
    if not before:
        yield f"{section:8} {len(packages)} packages: new"
        return
    lines = [
        f"{name}: {before.get((name, arch), 'new')} -> {packages.get((name, arch), 'gone')}"
        for name, arch in sorted(packages.keys() | before.keys())
        if packages.get((name, arch)) != before.get((name, arch))
    ]
    yield f"{section:8} {len(packages)} packages: " + (f"{len(lines)} changed" if lines else "unchanged")
    yield from (f"  {line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"  ... and {len(lines) - SHOWN} more"
