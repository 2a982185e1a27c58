"""Prepared things in the cache that no build has used for a month: each change of a profile leaves some."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from k3img import log
from k3img.errors import ProgramError
from k3img.tools.publish import remove

if TYPE_CHECKING:
    from pathlib import Path

PLACES = ("initrd", "trees", "runtime-unpacked")
DAYS = 30


def used(folder: Path) -> None:
    """Note that a build takes something out of this folder now."""
    with suppress(OSError):  # somebody else's cache, which we may read: they prune it
        os.utime(folder)


def prune(cache: Path) -> None:
    """Delete what was not used for so long, as far as we may. A build that needs it later makes it anew."""
    oldest = time.time() - DAYS * 86400
    for folder in [folder for place in PLACES for folder in (cache / place).glob("*")]:
        with suppress(ProgramError, FileNotFoundError):  # another build may prune, too
            if folder.is_dir() and folder.stat().st_mtime < oldest:
                remove(folder)
                log.line(f"removed {folder}: not used for {DAYS} days")
