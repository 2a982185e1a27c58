"""Which blocks of an image must be written to a medium, in bmaptool's format (bmap 2.0).

A block belongs to it when somebody may read it: both partition tables, all of the seed partition, of the
ESP what its FAT uses, /usr and its hashes in full, zero or not. Holes of the sparse file decide nothing:
on a card that was used before, a block of zeros that was not written is the old card's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from k3img.errors import BuildError
from k3img.image import erofs, fat, gpt, verity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BLOCK = 4096
TABLE = 34 * gpt.SECTOR
"""Bytes of the protective MBR and the first table; the second one, at the end, has one sector less."""

PROBED = 128 << 10
"""Bytes at a partition's end in which libblkid looks for a RAID's superblock, and may find an old one."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Blocks that lie side by side: first byte, bytes, and the sha256 of what is in them."""

    start: int
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class BlockMap:
    """All ranges of an image of `size` bytes, in order."""

    size: int
    ranges: tuple[Range, ...]


def make(raw: Path) -> BlockMap:
    """Read an image's partitions and file systems, and hash what is used. Raises `BuildError`."""
    size = raw.stat().st_size
    found = []
    with raw.open("rb") as file:
        head = [(0, TABLE)]
        tail = [(size - TABLE + gpt.SECTOR, TABLE - gpt.SECTOR)]
        # A medium gets tables of its own, so these two are ranges of their own.
        places = [place for used in (head, _used(raw), tail) for place in _blocks(used, size)]
        for start, length in places:
            file.seek(start)
            found.append(Range(start=start, size=length, sha256=_sha256(file, length)))
    return BlockMap(size=size, ranges=tuple(found))


def _used(raw: Path) -> Iterator[tuple[int, int]]:
    """First byte and length of everything in partitions that may be read; not in order."""
    partitions = gpt.read(raw)
    data, tree = gpt.usr(partitions)
    with raw.open("rb") as file:
        for part in partitions:
            yield part.start + part.size - PROBED, PROBED
            if part.kind == "esp":
                yield from fat.used(file, part.start, raw.name)
            elif part.kind == "seed":
                yield part.start, part.size
        about = verity.superblock(file, tree.start)
        yield data.start, max(erofs.used_bytes(raw, data.start), about.blocks * about.data_block)
        yield tree.start, verity.length(about)


def _blocks(used: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The same in whole blocks, in order, those that touch made one."""
    begin = end = -1
    for start, length in sorted(used):
        first, last = start // BLOCK * BLOCK, min(-(-(start + length) // BLOCK) * BLOCK, size)
        if first > end:
            if end > 0:
                yield begin, end - begin
            begin = first
        end = max(end, last)
    yield begin, end - begin


def _sha256(file: Any, length: int) -> str:
    digest = hashlib.sha256()
    while length:
        block = file.read(min(length, 1 << 20))
        if not block:
            raise BuildError(f"{file.name} ends in the middle of what it should hold")
        digest.update(block)
        length -= len(block)
    return digest.hexdigest()


_TEXT = """\
<?xml version="1.0" ?>
<!-- Blocks to write, for k3img flash and for bmaptool: bmaptool copy IMAGE DEVICE -->
<bmap version="2.0">
    <ImageSize> {size} </ImageSize>
    <BlockSize> {block} </BlockSize>
    <BlocksCount> {blocks} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {sum} </BmapFileChecksum>
    <BlockMap>
{ranges}
    </BlockMap>
</bmap>
"""

_NO_SUM = "0" * 64


def as_text(found: BlockMap) -> str:
    """The map as a file; its own sum is that of the text with zeros in the sum's place (bmap-tools)."""
    lines = []
    mapped = 0
    for item in found.ranges:
        first, last = item.start // BLOCK, (item.start + item.size - 1) // BLOCK
        mapped += last - first + 1
        numbers = f"{first}-{last}" if last > first else f"{first}"
        lines.append(f'        <Range chksum="{item.sha256}"> {numbers} </Range>')
    text = _TEXT.format(
        size=found.size,
        block=BLOCK,
        blocks=-(-found.size // BLOCK),
        mapped=mapped,
        sum=_NO_SUM,
        ranges="\n".join(lines),
    )
    return text.replace(_NO_SUM, hashlib.sha256(text.encode()).hexdigest(), 1)


def read(path: Path) -> BlockMap:
    """A map from its file. Raises `BuildError` when it is missing, damaged, or of another form than ours."""
    try:
        text = path.read_text(encoding="utf-8")
        root = ET.fromstring(text)
        total = (root.findtext("BmapFileChecksum") or "").strip()
        if hashlib.sha256(text.replace(total, _NO_SUM, 1).encode()).hexdigest() != total:
            raise ValueError("its checksum is wrong")
        size, block = (int(root.findtext(name) or "") for name in ("ImageSize", "BlockSize"))
        ranges = []
        for item in root.iterfind("BlockMap/Range"):
            first, _, last = (item.text or "").strip().partition("-")
            start = int(first) * block
            end = min((int(last or first) + 1) * block, size)
            ranges.append(Range(start=start, size=end - start, sha256=item.attrib["chksum"]))
    except (OSError, ValueError, KeyError, ET.ParseError) as error:
        raise BuildError(
            f"the block map {path} cannot be used: {error}", hint="Build the image again: it writes the map."
        ) from error
    return BlockMap(size=size, ranges=tuple(ranges))
