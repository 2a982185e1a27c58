"""Archives of others, taken apart without trusting them: where a zstd frame ends, and a tar's content.

Facts about zstd are from RFC 8878 section 3. Nothing here holds more than a block of an archive in memory.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, BinaryIO, cast

import zstandard

from k3img.errors import BuildError

if TYPE_CHECKING:
    from mmap import mmap
    from pathlib import Path

    from _typeshed import SupportsRead

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW = 1 << 27
"""The largest window that we decompress: 128 MiB, four times what k3s' releases use."""

_CHUNK = 1 << 20
_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte of 0x50 to 0x5f


def frame_end(data: bytes | mmap, start: int) -> int | None:
    """Where the zstd frame that begins at `start` ends, found by walking its blocks; None if there is none.

    A frame is only looked at, not decompressed: what comes back is a proposal that a hash must prove.
    """
    with memoryview(data) as view:  # released at once: an mmap with views cannot be closed
        return _walk(view, start)


def _walk(view: memoryview, start: int) -> int | None:
    if bytes(view[start : start + 4]) != MAGIC or start + 5 > len(view):
        return None
    descriptor = view[start + 4]
    single_segment = descriptor >> 5 & 1
    if descriptor & 0x08:  # the reserved bit
        return None
    content_size = (single_segment, 2, 4, 8)[descriptor >> 6]
    dictionary = (0, 1, 2, 4)[descriptor & 3]
    position = start + 5 + (1 - single_segment) + dictionary + content_size
    last = False
    while not last:
        if position + 3 > len(view):
            return None
        header = int.from_bytes(view[position : position + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if kind == 3 or size > 1 << 17:  # a reserved kind; no block is larger than 128 KiB
            return None
        position += 3 + (1 if kind == 1 else size)  # kind 1 is one byte, repeated `size` times
    position += 4 if descriptor & 0x04 else 0  # a checksum
    return position if position <= len(view) else None


def next_frame(data: bytes | mmap, position: int) -> int | None:
    """Where the frame that begins at `position` ends, be it zstd or skippable; None if none begins there."""
    head = data[position : position + 8]
    if len(head) == 8 and head[0] & 0xF0 == 0x50 and head[1:4] == _SKIPPABLE:
        end = position + 8 + int.from_bytes(head[4:], "little")
        return end if end <= len(data) else None
    return frame_end(data, position)


class Span:
    """The bytes from `start` to `end` of an open file, as a file that is read once."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        self._file = file
        self._left = end - start

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes; none at the end of the span."""
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data


@dataclass(frozen=True, kw_only=True)
class UnpackedFile:
    """A regular file that was written: its hash, size, and whether it may be executed."""

    sha256: str
    size: int
    executable: bool


@dataclass(kw_only=True)
class Unpacker:
    """Writes files, folders and links below an empty folder and nothing elsewhere, and remembers them.

    Refused, with a `BuildError`: absolute names, `..`, a name twice, anything below a link or a file,
    links that lead out, devices and pipes, and more than `limit` bytes. Owners are ours, modes 0o755 or
    0o644, times the epoch; so two unpackings of one archive are equal.
    """

    root: Path
    limit: int = 2 << 30
    files: dict[str, UnpackedFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    total: int = 0

    def add_folder(self, name: str) -> None:
        """Make a folder; one that exists already is fine."""
        name = self._checked(name, folder=True)
        if name and name not in self.folders:
            (self.root / name).mkdir(mode=0o755)
            self.folders.add(name)

    def add_file(self, name: str, content: SupportsRead[bytes], size: int, *, executable: bool) -> None:
        """Write a file of exactly `size` bytes read from `content`."""
        name = self._checked(name)
        self.total += size
        if self.total > self.limit:
            raise BuildError(f"the archive holds more than {self.limit >> 20} MiB: {name}")
        digest = hashlib.sha256()
        left = size
        with (self.root / name).open("xb") as out:
            while left and (data := content.read(min(left, _CHUNK))):
                out.write(data)
                digest.update(data)
                left -= len(data)
        if left:
            raise BuildError(f"the archive ends in the middle of {name}")
        (self.root / name).chmod(0o755 if executable else 0o644)
        self.files[name] = UnpackedFile(sha256=digest.hexdigest(), size=size, executable=executable)

    def add_link(self, name: str, target: str) -> None:
        """Make a symbolic link whose target must lie inside, whether or not it exists yet."""
        name = self._checked(name)
        leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not target or "\0" in target or target.startswith("/") or leads_to.split("/")[0] == "..":
            raise BuildError(f"the archive has a link that leads out of it: {name} -> {target}")
        (self.root / name).symlink_to(target)
        self.links[name] = target

    def add_hard_link(self, name: str, target: str) -> None:
        """Give a file of this archive a second name."""
        name, known = self._checked(name), self.files.get(_clean(target))
        if known is None:
            raise BuildError(f"the archive has a hard link to what is no file of it: {name} -> {target}")
        (self.root / name).hardlink_to(self.root / _clean(target))
        self.files[name] = known

    def finish(self) -> None:
        """Set every time to the epoch; the last thing to do, since writing changes the folders' times."""
        for name in (*self.files, *self.links, *sorted(self.folders, reverse=True), ""):
            os.utime(self.root / name, (0, 0), follow_symlinks=False)

    def _checked(self, name: str, *, folder: bool = False) -> str:
        clean = _clean(name)
        parts = clean.split("/")
        if name.startswith("/") or "\0" in name or ".." in parts or (not clean and not folder):
            raise BuildError(f"the archive has a name that leads out of it: {name!r}")
        if clean in self.files or clean in self.links or (clean in self.folders and not folder):
            raise BuildError(f"the archive has a name twice: {clean}")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above in self.files or above in self.links:
                raise BuildError(f"the archive puts {clean} below {above}, which is no folder")
            self.add_folder(above)
        return clean


def _clean(name: str) -> str:
    """`./bin//k3s/` as `bin/k3s`. `..` is left in, to be refused."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def unpack_tar_zst(file: BinaryIO, start: int, end: int, into: Unpacker) -> None:
    """Unpack the .tar.zst that lies in bytes `start` to `end` of a file.

    Raises `BuildError` for whatever `Unpacker` refuses, and for a stream that is damaged.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    source = cast("IO[bytes]", Span(file, start, end))  # zstandard calls read() alone
    try:
        with (
            decompressor.stream_reader(source, read_across_frames=True) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_CHUNK) as tar,
        ):
            for member in tar:
                _add(member, tar, into)
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        raise BuildError(f"the embedded archive is damaged: {error}") from error


def _add(member: tarfile.TarInfo, tar: tarfile.TarFile, into: Unpacker) -> None:
    if member.isdir():
        into.add_folder(member.name)
    elif member.issym():
        into.add_link(member.name, member.linkname)
    elif member.islnk():
        into.add_hard_link(member.name, member.linkname)
    elif member.isreg() and not member.issparse():
        content = tar.extractfile(member)
        if content is None:
            raise BuildError(f"the embedded archive is damaged: {member.name} cannot be read")
        with content:
            into.add_file(member.name, content, member.size, executable=bool(member.mode & 0o111))
    else:
        raise BuildError(f"the archive has something that is no file, folder or link: {member.name}")


def copy_tree(source: Path, into: Unpacker, *, below: str = "") -> None:
    """Copy a folder's content with the checks of `Unpacker`; symbolic links are copied, never followed."""
    for entry in sorted(os.scandir(source / below), key=lambda entry: entry.name):
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_symlink():
            into.add_link(name, str((source / name).readlink()))
        elif entry.is_dir():
            into.add_folder(name)
            copy_tree(source, into, below=name)
        elif entry.is_file():
            status = entry.stat(follow_symlinks=False)
            with (source / name).open("rb") as content:
                into.add_file(name, content, status.st_size, executable=bool(status.st_mode & 0o111))
        else:
            raise BuildError(f"the unpacked runtime has something that is no file, folder or link: {name}")
