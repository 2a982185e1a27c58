"""Runs mkosi on a workspace's projects. Its prepared trees and initrds are kept in the cache by content."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from k3img import proc
from k3img.build.prune import used
from k3img.errors import BuildError, ProgramError
from k3img.tools.mkosi import steps
from k3img.tools.publish import new_folder, remove
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.build.model import Packages
    from k3img.build.workspace import Workspace
    from k3img.log import Step
    from k3img.tools.toolbox import Toolbox
    from k3img.tree import Tree

ECHOED = ("/usr/bin/dpkg --root=", "Get:")
"""How lines begin that apt and mkosi print for each package."""

WHAT_TO_TRY = (
    ("No space left on device", "The disk is full: free some space, or name another cache with K3IMG_CACHE."),
    ("Temporary failure resolving", "The mirror's name cannot be looked up: check the network."),
    ("Could not resolve", "The mirror's name cannot be looked up: check the network."),
    ("Failed to fetch", "The mirror could not be reached, or has moved on: check the network and try again."),
    ("Could not connect", "The mirror could not be reached: check the network."),
    ("Unable to locate package", "A package of the profile (os.packages) does not exist in this suite."),
    ("has no installation candidate", "A package of the profile (os.packages) does not exist in this suite."),
)


def project_key(project: Path, names: tuple[str, ...], *more: str) -> str:
    """Digest of some of a project's files (names, modes, contents) and texts: names a cached result."""
    total = hashlib.sha256("\0".join(more).encode())
    for name in names:
        path = project / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_symlink():
                total.update(f"{file.relative_to(project)}\0{file.readlink()}\0".encode())
            elif file.is_file():
                data = file.read_bytes()
                about = f"{file.relative_to(project)}\0{file.stat().st_mode:o}\0{len(data)}\0"
                total.update(about.encode() + data)
    return total.hexdigest()[:16]


def build_initrd(
    work: Workspace, tree: Tree, toolbox: Toolbox, this: Step, *, packages: Packages, refresh: bool
) -> Path:
    """The folder with `initrd.cpio.zst` and `initrd.manifest`, from the cache when nothing has changed."""
    names = ("mkosi.conf", "prepare.json", "prepare", "mkosi.extra", "mkosi.sandbox")
    place = tree.cache / "initrd" / project_key(work.initrd, names, str(toolbox.tools_tree))
    if refresh:
        remove(place)
    with new_folder(place, "this initrd") as folder:
        if folder is not None:
            run(work.initrd, work, toolbox, this, packages=packages, output=folder)
            # mkosi leaves the initrd under its name and links `initrd` to it.
            for extra in folder.glob("initrd"):
                extra.unlink()
    used(place)
    return place


def build_image(
    work: Workspace,
    tree: Tree,
    toolbox: Toolbox,
    this: Step,
    *,
    packages: Packages,
    initrd: Path,
    runtime: Path,
    refresh: bool,
) -> str:
    """Run mkosi for the image; its results are in `work.output`.

    Returns when its packages were taken, or the date of the lock that they are from.
    """
    shutil.copyfile(initrd / "initrd.cpio.zst", work.image / "initrd.cpio.zst")
    system = _without_output(work.image)
    place = (
        tree.cache
        / "trees"
        / project_key(
            work.image, ("prepare", "prepare.json", "mkosi.sandbox"), system, str(toolbox.tools_tree)
        )
    )
    stamp = place / "packages-as-of"
    if refresh or not stamp.exists():
        remove(place)
    make_folder(place)
    used(place)
    taken = datetime.now(UTC)
    try:
        run(
            work.image,
            work,
            toolbox,
            this,
            "--cache-directory", place,
            "--extra-tree", f"{runtime}:/usr/lib/k3s",
            packages=packages,
            output=work.output,
        )  # fmt: skip
        if not stamp.exists():
            stamp.write_text(f"{taken:%Y-%m-%dT%H:%M:%SZ}\n")
    finally:
        # mkosi takes a tree for prepared when it belongs to whoever builds, and else has to remove it.
        give_to_caller(place)
    return packages.as_of or stamp.read_text().strip()


def run(
    project: Path,
    work: Workspace,
    toolbox: Toolbox,
    this: Step,
    *more: proc.Arg,
    packages: Packages,
    output: Path,
) -> None:
    """Run `mkosi build` in a project. Raises `BuildError` with the last lines and what to try."""

    try:
        proc.run(
            [
                *toolbox.mkosi,
                "--directory", project,
                "--tools-tree", toolbox.tools_tree,
                "--output-directory", output,
                "--workspace-directory", work.scratch,
                "--package-cache-dir", make_folder(packages.kept),
                *more,
                "--force",
                "build",
            ],
            cwd=project,
            log=work.log,
            on_line=steps(this.note),
        )  # fmt: skip
    except ProgramError as error:
        hint = next((hint for mark, hint in WHAT_TO_TRY if mark in error.details), "")
        how = f": it was ended by {signal.Signals(-error.status).name}" if error.status < 0 else ""
        raise BuildError(
            f"mkosi could not build the {project.name}{how}",
            details=_interesting(error.details),
            hint=f"{hint} The whole log: {work.log}".strip(),
        ) from error
    finally:
        give_to_caller(packages.kept)


def _interesting(output: str) -> str:
    """The last lines without the echo of commands, each of which may be a page long."""
    kept = [line[:300] for line in output.splitlines() if not line.startswith(ECHOED)]
    return "\n".join(kept[-20:])


def _without_output(project: Path) -> str:
    """What of mkosi.conf decides the tree that mkosi caches: distribution and packages, not names."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (project / "mkosi.conf").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            current = sections.setdefault(line, [])
        else:
            current.append(line)
    text = "\n".join(sections["[Content]"])
    return (
        "\n".join(sections["[Distribution]"])
        + text.partition("Packages=")[2].partition("KernelCommandLine")[0]
    )


def listed(manifest: Path) -> list[Mapping[str, str]]:
    """Name, version and architecture of every package in one of mkosi's manifests, sorted."""
    packages = json.loads(manifest.read_text(encoding="utf-8"))["packages"]
    return sorted(
        ({key: item[key] for key in ("name", "version", "architecture")} for item in packages),
        key=lambda item: item["name"],
    )
