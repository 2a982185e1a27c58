"""Small disk images for tests: a GPT by the UEFI specification, and the head of an erofs."""

from __future__ import annotations

import hashlib
import struct
import uuid
import zlib
from typing import TYPE_CHECKING

from k3img.image.gpt import SECTOR, TYPES
from k3img.image.released import ReleasedImage
from k3img.image.verity import _SUPER
from k3img.profile.boards import Board
from k3img.profile.model import Arch

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


def table(
    entries: tuple[tuple[str, uuid.UUID, str], ...], *, count: int = 8, begin: int = FIRST, size: int = SIZE
) -> bytes:
    """Protective MBR, header and entries; the second header is left out. `begin` and `size` in sectors."""
    rows = b""
    for place, (kind, ident, label) in enumerate(entries):
        first = begin + place * size
        rows += struct.pack(
            "<16s16sQQQ72s",
            TYPES[kind].bytes_le if kind in TYPES else uuid.UUID(int=77).bytes_le,
            ident.bytes_le,
            first,
            first + size - 1,
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


def fat(*, clusters: int, taken: tuple[int, ...], per_cluster: int = 1) -> tuple[bytes, int]:
    """A FAT of so many clusters, some of them taken; and the sector in which its data begin."""
    wide = 4 if clusters >= 65525 else 2
    entries, reserved = (0, 32) if wide == 4 else (512, 4)
    length = -(-(clusters + 2) * wide // SECTOR)
    data = reserved + 2 * length + entries * 32 // SECTOR
    count = data + clusters * per_cluster
    short, large = (0, length) if wide == 4 else (length, 0)
    boot = bytearray(SECTOR)
    struct.pack_into(
        "<HBHBHHBH",
        boot, 11,
        SECTOR, per_cluster, reserved, 2, entries, count if count < 65536 and wide == 2 else 0, 0xF8, short,
    )  # fmt: skip
    struct.pack_into("<II", boot, 32, count, large)
    boot[510:] = b"\x55\xaa"
    table = bytearray(length * SECTOR)
    for cluster in taken:
        table[cluster * wide] = 0xFF
    # What FAT32 keeps in the upper four bits is nobody's cluster.
    if wide == 4:
        table[5 * wide + 3] = 0xF0
    return bytes(boot).ljust(reserved * SECTOR, b"\0") + 2 * bytes(table), data


def whole(path: Path) -> Path:
    """An image whose partitions are 256 KiB each, with a FAT, an erofs and hashes that say little."""
    content, _ = fat(clusters=4500 // 16, taken=(2,), per_cluster=1)
    head = _SUPER.pack(b"verity\0\0", 1, 1, bytes(16), b"sha256", 4096, 4096, 2, 4, b"salt")
    parts = [content, b"seed", erofs(2), head]
    data = table(IMAGE, begin=2048, size=512).ljust(2048 * SECTOR, b"\0")
    data += b"".join(part.ljust(512 * SECTOR, b"\0") for part in parts)
    path.write_bytes(data + bytes(2048 * SECTOR))
    return path


def released(folder: Path) -> ReleasedImage:
    """That image, as a build leaves it."""
    raw = whole(folder / "x_1.raw")
    return ReleasedImage(
        folder=folder,
        profile="x",
        version="1",
        arch=Arch.X86_64,
        board=Board.UEFI,
        raw=raw,
        sha256=hashlib.sha256(raw.read_bytes()).hexdigest(),
        runtime="v1",
        standin=False,
        manifest={},
    )
