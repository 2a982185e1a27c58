"""Reading partition tables and erofs superblocks of images that are made here, good ones and damaged ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit import disks

from k3img.errors import BuildError
from k3img.image import erofs, gpt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_partitions_are_read_in_order(tmp_path: Path) -> None:
    parts = gpt.read(disks.image(tmp_path / "x.raw"))
    assert [(p.number, p.kind, p.label) for p in parts] == [
        (1, "esp", "esp"),
        (2, "seed", "K3IMG"),
        (3, "usr-x86-64", "x86_1"),
        (4, "usr-x86-64-verity", "x86_1"),
    ]
    assert parts[2].start == (disks.FIRST + 2 * disks.SIZE) * 512
    assert {p.size for p in parts} == {disks.SIZE * 512}


def test_the_root_hash_is_the_two_ids(tmp_path: Path) -> None:
    parts = gpt.read(disks.image(tmp_path / "x.raw"))
    assert gpt.usrhash(parts) == "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221100"


def test_an_unknown_type_has_no_kind(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(disks.table((("other", disks.DATA_ID, "data"),)))
    (part,) = gpt.read(path)
    assert (part.kind, part.label) == ("", "data")


def _flip(offset: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda _: b"", "no usable partition table"),
        (lambda data: data[:600], "checksum"),
        (lambda data: bytes(len(data)), "no GPT signature"),
        (_flip(512 + 40), "the header's checksum"),
        (_flip(1024 + 3), "the table's checksum"),
        (lambda data: data[:1100], "the table's checksum"),
    ],
    ids=["empty", "short", "zeros", "header", "table", "half a table"],
)
def test_a_damaged_table_is_refused(damage: Callable[[bytes], bytes], what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(damage(disks.table(disks.IMAGE)))
    with pytest.raises(BuildError, match=what):
        gpt.read(path)


def test_an_image_without_verity(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(disks.table(disks.IMAGE[:3]))
    with pytest.raises(BuildError, match="no /usr with verity"):
        gpt.usrhash(gpt.read(path))


def test_how_much_an_erofs_fills(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(4096) + disks.erofs(blocks=1000, bits=12))
    assert erofs.used_bytes(path, 4096) == 4_096_000
    path.write_bytes(disks.erofs(blocks=3, bits=9))
    assert erofs.used_bytes(path, 0) == 3 * 512


@pytest.mark.parametrize("data", [b"", bytes(5000), disks.erofs(1)[:1030]], ids=["empty", "zeros", "cut"])
def test_what_is_no_erofs(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(BuildError, match="no erofs at byte 0"):
        erofs.used_bytes(path, 0)
