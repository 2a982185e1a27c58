"""dm-verity's hash tree, computed again (kernel: Documentation/admin-guide/device-mapper/verity.rst).

`veritysetup verify` wants loop devices for files, and so root; this reads the image as it is.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import BinaryIO

from k3img.errors import BuildError

_SUPER = struct.Struct("<8sII16s32sIIQH6x256s")


@dataclass(frozen=True, kw_only=True)
class Verity:
    """A hash partition's superblock: block sizes in bytes, the number of data blocks, the salt."""

    algorithm: str
    data_block: int
    hash_block: int
    blocks: int
    salt: bytes


def superblock(image: BinaryIO, offset: int) -> Verity:
    """Read it. Raises `BuildError` when there is none at `offset`, or of another kind than we make."""
    image.seek(offset)
    block = image.read(512)
    if len(block) < 512:
        raise BuildError("the hash partition lies outside of the image")
    magic, version, kind, _, algorithm, data, hashes, blocks, length, salt = _SUPER.unpack_from(block)
    if magic != b"verity\0\0" or version != 1 or kind != 1:
        raise BuildError("the hash partition has no verity superblock of version 1")
    name = algorithm.rstrip(b"\0").decode(errors="replace")
    if name not in hashlib.algorithms_guaranteed or min(data, hashes) < 512:
        raise BuildError(f"the verity superblock asks for {name} in blocks of {data} and {hashes} bytes")
    return Verity(
        algorithm=name, data_block=data, hash_block=hashes, blocks=blocks, salt=salt[: min(length, 256)]
    )


def length(about: Verity) -> int:
    """Bytes of a hash partition that are used: the superblock's block and the tree."""
    per_block = about.hash_block // _width(about)
    blocks, level = 1, about.blocks
    while True:
        level = -(-level // per_block)
        blocks += level
        if level <= 1:
            return blocks * about.hash_block


def _width(about: Verity) -> int:
    """Bytes that a digest takes in the tree: a power of two; sha256's 32 are one already."""
    return 1 << (hashlib.new(about.algorithm).digest_size - 1).bit_length()


def root_hash(image: BinaryIO, data: int, about: Verity) -> str:
    """The root hash of the data that begins at byte `data`, hex."""

    def digest(block: bytes) -> bytes:
        return hashlib.new(about.algorithm, about.salt + block).digest()

    empty = bytes(about.data_block)
    of_empty = digest(empty)
    image.seek(data)
    level = []
    for _ in range(about.blocks):
        block = image.read(about.data_block)
        level.append(of_empty if block == empty else digest(block))
    width = _width(about)
    per_block = about.hash_block // width
    while True:
        packed = [
            b"".join(one.ljust(width, b"\0") for one in level[start : start + per_block]).ljust(
                about.hash_block, b"\0"
            )
            for start in range(0, len(level), per_block)
        ]
        level = [digest(block) for block in packed]
        if len(level) <= 1:
            return level[0].hex() if level else ""
