"""The date of a build's sources, for everything in an image that carries a date (reproducible-builds.org)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import K3imgError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from k3img.tree import Tree


def source_date(tree: Tree, sources: Iterable[Path]) -> int:
    """Seconds UTC: `$SOURCE_DATE_EPOCH`, else the last commit of the sources, else their newest file.

    `sources` are what the image is made of: a commit that touches nothing else (a test, a text) leaves the
    image and its version as they are. Those outside the project's folder do not count.
    A real date: nodes take it as the earliest that the clock may be. Raises `UsageError` for a bad variable.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        if not given.isdigit() or int(given) < 946684800:
            raise UsageError(
                f"SOURCE_DATE_EPOCH is {given!r}: seconds since 1970 are wanted, after the year 2000"
            )
        return int(given)
    inside = [path for path in sources if path.is_relative_to(tree.root)]
    try:
        # The project may belong to another user (sudo); reading a commit's date is no risk.
        command = ["git", "-c", "safe.directory=*", "-C", str(tree.root), "log", "-1", "--format=%ct", "--"]
        return int(proc.run([*command, *map(str, inside)]).strip())
    except (K3imgError, ValueError):
        files = [path for source in inside for path in (source, *source.rglob("*")) if path.is_file()]
        # Python writes its caches when it likes.
        times = [int(path.stat().st_mtime) for path in files if path.suffix != ".pyc"]
        return max(times, default=946684800)
