"""How much of a slot an erofs fills (kernel: fs/erofs/erofs_fs.h, struct erofs_super_block)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from k3img.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path


def used_bytes(path: Path, offset: int) -> int:
    """Bytes of the file system that starts at `offset` of an image. Raises `BuildError` if it is none."""
    with path.open("rb") as image:
        image.seek(offset + 1024)
        block = image.read(128)
    magic, _, _, bits = struct.unpack_from("<IIIB", block.ljust(128, b"\0"))
    if magic != 0xE0F5E1E2 or len(block) < 128:
        raise BuildError(f"{path} has no erofs at byte {offset}")
    (blocks,) = struct.unpack_from("<I", block, 36)
    return int(blocks << bits)
