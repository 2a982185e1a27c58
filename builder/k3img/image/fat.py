"""Which bytes of a FAT somebody may read (Microsoft: FAT specification 1.03). FAT16 and FAT32."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FAT32_FROM = 65525
"""Clusters from which on a FAT is a FAT32; there is no other mark of it."""


def used(image: BinaryIO, start: int, name: str) -> Iterator[tuple[int, int]]:
    """Ranges of the image (first byte, bytes): reserved area, FATs, root folder, allocated clusters.

    Raises `BuildError` when there is no such FAT at byte `start`.
    """
    image.seek(start)
    boot = image.read(512)
    if len(boot) < 512 or boot[510:] != b"\x55\xaa":
        raise BuildError(f"{name} has no FAT at byte {start}")
    sector, per_cluster, reserved, tables, entries, small, _, short = struct.unpack_from(
        "<HBHBHHBH", boot, 11
    )
    large, long = struct.unpack_from("<I", boot, 32)[0], struct.unpack_from("<I", boot, 36)[0]
    length, count = short or long, small or large
    if sector not in (512, 1024, 2048, 4096) or not (
        per_cluster and reserved and tables and length and count
    ):
        raise BuildError(f"{name} has no FAT at byte {start}")
    folder = -(-entries * 32 // sector)
    data = reserved + tables * length + folder
    yield start, data * sector
    clusters = (count - data) // per_cluster
    image.seek(start + reserved * sector)
    table = image.read(length * sector)
    bytes_each = per_cluster * sector
    for first, number in _runs(table, clusters):
        yield start + data * sector + (first - 2) * bytes_each, number * bytes_each


def _runs(table: bytes, clusters: int) -> Iterator[tuple[int, int]]:
    """Runs of clusters that are not free: first cluster, number."""
    width, mask = (4, 0x0FFFFFFF) if clusters >= _FAT32_FROM else (2, 0xFFFF)
    begin = None
    for cluster in range(2, clusters + 2):
        taken = int.from_bytes(table[cluster * width : (cluster + 1) * width], "little") & mask
        if taken and begin is None:
            begin = cluster
        elif not taken and begin is not None:
            yield begin, cluster - begin
            begin = None
    if begin is not None:
        yield begin, clusters + 2 - begin
