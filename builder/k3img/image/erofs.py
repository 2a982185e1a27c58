"""What an erofs holds, read without mounting it and without root (kernel: fs/erofs/erofs_fs.h).

Only the tree: names, modes, owners, sizes, links. These need root or a mount with erofs' own tools, which
give files away to whoever unpacks them. Contents are unpacked by fsck.erofs.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = 0xE0F5E1E2
_SUPER = struct.Struct("<IIIBBHQQIIII")
_COMPACT = struct.Struct("<HHHHIIIIHHI")
_EXTENDED = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBB")

_FLAT_PLAIN, _FLAT_INLINE = 0, 2
"""How data lies that is not compressed: in blocks, or its last part behind the inode."""


_MOST = 1 << 24
"""Bytes of a folder or link, at most; a folder of 200000 files has them."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, folder or link: `path` from the root without a leading slash, `mode` as stat(2) gives it."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link; `target` is where to."""
        return stat.S_ISLNK(self.mode)


@dataclass(frozen=True, kw_only=True)
class _Inode:
    layout: int
    mode: int
    uid: int
    gid: int
    size: int
    block: int
    tail: int
    """Where data begins that lies behind the inode, in bytes from the file system's start."""


class Erofs:
    """A file system inside an open image. Raises `BuildError` when there is none at `offset`."""

    def __init__(self, image: BinaryIO, offset: int, name: str) -> None:
        self._image = image
        self._offset = offset
        self._name = name
        block = self._read(1024, 128)
        fields = _SUPER.unpack_from(block.ljust(128, b"\0"))
        if fields[0] != MAGIC or len(block) < 128:
            raise BuildError(f"{name} has no erofs at byte {offset}")
        self._bits, self._root = fields[3], fields[5]
        self._blocks, self._meta = fields[9], fields[10]

    @property
    def used(self) -> int:
        """Bytes of the file system."""
        return int(self._blocks << self._bits)

    def walk(self) -> Iterator[Entry]:
        """Everything in it, folders before what is in them. Raises `BuildError` when it is damaged."""
        try:
            yield from self._walk("", self._inode(self._root))
        except (struct.error, ValueError, IndexError, OverflowError, RecursionError, OSError) as error:
            raise BuildError(f"{self._name}: its erofs is damaged: {error}") from error

    def _walk(self, path: str, inode: _Inode) -> Iterator[Entry]:
        for name, nid in self._names(inode):
            if name in (".", ".."):
                continue
            below = self._inode(nid)
            at = f"{path}/{name}".lstrip("/")
            link = self._data(below).decode(errors="replace") if stat.S_ISLNK(below.mode) else ""
            yield Entry(path=at, mode=below.mode, uid=below.uid, gid=below.gid, size=below.size, target=link)
            if stat.S_ISDIR(below.mode):
                yield from self._walk(at, below)

    def _inode(self, nid: int) -> _Inode:
        at = (self._meta << self._bits) + nid * 32
        head = self._read(at, 64)
        form, xattrs = struct.unpack_from("<HH", head)
        if form & 1:
            _, _, mode, _, size, block, _, uid, gid, _, _, _ = _EXTENDED.unpack_from(head)
        else:
            _, _, mode, _, size, _, block, _, uid, gid, _ = _COMPACT.unpack_from(head)
        length = (64 if form & 1 else 32) + (12 + (xattrs - 1) * 4 if xattrs else 0)
        return _Inode(
            layout=form >> 1 & 7, mode=mode, uid=uid, gid=gid, size=size, block=block, tail=at + length
        )

    def _data(self, inode: _Inode) -> bytes:
        """All of an inode's data, which must not be compressed (folders and links never are)."""
        if inode.size > _MOST:
            raise ValueError(f"a folder or link of {inode.size} bytes")
        if inode.layout == _FLAT_PLAIN:
            return self._read(inode.block << self._bits, inode.size)
        if inode.layout == _FLAT_INLINE:
            whole = inode.size >> self._bits << self._bits
            head = self._read(inode.block << self._bits, whole) if whole else b""
            return head + self._read(inode.tail, inode.size - whole)
        raise ValueError(f"a folder or link has data layout {inode.layout}")

    def _names(self, folder: _Inode) -> Iterator[tuple[str, int]]:
        data = self._data(folder)
        for start in range(0, len(data), 1 << self._bits):
            block = data[start : start + (1 << self._bits)]
            count = _DIRENT.unpack_from(block)[1] // _DIRENT.size
            found = [_DIRENT.unpack_from(block, index * _DIRENT.size)[:2] for index in range(count)]
            ends = [offset for _, offset in found[1:]] + [len(block)]
            for (nid, begin), end in zip(found, ends, strict=True):
                yield block[begin:end].rstrip(b"\0").decode(errors="replace"), nid

    def _read(self, at: int, count: int) -> bytes:
        self._image.seek(self._offset + at)
        return self._image.read(count)


def used_bytes(path: Path, offset: int) -> int:
    """Bytes of the file system that starts at `offset` of an image. Raises `BuildError` if it is none."""
    with path.open("rb") as image:
        return Erofs(image, offset, str(path)).used
