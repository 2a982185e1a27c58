"""The names in the root folder of a FAT16, read without mounting it.

Checking and mounting a file system costs three program starts, seconds under emulation, at a point where
the network waits for us. On most boots of an unseeded node there is nothing to read. Whatever is not plainly
in order here (another FAT, a file system that was not unmounted, an unknown entry) is left to fsck and mount.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ENTRY = 32
_DELETED, _END = 0xE5, 0x00
_VOLUME, _LONG = 0x08, 0x0F
# FAT specification, section 4: bits of the second table entry; Linux marks the boot sector (byte 37) as well.
_CLEAN = 0xC000


def root_names(device: Path) -> frozenset[str] | None:
    """The names in lower case; None when the partition is no FAT16 that was left clean."""
    try:
        with device.open("rb") as handle:
            boot = handle.read(512)
            if len(boot) < 512 or boot[510:512] != b"\x55\xaa" or boot[54:62] != b"FAT16   " or boot[37] & 1:
                return None
            sector, _, reserved, tables, entries, _, _, per_table = struct.unpack_from("<HBHBHHBH", boot, 11)
            if sector not in {512, 1024, 2048, 4096} or not (reserved and tables and entries and per_table):
                return None
            handle.seek(reserved * sector)
            marks = handle.read(4)
            if len(marks) < 4 or int.from_bytes(marks[2:4], "little") & _CLEAN != _CLEAN:
                return None
            handle.seek((reserved + tables * per_table) * sector)
            return _names(handle.read(entries * _ENTRY))
    except (OSError, struct.error):
        return None


def _names(table: bytes) -> frozenset[str] | None:
    found: set[str] = set()
    long = ""
    for at in range(0, len(table) - _ENTRY + 1, _ENTRY):
        entry = table[at : at + _ENTRY]
        if entry[0] == _END:
            return frozenset(found)
        if entry[0] == _DELETED:
            long = ""
        elif entry[11] & 0x3F == _LONG:
            # Pieces of a long name come last piece first.
            piece = (entry[1:11] + entry[14:26] + entry[28:32]).decode("utf-16-le", errors="replace")
            long = piece.partition("\0")[0] + long
        elif entry[11] & _VOLUME:
            long = ""
        else:
            stem, kind = (entry[a:b].decode("ascii", errors="replace").strip() for a, b in ((0, 8), (8, 11)))
            found.add((long or (f"{stem}.{kind}" if kind else stem)).lower())
            long = ""
    return frozenset(found)
