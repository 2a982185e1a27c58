"""Which blocks of an image are written, and the file that says so."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tests.unit import disks

from k3img.errors import BuildError
from k3img.image import blockmap, fat, gpt, verity
from k3img.image.blockmap import BlockMap, Range

if TYPE_CHECKING:
    from pathlib import Path

SECTOR = 512


@pytest.mark.parametrize(("clusters", "per_cluster"), [(5000, 4), (70000, 1)])
def test_used_parts_of_a_fat(clusters: int, per_cluster: int) -> None:
    last = clusters + 1
    content, data = disks.fat(clusters=clusters, taken=(2, 3, 4, 900, last), per_cluster=per_cluster)
    each = per_cluster * SECTOR
    start = 4096
    base = start + data * SECTOR
    assert list(fat.used(io.BytesIO(bytes(start) + content), start, "x")) == [
        (start, data * SECTOR),
        (base, 3 * each),
        (base + 898 * each, each),
        (base + (last - 2) * each, each),
    ]


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(510) + b"\x55\xaa", b"EFI PART".ljust(512, b"x")])
def test_what_is_no_fat(data: bytes) -> None:
    with pytest.raises(BuildError, match="has no FAT at byte 0"):
        list(fat.used(io.BytesIO(data), 0, "x"))


@pytest.mark.parametrize(
    ("blocks", "wanted"),
    # 128 hashes of 32 bytes in a block of 4096: levels of 1, of 1 + 2, of 1 + 2 + 129.
    [(1, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 132)],
)
def test_how_long_a_hash_tree_is(blocks: int, wanted: int) -> None:
    about = verity.Verity(algorithm="sha256", data_block=4096, hash_block=4096, blocks=blocks, salt=b"")
    assert verity.length(about) == (1 + wanted) * 4096


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return disks.whole(tmp_path / "x.raw")


def covered(found: BlockMap, start: int, size: int) -> bool:
    return any(item.start <= start and start + size <= item.start + item.size for item in found.ranges)


def test_what_may_be_read_is_in_the_map_zero_or_not(raw: Path) -> None:
    found = blockmap.make(raw)
    esp, seed, usr, tree = gpt.read(raw)
    assert covered(found, 0, 34 * SECTOR)
    assert covered(found, raw.stat().st_size - 33 * SECTOR, 33 * SECTOR)
    assert covered(found, esp.start, 4096)
    assert covered(found, seed.start, seed.size)
    assert covered(found, usr.start, 8192)
    assert covered(found, tree.start, 8192)
    for part in (esp, usr, tree):
        assert covered(found, part.start + part.size - blockmap.PROBED, blockmap.PROBED)
        assert not covered(found, part.start, part.size), "nobody reads all of it"
    data = raw.read_bytes()
    for item in found.ranges:
        assert item.start % 4096 == 0
        assert hashlib.sha256(data[item.start : item.start + item.size]).hexdigest() == item.sha256
    ends = [(item.start, item.start + item.size) for item in found.ranges]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_a_map_survives_its_file(raw: Path, tmp_path: Path) -> None:
    found = blockmap.make(raw)
    (tmp_path / "x.bmap").write_text(blockmap.as_text(found))
    assert blockmap.read(tmp_path / "x.bmap") == found


def test_a_last_block_that_is_not_whole(tmp_path: Path) -> None:
    found = BlockMap(size=4096 + 512, ranges=(Range(start=4096, size=512, sha256="ab"),))
    (tmp_path / "x.bmap").write_text(blockmap.as_text(found))
    assert blockmap.read(tmp_path / "x.bmap") == found


def test_the_sum_is_as_bmaptool_checks_it(raw: Path) -> None:
    """The file's sha256 with zeros in the place of its sum (bmap-tools, BmapCopy.py)."""
    text = blockmap.as_text(blockmap.make(raw))
    total = text.partition("<BmapFileChecksum> ")[2].partition(" ")[0]
    assert hashlib.sha256(text.replace(total, "0" * 64).encode()).hexdigest() == total


@pytest.mark.parametrize(
    ("old", "new"), [("<Range", "<Rage"), (" 0-4 ", " 0-5 "), ("</bmap>", ""), ("chksum=", "sum=")]
)
def test_a_map_that_was_changed(old: str, new: str, raw: Path, tmp_path: Path) -> None:
    text = blockmap.as_text(blockmap.make(raw))
    assert old in text
    (tmp_path / "x.bmap").write_text(text.replace(old, new, 1))
    with pytest.raises(BuildError, match="cannot be used"):
        blockmap.read(tmp_path / "x.bmap")


def test_no_map(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file") as caught:
        blockmap.read(tmp_path / "x.bmap")
    assert "Build the image again" in caught.value.hint
