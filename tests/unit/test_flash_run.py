"""What is written to a medium: of the image, of the node, and the table that only this medium has."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit import disks

from k3img.device import gpt as device_gpt
from k3img.errors import FlashError
from k3img.flash import run, write
from k3img.flash.device import DATA, Medium
from k3img.image import blockmap, gpt
from k3img.node.medium import SEEDED_BIT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.flash.personalise import Argv
    from k3img.image.released import ReleasedImage

SIZE = 8 << 20


@pytest.fixture
def image(tmp_path: Path) -> ReleasedImage:
    """A small image with its block map."""
    made = disks.released(tmp_path)
    run.bmap(made).write_text(blockmap.as_text(blockmap.make(made.raw)))
    return made


@pytest.fixture
def medium(tmp_path: Path) -> Medium:
    """A file full of what was there before."""
    path = tmp_path / "card"
    path.write_bytes(b"\xa5" * SIZE)
    return Medium(path=path, size=SIZE, model="", removable=True, is_file=True)


@pytest.fixture
def mcopy(fake_program: FakePrograms) -> Argv:
    """Writes one byte into the first argument that follows -i."""
    write = 'printf N | dd of="$2" bs=1 seek=9 conv=notrunc 2>/dev/null'
    path = fake_program.add("mcopy", f'while [ "$1" != -i ]; do shift; done; {write}')
    return lambda _: (str(path),)


def no_program(name: str) -> tuple[str, ...]:
    pytest.fail(f"{name} is not needed")


def test_a_medium_holds_the_image_and_ids_of_its_own(image: ReleasedImage, medium: Medium) -> None:
    done = run.flash(image, medium, content={}, argv=no_program)
    assert done.size == image.raw.stat().st_size
    was, now = gpt.read(image.raw), gpt.read(medium.path)
    assert [(p.label, p.start, p.size) for p in was] == [(p.label, p.start, p.size) for p in now]
    assert [a.id == b.id for a, b in zip(was, now, strict=True)] == [False, False, True, True]
    data, old = medium.path.read_bytes(), image.raw.read_bytes()
    for item in blockmap.read(run.bmap(image)).ranges[1:-1]:
        assert data[item.start : item.start + item.size] == old[item.start : item.start + item.size]
    assert device_gpt.read(medium.path) is not None, "the node reads it as well"


def test_two_media_are_not_one(image: ReleasedImage, medium: Medium) -> None:
    seen = set()
    for _ in range(2):
        run.flash(image, medium, content={}, argv=no_program)
        table = device_gpt.read(medium.path)
        assert table
        seen.add((table.disk, *(str(part.id) for part in gpt.read(medium.path)[:2])))
    assert len({value for ids in seen for value in ids}) == 6


def test_a_node_is_on_its_seed_and_the_table_says_so(
    image: ReleasedImage, medium: Medium, mcopy: Argv
) -> None:
    before = hashlib.sha256(image.raw.read_bytes()).digest()
    run.flash(image, medium, content={"node.yaml": b"node: {}"}, argv=mcopy)
    seed = gpt.read(medium.path)[1]
    assert medium.path.read_bytes()[seed.start : seed.start + 10] == b"seed\0\0\0\0\0N"
    table = device_gpt.read(medium.path)
    assert table
    assert [part.attributes for part in table.partitions] == [0, SEEDED_BIT, 0, 0]
    assert hashlib.sha256(image.raw.read_bytes()).digest() == before, "the image belongs to every node"


def test_files_that_do_not_fit(image: ReleasedImage, medium: Medium, fake_program: FakePrograms) -> None:
    path = fake_program.add("mcopy", "echo 'Disk full' >&2; exit 1")
    with pytest.raises(FlashError, match="cannot be put on its seed") as caught:
        run.flash(image, medium, content={"a": b"x"}, argv=lambda _: (str(path),))
    assert "Disk full" in caught.value.details
    assert set(medium.path.read_bytes()) == {0xA5}, "nothing was written"


def test_a_map_of_another_image(image: ReleasedImage, medium: Medium) -> None:
    with image.raw.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(FlashError, match="is of another image"):
        run.flash(image, medium, content={}, argv=no_program)
    assert set(medium.path.read_bytes()) == {0xA5}, "nothing was written"


def test_a_damaged_image(image: ReleasedImage, medium: Medium) -> None:
    place = gpt.read(image.raw)[2].start + 1024
    with image.raw.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff")
    with pytest.raises(FlashError, match="is damaged at bytes"):
        run.flash(image, medium, content={}, argv=no_program)
    assert not any(medium.path.read_bytes()[: write.EDGE]), "nothing boots from it"


def test_room_is_for_the_image_a_second_slot_and_data(image: ReleasedImage, medium: Medium) -> None:
    parts = gpt.read(image.raw)
    end, slot = parts[-1].start + parts[-1].size, parts[2].size + parts[3].size
    needed = end + slot + DATA + write.EDGE
    run.check(image, replace(medium, size=needed), force=False)
    with pytest.raises(FlashError, match="is too small") as caught:
        run.check(image, replace(medium, size=needed - 1), force=False)
    assert "second slot" in caught.value.details
