"""A node's seed partition, before it is written to a medium."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import FlashError, ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Argv = Callable[[str], tuple[str, ...]]


def fat(empty: bytes, content: Mapping[str, bytes], argv: Argv) -> bytes:
    """The image's seed partition with files in it; `argv` gives the words that start mtools' programs.

    Raises `FlashError` when they do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="k3img-") as folder:
        place, tree = Path(folder, "seed.fat"), Path(folder, "files")
        place.write_bytes(empty)
        place.chmod(0o600)
        for name, data in content.items():
            path = tree / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(data)
        try:
            proc.run([*argv("mcopy"), "-s", "-o", "-i", place, *sorted(tree.iterdir()), "::"])
        except ProgramError as error:
            raise FlashError("the node's files cannot be put on its seed", details=error.details) from error
        return place.read_bytes()
