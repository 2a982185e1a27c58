"""A finished image taken apart for its rules: partitions, ESP, UKI, the tree and the contents of /usr.

Rootless: FAT by mtools, contents by fsck.erofs, owners and modes by our own reader of erofs.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zstandard

from k3img import proc
from k3img.errors import BuildError, ProgramError
from k3img.image import gpt, uki
from k3img.image.erofs import Entry, Erofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from k3img.image.gpt import Partition
    from k3img.image.uki import Uki

    Argv = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An image at rest. Without `raw` there is only an unpacked /usr, and rules about disks do not apply.

    `usr` is a folder with the contents of /usr, `entries` its tree (paths without `usr/`), `esp` a folder
    with the contents of the ESP.
    """

    arch: str
    usr: Path
    entries: tuple[Entry, ...]
    raw: Path | None = None
    partitions: tuple[Partition, ...] = ()
    esp: Path = Path("/nonexistent")
    ukis: tuple[Uki, ...] = ()
    used: int = 0
    sectors: tuple[tuple[str, int], ...] = field(default=())
    """Bytes per sector of each FAT, by partition."""
    manifest: Mapping[str, Any] | None = None
    """What a build wrote beside this image, if it is there."""
    unreadable: str = ""
    """Why the contents of /usr cannot be read; then `usr` is empty, and rules about it do not apply."""

    @property
    def is_pi(self) -> bool:
        """Whether it boots a Raspberry Pi: the ESP has what its firmware starts."""
        return (self.esp / "start4.elf").exists() or (self.esp / "config.txt").exists()


@contextmanager
def image(path: Path, argv: Argv) -> Iterator[Opened]:
    """Take an image apart, raw or compressed (.zst); `argv` gives the words that start a program.

    Raises `BuildError` when it is no image of ours.
    """
    with tempfile.TemporaryDirectory(prefix="k3img-", dir="/var/tmp") as name:
        scratch = Path(name)
        raw = _unpacked(path, scratch) if path.suffix == ".zst" else path
        partitions = gpt.read(raw)
        data, _ = gpt.usr(partitions)
        esp = _esp(raw, partitions, scratch, argv)
        with raw.open("rb") as file:
            tree = Erofs(file, data.start, path.name)
            entries = tuple(tree.walk())
            used = tree.used
        usr, unreadable = _usr(raw, data, scratch, argv)
        yield Opened(
            arch=data.kind.removeprefix("usr-"),
            usr=usr,
            entries=entries,
            raw=raw,
            partitions=partitions,
            esp=esp,
            ukis=tuple(uki.read(file) for file in sorted(esp.glob("EFI/Linux/*.efi"))),
            used=used,
            sectors=tuple(
                (part.kind, _sector_size(raw, part)) for part in partitions if part.kind in ("esp", "seed")
            ),
            manifest=_manifest(path),
            unreadable=unreadable,
        )


def folder(path: Path, arch: str) -> Opened:
    """An unpacked /usr. Owners are not looked at: whoever unpacked it owns it."""
    entries = []
    for file in sorted(path.rglob("*")):
        about = file.lstat()
        link = str(file.readlink()) if file.is_symlink() else ""
        name = str(file.relative_to(path))
        entries.append(Entry(path=name, mode=about.st_mode, uid=0, gid=0, size=about.st_size, target=link))
    return Opened(arch=arch, usr=path, entries=tuple(entries))


def _unpacked(path: Path, scratch: Path) -> Path:
    """The raw image, with holes where it is zero."""
    raw = scratch / path.name.removesuffix(".zst")
    try:
        with path.open("rb") as source, raw.open("wb") as sink:
            reader = zstandard.ZstdDecompressor().stream_reader(source)
            while block := reader.read(1 << 20):
                if block.count(0) == len(block):
                    sink.seek(len(block), 1)
                else:
                    sink.write(block)
            sink.truncate(sink.tell())
    except zstandard.ZstdError as error:
        raise BuildError(f"{path} is damaged: {error}") from error
    return raw


def _esp(raw: Path, partitions: tuple[Partition, ...], scratch: Path, argv: Argv) -> Path:
    target = scratch / "esp"
    target.mkdir()
    esp = next((part for part in partitions if part.kind == "esp"), None)
    if esp is None:
        raise BuildError(f"{raw.name} has no ESP")
    try:
        proc.run([*argv("mcopy"), "-s", "-n", "-i", f"{raw}@@{esp.start}", "::*", target])
    except ProgramError as error:
        raise BuildError(f"{raw.name}: its ESP cannot be read", details=error.details) from error
    return target


def _usr(raw: Path, data: Partition, scratch: Path, argv: Argv) -> tuple[Path, str]:
    """The contents of /usr in a folder; and why not, when a block of it is damaged."""
    target = scratch / "usr"
    try:
        proc.run(
            [
                *argv("fsck.erofs"),
                f"--offset={data.start}", f"--extract={target}",
                "--no-preserve-owner", "--no-preserve-perms",
                raw,
            ]
        )  # fmt: skip
    except ProgramError as error:
        return target, " ".join(error.details.split())
    return target, ""


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest beside an image, when it names this file."""
    try:
        found = json.loads((path.parent / "manifest.json").read_text(encoding="utf-8"))
        return found if path.name.removesuffix(".zst") == found["image"]["raw"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sector_size(raw: Path, part: Partition) -> int:
    """Bytes per sector, from a FAT's boot sector."""
    with raw.open("rb") as file:
        file.seek(part.start + 11)
        return int.from_bytes(file.read(2), "little")
