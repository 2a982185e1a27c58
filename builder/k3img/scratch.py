"""Folders for what a running k3img needs, each locked by who made it: what a killed one left can be told."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACE = Path("/var/tmp")
"""On a disk where /tmp may be in memory, and short enough for the paths of sockets."""

PREFIX = "k3img-"
LOCK = ".lock"


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder that only its owner can enter; it goes with the block."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=PLACE) as name, (Path(name) / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Path(name)


def clean() -> tuple[Path, ...]:
    """Remove the folders of this user whose makers are gone; returns which."""
    removed = []
    for path in sorted(PLACE.glob(f"{PREFIX}*/{LOCK}")):
        if path.lstat().st_uid != os.geteuid():
            continue
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path.parent)
            removed.append(path.parent)
    return tuple(removed)
