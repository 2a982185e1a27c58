"""Folders in the cache that are there whole or not at all, whoever makes them and however often.

A folder is made beside its place and renamed into it; a lock keeps a second k3img, of this checkout or
another one, from doing the same work. What a killed run left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from k3img import log, proc
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock beside `path`; says that it waits for `what` when somebody else has it."""
    make_folder(path.parent)
    with (path.parent / f".{path.name}.lock").open("a") as lock:
        give_to_caller(path.parent / f".{path.name}.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.line(f"waiting: another k3img is making {what}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def new_folder(path: Path, what: str) -> Iterator[Path | None]:
    """Yield an empty folder that becomes `path` when the block ends well, or None when `path` is there.

    What fails in the block takes the folder with it.
    """
    with locked(path, what):
        if path.exists():
            yield None
            return
        part = path.with_name(f"{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part)
        try:
            yield part
            give_to_caller(part)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def remove(path: Path) -> None:
    """Delete a folder and all in it, but nothing that is mounted there."""
    proc.run(["rm", "-rf", "--one-file-system", path])
