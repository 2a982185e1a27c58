"""The partition table of a disk (UEFI specification, chapter 5.3): read it, and drop one entry.

Written here because the image has no partitioning tool, and because the node must compare the tables of
several disks that carry the same identifiers, of which udev keeps one link only.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"EFI PART"
TYPE_ROOTS = ("4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "b921b045-1df0-41c3-af44-4c6f280d3fae")
"""Partition types of an x86-64 and an arm64 root (Discoverable Partitions Specification)."""

# signature, revision, header size, header CRC, reserved, own LBA, other LBA, first, last, disk GUID,
# LBA of the entries, their number, size of one, CRC of all
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
MAX_ENTRIES = 1024


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One entry: its number (from 1), lower-case GUIDs, name, attribute bits, first and last sector."""

    number: int
    type: str
    guid: str
    name: str
    attributes: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """A valid table: the disk's GUID and its used entries."""

    disk: str
    partitions: tuple[Partition, ...]


def guid_text(raw: bytes) -> str:
    """A GUID's sixteen bytes, in their mixed order, as people write it."""
    a, b, c = struct.unpack("<IHH", raw[:8])
    return f"{a:08x}-{b:04x}-{c:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def read(disk: Path, sector: int = 512) -> Table | None:
    """The disk's table, from its first header, else from the copy at the end; None without a valid one."""
    try:
        with disk.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            for lba in (1, size // sector - 1):
                if (found := _parse(handle.fileno(), lba, sector)) is not None:
                    return found[2]
    except (OSError, ValueError):
        return None
    return None


def _parse(handle: int, lba: int, sector: int) -> tuple[bytearray, bytearray, Table] | None:
    """Header, entries and table behind the header at `lba`, when both checksums are right."""
    if lba < 1:
        return None
    header = bytearray(os.pread(handle, sector, lba * sector))
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        return None
    fields = _HEADER.unpack_from(header)
    size, crc, disk, where, count, each, entries_crc = (*fields[2:4], *fields[9:14])
    if not (_HEADER.size <= size <= sector and 0 < count <= MAX_ENTRIES and each >= _ENTRY.size):
        return None
    if zlib.crc32(bytes(header[:16] + bytes(4) + header[20:size])) != crc:
        return None
    entries = bytearray(os.pread(handle, count * each, where * sector))
    if zlib.crc32(bytes(entries)) != entries_crc:
        return None
    used = tuple(
        Partition(
            number=index + 1,
            type=guid_text(kind),
            guid=guid_text(own),
            name=name.decode("utf-16-le", errors="replace").rstrip("\0"),
            attributes=attributes,
            first=first,
            last=last,
        )
        for index in range(count)
        for kind, own, first, last, attributes, name in [_ENTRY.unpack_from(entries, index * each)]
        if any(kind)
    )
    return header, entries, Table(disk=guid_text(disk), partitions=used)


def drop(disk: Path, guid: str, sector: int = 512) -> bool:
    """Remove the entry of the partition with this GUID from both tables; says whether it was there.

    The copy at the end is written first: at any moment one of the two tables is whole, and as long as
    the first one still has the entry, this can simply be done again.
    """
    with disk.open("r+b") as handle:
        size = handle.seek(0, os.SEEK_END)
        done = False
        for lba in (size // sector - 1, 1):
            found = _parse(handle.fileno(), lba, sector)
            gone = next((p for p in found[2].partitions if p.guid == guid), None) if found else None
            if found is None or gone is None:
                continue
            header, entries, _ = found
            size_of_header, where, count, each = (
                _HEADER.unpack_from(header)[2],
                *_HEADER.unpack_from(header)[10:13],
            )
            start = (gone.number - 1) * each
            entries[start : start + each] = bytes(each)
            struct.pack_into("<I", header, 88, zlib.crc32(bytes(entries[: count * each])))
            struct.pack_into("<I", header, 16, 0)
            struct.pack_into("<I", header, 16, zlib.crc32(bytes(header[:size_of_header])))
            os.pwrite(handle.fileno(), entries, where * sector)
            os.pwrite(handle.fileno(), header, lba * sector)
            os.fsync(handle.fileno())
            done = True
    return done
