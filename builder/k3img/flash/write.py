"""Write an image's used blocks to a medium, so that it boots when all of it is there and not before.

The order: the old tables are cleared, the blocks are written and flushed, read back and compared, then the
new tables are written, the one at the end first. Whatever interrupts this leaves a medium without a table.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img import log
from k3img.errors import FlashError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from k3img.image import gpt
    from k3img.image.blockmap import Range

EDGE = 1 << 20
"""Bytes at both ends of a medium that are cleared first; the image's partitions begin behind that."""

CHUNK = 4 << 20
BLKRRPART, BLKFLSBUF = 0x125F, 0x1261
"""ioctl numbers (linux/fs.h): read the partition table again; forget what is cached of a disk."""

UNFINISHED = "Nothing boots from it as it is. Write it again."


@dataclass(frozen=True, kw_only=True)
class Job:
    """What goes where: ranges of `image`, other bytes in the place of some, and both tables.

    `instead` are bytes by their place on the medium; ranges that begin there are not taken from the image.
    """

    image: Path
    ranges: tuple[Range, ...]
    instead: Mapping[int, bytes]
    head: bytes
    tail: bytes

    @property
    def size(self) -> int:
        """Bytes to write between the tables."""
        return sum(item.size for item in self.ranges)


def write(job: Job, target: Path, size: int) -> None:
    """Write it all, and read it back. Raises `FlashError`, after which nothing boots from the medium."""
    with _opened(target) as disk, _explained(target):
        _put(disk, bytes(EDGE), 0)
        _put(disk, bytes(EDGE), size - EDGE)
        os.fsync(disk)
        with log.progress(f"writing {target}", job.size) as advance, job.image.open("rb") as source:
            sums = [_copy(job, source.fileno(), disk, item, advance) for item in job.ranges]
        _forget(disk)
        with log.progress(f"reading {target} back", job.size) as advance:
            for item, wanted in zip(job.ranges, sums, strict=True):
                _compare(disk, item, wanted, target, advance)
        _put(disk, job.tail, size - len(job.tail))
        os.fsync(disk)
        _put(disk, job.head, 0)
        os.fsync(disk)
        _forget(disk)
        if os.pread(disk, len(job.head), 0) != job.head:
            raise FlashError(f"{target} does not keep what is written to it: its first sectors differ")
        with suppress(OSError):  # a file has no partitions; some disks say that they are busy
            fcntl.ioctl(disk, BLKRRPART)


@contextmanager
def _opened(target: Path) -> Iterator[int]:
    """O_EXCL on a disk fails while it is mounted or in other use (open(2))."""
    exclusive = os.O_EXCL if stat.S_ISBLK(target.stat().st_mode) else 0
    try:
        disk = os.open(target, os.O_RDWR | os.O_CLOEXEC | exclusive)
    except OSError as error:
        hint = "Something mounted it meanwhile; unmount it." if error.errno == errno.EBUSY else ""
        raise FlashError(f"{target} cannot be written: {error.strerror}", hint=hint) from error
    try:
        yield disk
    finally:
        os.close(disk)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    """What the kernel refuses, in words; an interrupt says what it leaves."""
    try:
        yield
    except OSError as error:
        gone = error.errno in (errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM)
        what = "is gone" if gone else f"cannot be written or read: {error.strerror}"
        raise FlashError(f"{target} {what}", hint=UNFINISHED) from error
    except KeyboardInterrupt:
        log.line(f"{target} is not complete. {UNFINISHED}")
        raise


def _copy(job: Job, source: int, disk: int, item: Range, advance: Callable[[int], None]) -> str:
    """One range; the image's own bytes are compared with the block map on the way.

    Returns the sha256 of what was written.
    """
    read, written = hashlib.sha256(), hashlib.sha256()
    for at in range(item.start, item.start + item.size, CHUNK):
        count = min(CHUNK, item.start + item.size - at)
        block = os.pread(source, count, at)
        read.update(block)
        block = _with(job.instead, at, block)
        written.update(block)
        _put(disk, block, at)
        # What is only in memory would make the bar a lie, and the last fsync minutes long.
        os.fdatasync(disk)
        advance(count)
    if read.hexdigest() != item.sha256:
        raise FlashError(
            f"{job.image} is damaged at bytes {item.start} to {item.start + item.size}",
            hint=f"Build it again. {UNFINISHED}",
        )
    return written.hexdigest()


def _compare(disk: int, item: Range, wanted: str, target: Path, advance: Callable[[int], None]) -> None:
    digest = hashlib.sha256()
    for at in range(item.start, item.start + item.size, CHUNK):
        count = min(CHUNK, item.start + item.size - at)
        digest.update(os.pread(disk, count, at))
        advance(count)
    if digest.hexdigest() != wanted:
        raise FlashError(
            f"{target} does not keep what is written to it: "
            f"bytes {item.start} to {item.start + item.size} differ",
            hint=f"The medium is worn out, or not as large as it says. {UNFINISHED}",
        )


def _put(disk: int, data: bytes, at: int) -> None:
    """All of it: a full file system takes a part, and says why only when asked again."""
    while data:
        count = os.pwrite(disk, data, at)
        data, at = data[count:], at + count


def _with(instead: Mapping[int, bytes], at: int, block: bytes) -> bytes:
    """A block with the parts of it replaced that `instead` has."""
    for start, data in instead.items():
        first, last = max(start, at), min(start + len(data), at + len(block))
        if first < last:
            block = block[: first - at] + data[first - start : last - start] + block[last - at :]
    return block


def _forget(disk: int) -> None:
    """Flush, and let the next read come from the medium."""
    os.fsync(disk)
    os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
    with suppress(OSError):
        fcntl.ioctl(disk, BLKFLSBUF)


def between_tables(ranges: tuple[Range, ...], partitions: tuple[gpt.Partition, ...]) -> tuple[Range, ...]:
    """The ranges that belong to partitions; the tables are made anew for each medium."""
    begin, end = (
        min(part.start for part in partitions),
        max(part.start + part.size for part in partitions),
    )
    return tuple(item for item in ranges if begin <= item.start < end)
