"""The date of a build's sources, for everything in an image that carries a date (reproducible-builds.org)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import K3imgError, UsageError

if TYPE_CHECKING:
    from k3img.tree import Tree


def source_date(tree: Tree) -> int:
    """Seconds UTC: `$SOURCE_DATE_EPOCH`, else the project's last commit, else its newest file.

    A real date: nodes take it as the earliest that the clock may be. Raises `UsageError` for a bad variable.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        if not given.isdigit() or int(given) < 946684800:
            raise UsageError(
                f"SOURCE_DATE_EPOCH is {given!r}: seconds since 1970 are wanted, after the year 2000"
            )
        return int(given)
    try:
        # The project may belong to another user (sudo); reading a commit's date is no risk.
        command = ["git", "-c", "safe.directory=*", "-C", str(tree.root), "log", "-1", "--format=%ct"]
        return int(proc.run(command).strip())
    except (K3imgError, ValueError):
        files = [path for folder in (tree.profiles, tree.overlays) for path in folder.rglob("*")]
        return max((int(path.stat().st_mtime) for path in files if path.is_file()), default=946684800)
