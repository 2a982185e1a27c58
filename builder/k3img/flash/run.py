"""Flashing, as a contents page: from a finished image to a medium that boots."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.errors import FlashError
from k3img.flash import device, personalise, write
from k3img.image import blockmap, gpt
from k3img.log import step
from k3img.node.medium import SEEDED_BIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.flash.device import Medium
    from k3img.flash.personalise import Argv
    from k3img.image.blockmap import BlockMap
    from k3img.image.released import ReleasedImage


@dataclass(frozen=True, kw_only=True)
class Flashed:
    """What was written: bytes of the image that were, of how many, in how many seconds."""

    mapped: int
    size: int
    seconds: float


def flash(image: ReleasedImage, medium: Medium, *, content: Mapping[str, bytes], argv: Argv) -> Flashed:
    """Write an image to a medium that `check` found good, and read it back.

    `content` are the files of a node's seed by path; empty leaves the medium unseeded.
    """
    began = time.monotonic()
    found = blockmap.read(bmap(image))
    partitions = gpt.read(image.raw)
    job = plan(image, medium, found, partitions, content, argv)
    with step(f"Writing {image.name} to {medium.path}"):
        write.write(job, medium.path, medium.size)
    return Flashed(mapped=job.size, size=found.size, seconds=time.monotonic() - began)


def bmap(image: ReleasedImage) -> Path:
    """The image's block map."""
    return image.raw.with_name(f"{image.raw.name}.bmap")


def check(image: ReleasedImage, medium: Medium, *, force: bool) -> None:
    """Raise `FlashError` when a medium must not be written, or has no room for this image."""
    partitions = gpt.read(image.raw)
    data, tree = gpt.usr(partitions)
    end = max(part.start + part.size for part in partitions)
    slot = data.size + tree.size
    needed = end + slot + device.DATA + write.EDGE
    parts = f"the image {end / 1e9:.1f} GB, its second slot {slot / 1e9:.1f}, data {device.DATA / 1e9:.1f}"
    device.check(medium, needed, parts=parts, force=force)


def plan(
    image: ReleasedImage,
    medium: Medium,
    found: BlockMap,
    partitions: tuple[gpt.Partition, ...],
    content: Mapping[str, bytes],
    argv: Argv,
) -> write.Job:
    """Everything that is written. Each medium gets its own ids, else two of them in one machine are one."""
    if found.size != image.raw.stat().st_size:
        raise FlashError(f"{bmap(image)} is of another image", hint="Build the image again.")
    esp, seed = (next(part for part in partitions if part.kind == kind) for kind in ("esp", "seed"))
    with image.raw.open("rb") as file:
        head = file.read(blockmap.TABLE)
        file.seek(seed.start)
        empty = file.read(seed.size)
    instead = {seed.start: personalise.fat(empty, content, argv)} if content else {}
    first, last = gpt.moved(
        head,
        medium.size,
        disk=uuid.uuid4(),
        ids={esp.number: uuid.uuid4(), seed.number: uuid.uuid4()},
        attributes={seed.number: SEEDED_BIT} if content else {},
    )
    ranges = write.between_tables(found.ranges, partitions)
    return write.Job(image=image.raw, ranges=ranges, instead=instead, head=first, tail=last)
