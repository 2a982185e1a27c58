"""The partition table of a finished image (UEFI specification 2.10, chapter 5.3). 512-byte sectors."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SECTOR = 512

FULL = 0.8
"""Share of its slot that a /usr may fill: the rest is for the next version."""

# Discoverable Partitions Specification (uapi-group.org); the rest is UEFI's.
TYPES = {
    "esp": uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
    "seed": uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
    "usr-x86-64": uuid.UUID("8484680c-9521-48c6-9c11-b0720656f69e"),
    "usr-x86-64-verity": uuid.UUID("77ff5f63-e7b6-4633-acf4-1565b864c0e6"),
    "usr-arm64": uuid.UUID("b0e01050-ee5f-4390-949a-9101b17104e9"),
    "usr-arm64-verity": uuid.UUID("6e11a4e7-fbca-4ded-b9e9-e1a512bb664e"),
    "root-x86-64": uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    "root-arm64": uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
}


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition; `start` and `size` in bytes, `number` from 1, `kind` a name of `TYPES` or ''."""

    number: int
    kind: str
    type: uuid.UUID
    id: uuid.UUID
    label: str
    start: int
    size: int


def rows(partitions: Iterable[Partition]) -> list[dict[str, Any]]:
    """Partitions as a manifest names them."""
    return [
        {"number": part.number, "kind": part.kind, "id": str(part.id), "label": part.label, "size": part.size}
        for part in partitions
    ]


def read(path: Path) -> tuple[Partition, ...]:
    """The partitions of a disk or image, in the table's order.

    Raises `BuildError` when there is no GPT or its checksums are wrong.
    """
    with path.open("rb") as disk:
        try:
            return _read(disk)
        except (struct.error, ValueError) as error:
            raise BuildError(f"{path} has no usable partition table: {error}") from error


def _read(disk: BinaryIO) -> tuple[Partition, ...]:
    disk.seek(SECTOR)
    header = disk.read(92)
    signature, _, size, crc = struct.unpack_from("<8sIII", header)
    if signature != b"EFI PART":
        raise ValueError("no GPT signature in sector 1")
    if zlib.crc32(header[:16] + b"\0\0\0\0" + header[20:size]) != crc:
        raise ValueError("the header's checksum is wrong")
    first, count, width, table_crc = struct.unpack_from("<QIII", header, 72)
    disk.seek(first * SECTOR)
    table = disk.read(count * width)
    if zlib.crc32(table) != table_crc:
        raise ValueError("the table's checksum is wrong")
    kinds = {value: name for name, value in TYPES.items()}
    found = []
    for number in range(count):
        kind, ident, start, end, _, label = struct.unpack_from("<16s16sQQQ72s", table, number * width)
        if kind == bytes(16):
            continue
        kind_id = uuid.UUID(bytes_le=kind)
        found.append(
            Partition(
                number=number + 1,
                kind=kinds.get(kind_id, ""),
                type=kind_id,
                id=uuid.UUID(bytes_le=ident),
                label=label.decode("utf-16-le").rstrip("\0"),
                start=start * SECTOR,
                size=(end - start + 1) * SECTOR,
            )
        )
    return tuple(found)


def moved(
    head: bytes,
    size: int,
    *,
    disk: uuid.UUID,
    ids: Mapping[int, uuid.UUID],
    attributes: Mapping[int, int],
) -> tuple[bytes, bytes]:
    """An image's table (its first 34 sectors) for a medium of `size` bytes: the first 34 and last 33 sectors.

    `disk` is the medium's own id, `ids` partitions' by number, `attributes` bits to set by number. Where the
    partitions are does not change.
    """
    sectors = size // SECTOR
    header = bytearray(head[SECTOR : SECTOR + 92])
    count, width = struct.unpack_from("<II", header, 80)
    table = bytearray(head[2 * SECTOR : 2 * SECTOR + count * width])
    for number, ident in ids.items():
        struct.pack_into("<16s", table, (number - 1) * width + 16, ident.bytes_le)
    for number, bits in attributes.items():
        (old,) = struct.unpack_from("<Q", table, (number - 1) * width + 48)
        struct.pack_into("<Q", table, (number - 1) * width + 48, old | bits)
    last = sectors - 1
    struct.pack_into("<Q", header, 48, last - 33)
    struct.pack_into("<16s", header, 56, disk.bytes_le)
    struct.pack_into("<I", header, 88, zlib.crc32(table))
    headers = []
    for own, other, entries in ((1, last, 2), (last, 1, last - 32)):
        struct.pack_into("<QQ", header, 24, own, other)
        struct.pack_into("<Q", header, 72, entries)
        struct.pack_into("<I", header, 16, 0)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        headers.append(bytes(header).ljust(SECTOR, b"\0"))
    protective = bytearray(head[:SECTOR])
    struct.pack_into("<I", protective, 446 + 12, min(last, 0xFFFFFFFF))
    entries_area = bytes(table).ljust(32 * SECTOR, b"\0")
    return bytes(protective) + headers[0] + entries_area, entries_area + headers[1]


def usr(partitions: tuple[Partition, ...]) -> tuple[Partition, Partition]:
    """Slot A: the /usr partition and its verity partition. Raises `BuildError` when either is missing."""
    data = [part for part in partitions if part.kind in ("usr-x86-64", "usr-arm64")]
    tree = [part for part in partitions if part.kind in ("usr-x86-64-verity", "usr-arm64-verity")]
    if not data or not tree:
        raise BuildError("the image has no /usr with verity")
    return data[0], tree[0]


def usrhash(partitions: tuple[Partition, ...]) -> str:
    """Verity's root hash; the two partition ids are its halves (systemd-veritysetup-generator(8))."""
    data, tree = usr(partitions)
    return data.id.hex + tree.id.hex
