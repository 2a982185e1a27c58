"""The seed partition: a FAT that is mounted only while it is read or written."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from k3img.device import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.device.place import Place
    from k3img.device.system import System

OPTIONS = "rw,dirsync,noatime,nosuid,nodev,noexec,umask=0077"
"""Of `mount`. dirsync: a FAT keeps new folders, and where a renamed file lies, in memory even after fsync."""

LOST = "FSCK[0-9][0-9][0-9][0-9].REC"
"""Where fsck.vfat -a puts clusters that no folder names."""


class SeedUnreadableError(Exception):
    """The partition cannot be mounted; the text says why."""


@contextmanager
def opened(place: Place, system: System, device: Path, *, check: bool = False) -> Iterator[Path]:
    """The partition's folder while the block runs; with `check` its file system is repaired first.

    Raises `SeedUnreadableError` when it cannot be mounted.
    """
    folder = place.run / "seed"
    folder.mkdir(parents=True, exist_ok=True)
    if check:
        # -a repairs without asking; whether it succeeded, mounting tells.
        done = system.run(["fsck.vfat", "-a", str(device)], timeout=60)
        if done.status not in {0, 1}:
            system.log(f"fsck.vfat of {device} ended with {done.status}: {done.output[-300:]}")
    done = system.run(["mount", "-t", "vfat", "-o", OPTIONS, str(device), str(folder)])
    if done.status != 0:
        # Of mount's words the first line: where to look further is for somebody with a shell.
        words = (done.output.strip().splitlines() or [str(done.status)])[0]
        why = words.removeprefix(f"mount: {folder}: ")[:300]
        raise SeedUnreadableError(f"{device} cannot be mounted: {why}")
    try:
        if check:
            with suppress(OSError):  # of a FAT that is damaged further the reader tells
                _drop_lost(folder)
        yield folder
    finally:
        done = system.run(["umount", str(folder)])
        if done.status != 0:
            system.run(["umount", "--lazy", str(folder)])


def _drop_lost(folder: Path) -> None:
    """Wipe what fsck.vfat found without a name: the power went while it was written, secrets perhaps."""
    for path in folder.iterdir():
        if path.is_file() and fnmatch(path.name.upper(), LOST):
            files.shred(path)


def look_for(folder: Path, name: str) -> Path | None:
    """The file of this name, in any case, or with the `.txt` that Windows' editors append."""
    wanted = (name, f"{name}.txt", name.replace(".yaml", ".yml"))
    try:
        there = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    except OSError:
        return None
    return next((there[spelling] for spelling in wanted if spelling in there), None)
