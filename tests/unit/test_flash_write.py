"""Writing to a medium: every byte that counts, in an order that leaves no half medium that boots."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit import disks

from k3img.device import gpt as device_gpt
from k3img.errors import FlashError
from k3img.flash import write
from k3img.image import gpt
from k3img.image.blockmap import Range

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20
SIZE = 16 * MIB
HEAD, TAIL = b"first table".ljust(34 * 512, b"h"), b"last table".rjust(33 * 512, b"t")
PLACES = ((MIB, 5 * MIB), (7 * MIB, 4096), (8 * MIB, 12288))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 10 MiB; of its second range all bytes are zero."""
    data = bytearray(random.Random(1).randbytes(10 * MIB))
    data[7 * MIB : 7 * MIB + 4096] = bytes(4096)
    path = tmp_path / "x.raw"
    path.write_bytes(data)
    return path


@pytest.fixture
def job(image: Path) -> write.Job:
    data = image.read_bytes()
    ranges = tuple(
        Range(start=start, size=size, sha256=hashlib.sha256(data[start : start + size]).hexdigest())
        for start, size in PLACES
    )
    return write.Job(image=image, ranges=ranges, instead={}, head=HEAD, tail=TAIL)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A card that was used before: nothing on it is zero."""
    path = tmp_path / "card"
    path.write_bytes(b"\xa5" * SIZE)
    return path


def test_what_is_on_the_medium_afterwards(job: write.Job, medium: Path) -> None:
    write.write(job, medium, SIZE)
    wanted = bytearray(b"\xa5" * SIZE)
    wanted[:MIB] = bytes(MIB)
    wanted[-MIB:] = bytes(MIB)
    data = job.image.read_bytes()
    for start, size in PLACES:
        wanted[start : start + size] = data[start : start + size]
    wanted[: len(HEAD)] = HEAD
    wanted[-len(TAIL) :] = TAIL
    assert medium.read_bytes() == bytes(wanted)


def test_other_bytes_take_the_place_of_the_images(job: write.Job, medium: Path) -> None:
    # Across the border of two chunks, and up to the end of a range.
    seed = b"seed" * (2 * MIB // 4)
    write.write(replace(job, instead={4 * MIB: seed}), medium, SIZE)
    data = medium.read_bytes()
    assert data[4 * MIB : 6 * MIB] == seed
    assert data[MIB : 4 * MIB] == job.image.read_bytes()[MIB : 4 * MIB]


def no_table(medium: Path) -> bool:
    data = medium.read_bytes()
    return not any(data[: 34 * 512]) and not any(data[-33 * 512 :])


def test_a_damaged_image(job: write.Job, medium: Path) -> None:
    with job.image.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"rot")
    with pytest.raises(FlashError, match=f"damaged at bytes {MIB} to"):
        write.write(job, medium, SIZE)
    assert no_table(medium)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errno.EIO, "cannot be written or read: Input/output error"),
        (errno.ENOSPC, "No space left on device"),
        (errno.ENODEV, "is gone"),
        (errno.ENXIO, "is gone"),
    ],
)
def test_the_kernel_refuses(
    error: int, said: str, job: write.Job, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.pwrite", failing(at=8 * MIB, how=OSError(error, os.strerror(error))))
    with pytest.raises(FlashError, match=said) as caught:
        write.write(job, medium, SIZE)
    assert "Nothing boots from it" in caught.value.hint
    assert no_table(medium)


def test_an_interrupt(
    job: write.Job, medium: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.pwrite", failing(at=8 * MIB, how=KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write.write(job, medium, SIZE)
    assert "is not complete. Nothing boots from it" in capsys.readouterr().err
    assert no_table(medium)


def failing(*, at: int, how: BaseException) -> Callable[[int, bytes, int], int]:
    real = os.pwrite

    def pwrite(file: int, data: bytes, offset: int) -> int:
        if offset == at:
            raise how
        return real(file, data, offset)

    return pwrite


def test_writes_that_take_a_part(job: write.Job, medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file system does that is nearly full (pwrite(2))."""
    real = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, data, at: real(file, data[: 700 << 10], at))
    write.write(job, medium, SIZE)
    data, image = medium.read_bytes(), job.image.read_bytes()
    assert all(data[start : start + size] == image[start : start + size] for start, size in PLACES)
    assert data.startswith(HEAD)


def test_a_medium_that_is_smaller_than_it_says(
    job: write.Job, medium: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written behind its real end comes back as something else."""
    real = os.pwrite
    monkeypatch.setattr(
        "os.pwrite", lambda file, data, at: real(file, data, at) if at < 8 * MIB else len(data)
    )
    with pytest.raises(FlashError, match=f"does not keep what is written to it: bytes {8 * MIB}"):
        write.write(job, medium, SIZE)
    assert not any(medium.read_bytes()[: 34 * 512])


def test_the_tables_come_last(job: write.Job, medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = os.pwrite, []

    def pwrite(file: int, data: bytes, at: int) -> int:
        seen.append(at)
        return real(file, data, at)

    monkeypatch.setattr("os.pwrite", pwrite)
    write.write(job, medium, SIZE)
    assert seen[:2] == [0, SIZE - MIB]
    assert seen[-2:] == [SIZE - len(TAIL), 0]
    assert all(MIB <= at < 9 * MIB for at in seen[2:-2])


def test_a_medium_without_rights(job: write.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "card").touch()
    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(FlashError, match="cannot be written: Permission denied"):
        write.write(job, tmp_path / "card", SIZE)


def test_both_tables_for_a_larger_medium(tmp_path: Path) -> None:
    disk, esp = uuid.UUID(int=100), uuid.UUID(int=101)
    head = disks.table(disks.IMAGE)
    first, last = gpt.moved(head, SIZE, disk=disk, ids={1: esp}, attributes={2: 1 << 48})
    assert (len(first), len(last)) == (34 * 512, 33 * 512)
    for header in (first[512:1024], last[-512:]):
        assert int.from_bytes(header[48:56], "little") == SIZE // 512 - 34, "the last sector of partitions"
    assert int.from_bytes(first[458:462], "little") == SIZE // 512 - 1, "the protective MBR covers all"
    path = tmp_path / "card"
    path.write_bytes(first.ljust(SIZE - len(last), b"\0") + last)
    parts = gpt.read(path)
    assert [part.id for part in parts] == [esp, *(ident for _, ident, _ in disks.IMAGE[1:])]
    old = tmp_path / "old"
    old.write_bytes(head)
    assert [(p.start, p.size, p.label, p.kind) for p in parts] == [
        (p.start, p.size, p.label, p.kind) for p in gpt.read(old)
    ]
    both = []
    for damaged in (None, 1, SIZE // 512 - 1):
        data = bytearray(path.read_bytes())
        if damaged is not None:
            data[damaged * 512] ^= 1
        path.with_name("one").write_bytes(data)
        both.append(device_gpt.read(path.with_name("one")))
    assert both[0] is not None
    assert both[0] == both[1] == both[2]
    assert both[0].disk == str(disk)
    assert [p.attributes for p in both[0].partitions] == [0, 1 << 48, 0, 0]


def test_the_tables_are_not_the_images(job: write.Job) -> None:
    ranges = (Range(start=0, size=20480, sha256=""), *job.ranges, Range(start=12 * MIB, size=4096, sha256=""))
    parts = tuple(
        gpt.Partition(
            number=n, kind="", type=uuid.UUID(int=0), id=uuid.UUID(int=n), label="", start=start, size=5 * MIB
        )
        for n, start in enumerate((MIB, 6 * MIB), 1)
    )
    assert write.between_tables(ranges, parts) == job.ranges
