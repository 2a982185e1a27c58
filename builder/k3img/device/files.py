"""Writing files so that a power cut leaves the old or the new one, never half of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:  # FAT of old kernels cannot; the file itself is synced
        pass
    finally:
        os.close(handle)


def write(path: Path, content: str | bytes, *, mode: int | None = 0o644, durable: bool = True) -> bool:
    """Write by temporary file, fsync and rename. Does nothing, and says False, when it is so already.

    `mode` is None on a FAT, which has no modes. What is not `durable` is left to a later sync: for files
    that are made again at each boot, a flush for each would only cost time.
    """
    data = content.encode() if isinstance(content, str) else content
    if read(path) == data and not path.is_symlink() and mode in {None, path.stat().st_mode & 0o777}:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode or 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        if mode is not None:
            os.fchmod(out.fileno(), mode)  # whatever the umask is
        if durable:
            os.fsync(out.fileno())
    scratch.replace(path)
    if durable:
        sync_folder(path.parent)
    return True


def overwrite(path: Path, data: bytes) -> None:
    """Replace a file's bytes where they lie, when it has that size already; else write it anew."""
    if not path.is_file() or path.stat().st_size != len(data):
        write(path, data, mode=None)
        return
    with path.open("r+b") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def read(path: Path) -> bytes | None:
    """The file's bytes, or None when there is no such file or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def read_text(path: Path) -> str | None:
    """The file's text without surrounding white space, or None; broken UTF-8 is replaced."""
    data = read(path)
    return None if data is None else data.decode(errors="replace").strip()


def link(path: Path, target: str) -> bool:
    """Make `path` a symlink to `target`, whatever it was. Says whether it had to. Not durable by itself."""
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)
    return True


def remove(path: Path) -> bool:
    """Remove a file; no error when it is not there. Says whether it was. Not durable by itself."""
    if path.is_symlink() or path.exists():
        path.unlink()
        return True
    return False


def shred(path: Path) -> None:
    """Zero a file's bytes where they lie, then delete it.

    Flash storage may keep the old blocks elsewhere; the file system does not.
    """
    with path.open("r+b") as out:
        out.write(bytes(path.stat().st_size))
        out.flush()
        os.fsync(out.fileno())
    path.unlink()
    sync_folder(path.parent)
