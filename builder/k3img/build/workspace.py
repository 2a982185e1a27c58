"""Where a build works: a folder of the cache for each project and profile, made new from the plan."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.build.firmware import place as place_firmware
from k3img.errors import BuildError, ProgramError
from k3img.plan.inputs import PACKAGE
from k3img.plan.model import BootFirmware, BuildInitrd, CopyCode, CopyFile, CopyOverlay, Plan, WriteFile
from k3img.render import mkosi as render
from k3img.tools import host
from k3img.tools.mkosi import write_sandbox
from k3img.tools.publish import remove
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from k3img.tools.debrepo import Deb
    from k3img.tree import Tree

MANIFEST = "manifest.json"

MEMORY = Path("/dev/shm")

ROOM = 6 << 30
"""Bytes of memory that a build's trees and image may take; see docs/decisions/0014-build-in-memory.md."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A build's folders. `log` collects the output of every program that the build runs."""

    root: Path
    scratch: Path
    """Where mkosi lays out trees and the image; in memory when there is plenty."""

    @property
    def image(self) -> Path:
        """The mkosi project of the image."""
        return self.root / "image"

    @property
    def initrd(self) -> Path:
        """The mkosi project of the initrd."""
        return self.root / "initrd"

    @property
    def output(self) -> Path:
        """What mkosi makes, before it is published."""
        return self.root / "output"

    @property
    def log(self) -> Path:
        """Output of every program of this build."""
        return self.root / "build.log"


@contextmanager
def opened(tree: Tree, name: str) -> Iterator[Workspace]:
    """The workspace of a profile, emptied, and locked against a second build of it.

    Raises `BuildError` at once when another build holds it.
    """
    place = hashlib.sha256(str(tree.root).encode()).hexdigest()[:8]
    root = make_folder(tree.cache / "work" / f"{name}-{place}")
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"another build of {name} is running in {tree.root}",
                hint="Wait for it to end, or end it. Its log: " + str(root / "build.log"),
            ) from None
        for leftover in root.iterdir():
            if leftover.name != "lock":
                remove(leftover)
        make_folder(root / "output")
        (root / "build.log").touch()
        with _scratch(root, f"k3img-{name}-{place}") as scratch:
            try:
                yield Workspace(root=root, scratch=scratch)
            finally:
                give_to_caller(root)


@contextmanager
def _scratch(root: Path, name: str) -> Iterator[Path]:
    """A folder in memory, else one of the workspace. What a killed build left there is deleted first."""
    folder = MEMORY / name
    with suppress(OSError):
        if folder.lstat().st_uid == os.geteuid():
            remove(folder)
    try:
        if not _roomy():
            raise FileExistsError
        folder.mkdir(mode=0o700)
    except OSError:  # also when somebody else has taken the name
        yield make_folder(root / "tmp")
        return
    try:
        yield folder
    finally:
        remove(folder)


def _roomy() -> bool:
    """Whether a build fits into memory, with as much left for the programs that it runs."""
    try:
        shm = os.statvfs(MEMORY)
    except OSError:
        return False
    room = shm.f_bavail * shm.f_frsize
    return not shm.f_flag & os.ST_NOEXEC and room >= ROOM and host.available_memory() >= 2 * ROOM


def write_initrd_project(work: Workspace, plan: Plan, tree: Tree, sources: str) -> None:
    """Lay out the mkosi project of the initrd."""
    _write_project(work.initrd, render.initrd_project(plan), sources)
    overlay = tree.overlays / plan.one(BuildInitrd).overlay
    if overlay.is_dir():
        copy_folder(overlay, work.initrd / "mkosi.extra")


def write_image_project(
    work: Workspace, plan: Plan, tree: Tree, sources: str, boot: Iterable[Deb] = ()
) -> None:
    """Lay out the mkosi project of the image: configuration, scripts, all that is copied over the root.

    `boot` are the packages of a board's boot firmware; /efi becomes the ESP.
    """
    _write_project(work.image, render.image_project(plan), sources)
    _write(work.image / "finalize", render.script("finalize"), 0o755)
    extra = work.image / "mkosi.extra"
    for overlay in plan.all(CopyOverlay):
        if (folder := tree.overlays / overlay.name).is_dir():
            copy_folder(folder, extra)
        else:
            raise BuildError(f"there is no overlay {overlay.name!r} in {tree.overlays}")
    code = plan.one(CopyCode)
    copies = {f"{code.into}/{name}": PACKAGE / name for name in code.files}
    copies |= {file.path: tree.root / file.source for file in plan.all(CopyFile)}
    for path, source in copies.items():
        target = extra / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for firmware in plan.all(BootFirmware):
        place_firmware(firmware, boot, extra / "efi", work.root / "boot")
    for text in plan.all(WriteFile):
        _write(extra / text.path.lstrip("/"), text.text, text.mode)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a tree over another, modes and links kept, owners not: in the image all is root's."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def publish(files: Mapping[str, Path], folder: Path) -> None:
    """Put finished files into `folder`, each by rename, and remove what an earlier build left there.

    Nothing there is touched before all of them lie on its disk; the manifest, which says that an image is
    complete, goes first and comes last. Raises `BuildError` when there is no room.
    """
    make_folder(folder)
    parts = {name: folder / f".{name}.part" for name in files}
    try:
        for name, path in files.items():
            _move(path, parts[name])
        (folder / MANIFEST).unlink(missing_ok=True)
        for name in sorted(files, key=lambda name: name == MANIFEST):
            parts[name].rename(folder / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    for old in folder.iterdir():
        if old.name not in files and old.is_file():
            old.unlink()
    give_to_caller(folder)


def _move(path: Path, target: Path) -> None:
    """Rename, or copy to another disk: with cp, because Python's own copies fill an image's holes."""
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            proc.run(["cp", "--sparse=always", path, target])
        except ProgramError as failed:
            raise BuildError(
                f"cannot put {path.name} into {target.parent}",
                details=failed.details,
                hint="Free some space there, or name another folder with --out.",
            ) from failed
        path.unlink()


def _write_project(folder: Path, texts: Mapping[str, str], sources: str) -> None:
    for name, text in texts.items():
        _write(folder / name, text, 0o644)
    _write(folder / "prepare", render.script("prepare"), 0o755)
    write_sandbox(folder / "mkosi.sandbox", sources)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
