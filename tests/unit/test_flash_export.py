"""Files for hypervisors and graphical flashers: whole, or not there."""

from __future__ import annotations

import errno
import lzma
import os
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from tests.unit import disks

from k3img.errors import FlashError, UsageError
from k3img.flash import export
from k3img.flash.export import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.image.released import ReleasedImage

DISK = 8 << 30


@pytest.fixture
def image(tmp_path: Path) -> ReleasedImage:
    return disks.released(tmp_path)


def no_program() -> NoReturn:
    pytest.fail("qemu-img is not needed")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x.raw", Kind.RAW), ("x.raw.zst", Kind.RAW_ZST), ("x.raw.xz", Kind.RAW_XZ), ("a.b.vmdk", Kind.VMDK)],
)
def test_a_name_says_the_format(tmp_path: Path, name: str, kind: Kind) -> None:
    assert export.kind_of(tmp_path / name) is kind


@pytest.mark.parametrize("name", ["x", "x.img", "x.zst", "raw", "qcow2"])
def test_a_name_that_says_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not say which format") as caught:
        export.kind_of(tmp_path / name)
    assert "raw.zst" in caught.value.hint


def test_packed_with_xz(image: ReleasedImage, tmp_path: Path) -> None:
    target = tmp_path / "y.raw.xz"
    export.export(image, target, Kind.RAW_XZ, size=DISK, program=no_program)
    assert lzma.decompress(target.read_bytes()) == image.raw.read_bytes()


def test_the_packed_image_of_the_build(image: ReleasedImage, tmp_path: Path) -> None:
    target = tmp_path / "y.raw.zst"
    with pytest.raises(FlashError, match=r"there is no .*\.raw\.zst") as caught:
        export.export(image, target, Kind.RAW_ZST, size=DISK, program=no_program)
    assert "image.formats" in caught.value.hint
    image.raw.with_name(f"{image.raw.name}.zst").write_bytes(b"packed")
    export.export(image, target, Kind.RAW_ZST, size=DISK, program=no_program)
    assert target.read_bytes() == b"packed"


@pytest.mark.parametrize("kind", [Kind.QCOW2, Kind.VMDK, Kind.VDI])
def test_a_disk_has_room_for_data(
    kind: Kind, image: ReleasedImage, tmp_path: Path, fake_program: FakePrograms
) -> None:
    path = fake_program.add("qemu-img", 'for last; do :; done; [ "$1" = create ] || echo disk > "$last"')
    target = tmp_path / f"y.{kind}"
    export.export(image, target, kind, size=DISK, program=lambda: (str(path),))
    create, convert = fake_program.calls("qemu-img")
    assert create.split()[0] == "create"
    assert str(image.raw) in create
    assert str(DISK) in fake_program.calls("qemu-img")[0] or f"{DISK >> 30}G" in create
    assert convert.split()[0] == "convert"
    assert f"-O {kind}" in convert
    assert target.read_text() == "disk\n"


@pytest.mark.parametrize("kind", Kind)
def test_a_full_disk_leaves_the_old_file(
    kind: Kind,
    image: ReleasedImage,
    tmp_path: Path,
    fake_program: FakePrograms,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image.raw.with_name(f"{image.raw.name}.zst").write_bytes(b"packed")
    target = tmp_path / "there" / f"y.{kind}"
    target.parent.mkdir()
    target.write_text("old")
    say = "echo half > \"$last\"; echo 'No space left on device' >&2; exit 1"
    program = fake_program.add("qemu-img", f'[ "$1" = create ] && exit; for last; do :; done; {say}')
    fake_program.add("cp", f"for last; do :; done; {say}")

    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    monkeypatch.setattr("lzma.LZMAFile.write", full)
    with pytest.raises(FlashError, match="cannot be written") as caught:
        export.export(image, target, kind, size=DISK, program=lambda: (str(program),))
    assert "No space left" in str(caught.value) + caught.value.details
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
