"""Small disk images for tests: a GPT by the UEFI specification, and the head of an erofs."""

from __future__ import annotations

import struct
import uuid
import zlib
from typing import TYPE_CHECKING

from k3img.image.gpt import SECTOR, TYPES

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 64
"""First sector of the first partition; each partition is `SIZE` sectors long."""
SIZE = 16

DATA_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
TREE_ID = uuid.UUID("ffeeddcc-bbaa-9988-7766-554433221100")

IMAGE = (
    ("esp", uuid.UUID(int=1), "esp"),
    ("seed", uuid.UUID(int=2), "K3IMG"),
    ("usr-x86-64", DATA_ID, "x86_1"),
    ("usr-x86-64-verity", TREE_ID, "x86_1"),
)


def table(entries: tuple[tuple[str, uuid.UUID, str], ...], *, count: int = 8) -> bytes:
    """Protective MBR, header and entries; the second header is left out."""
    rows = b""
    for place, (kind, ident, label) in enumerate(entries):
        first = FIRST + place * SIZE
        rows += struct.pack(
            "<16s16sQQQ72s",
            TYPES[kind].bytes_le if kind in TYPES else uuid.UUID(int=77).bytes_le,
            ident.bytes_le,
            first,
            first + SIZE - 1,
            0,
            label.encode("utf-16-le"),
        )
    rows = rows.ljust(count * 128, b"\0")

    def header(crc: int) -> bytes:
        guid = uuid.UUID(int=5).bytes_le
        return struct.pack(
            "<8sIIIIQQQQ16sQIII",
            *(b"EFI PART", 0x10000, 92, crc, 0, 1, 999, 34, 999, guid, 2, count, 128, zlib.crc32(rows)),
        )

    return bytes(SECTOR) + header(zlib.crc32(header(0))).ljust(SECTOR, b"\0") + rows


def erofs(blocks: int, bits: int = 12) -> bytes:
    """Superblock of a file system of `blocks` blocks of `1 << bits` bytes."""
    head = struct.pack("<IIIB", 0xE0F5E1E2, 0, 0, bits).ljust(36, b"\0") + struct.pack("<I", blocks)
    return bytes(1024) + head.ljust(128, b"\0")


def image(path: Path, *, blocks: int = 2) -> Path:
    """A disk with the four partitions of a release image."""
    start = (FIRST + 2 * SIZE) * SECTOR
    path.write_bytes(table(IMAGE).ljust(start, b"\0") + erofs(blocks).ljust(4 * SIZE * SECTOR, b"\0"))
    return path
