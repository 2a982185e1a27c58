"""Parts of ci/full: media that `k3img flash` and other tools write, exported files, and media that fail."""

from __future__ import annotations

import os
import shlex
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ci import raw_image
from ci.steps import Context, do, empty, ends, expect, need, say

from k3img.image import gpt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


UNPACK = {".xz": ("xzcat", "xz-utils"), ".zst": ("zstdcat", "zstd")}
"""What unpacks a file: program and package."""


def flash(ctx: Context) -> None:
    """A medium full of random bytes, written by `k3img flash`, used, and written again by bmaptool."""
    need("bmaptool", "bmap-tools")
    empty(ctx.work)
    medium = ctx.work / "medium"
    raw_image.used(medium)
    with loop(medium) as device:
        write(ctx, device, "--force")
    first = raw_image.boot(ctx, medium)
    with loop(medium) as device:
        do("bmaptool", "copy", raw(ctx), device)
    second = raw_image.boot(ctx, medium)
    expect(first != second, f"{first} is still there after the medium was written again")


def two_media(ctx: Context) -> None:
    """Two media of one build in one machine are two nodes; two plain copies stop, and both are named."""
    empty(ctx.work)
    one, two = ctx.work / "one", ctx.work / "two"
    for medium in (one, two):
        raw_image.used(medium)
        write(ctx, medium)
    first = raw_image.boot(ctx, one, two)
    second = raw_image.boot(ctx, two, one)
    expect(first != second, f"both media became {first}")
    again = raw_image.boot(ctx, one, two)
    expect(first == again, f"the first medium was {first} and is {again}")
    for medium in (one, two):
        raw_image.write(packed(ctx), medium)
    with raw_image.powered_on(ctx, one, two) as (qemu, _):
        text = raw_image.wait_for(qemu, ctx.work / "console.log", "carry the same image")
        expect("/dev/vda" in text and "/dev/vdb" in text, "not both disks are named")
        time.sleep(60)
        text = (ctx.work / "console.log").read_text(errors="replace")
        expect("Ready since" not in text, "it became a node all the same")


def bad_media(ctx: Context) -> None:
    """What must not be written, and what fails on the way: status 6, the reason, and nothing that boots."""
    empty(ctx.work)
    medium = ctx.work / "medium"
    raw_image.used(medium)
    with loop(medium) as device:
        refused(ctx, "is not removable", device)
        do("mkfs.ext4", "-q", "-F", device)
        with mounted(device, ctx.work / "mnt"):
            refused(ctx, "is in use", device, "--force")
    medium.write_bytes(bytes(1 << 20))
    refused(ctx, "is too small", medium)
    # A file system that is smaller than the image: of a file, then of a disk whose sectors fail.
    with without_room(ctx) as full:
        refused(ctx, "No space left on device", full)
        no_table(full)
    with without_room(ctx) as full:
        with loop(full) as device:
            refused(ctx, "cannot be written or read", device, "--force")
        no_table(full)
    # An image that changed on the disk since it was built.
    folder = ctx.work / "damaged"
    do("cp", "-r", "--sparse=always", ctx.image, folder)
    image = next(folder.glob("*.raw"))
    usr = gpt.usr(gpt.read(image))[0]
    with image.open("r+b") as file:
        file.seek(usr.start + (50 << 20))
        file.write(b"damaged")
    raw_image.used(medium)
    refused(ctx, "is damaged at bytes", medium, image=folder)
    no_table(medium)


def exports(ctx: Context) -> None:
    """Every format: disks of hypervisors boot, the others hold the image byte for byte."""
    empty(ctx.work)
    image = raw(ctx)
    wanted = sha256(image)
    for kind in ("raw", "raw.zst", "raw.xz"):
        file = ctx.work / f"x86.{kind}"
        do("k3img", "export", "--profile", "x86", "--out", ctx.image, "-o", file)
        expect(sha256(file) == wanted, f"{file.name} does not hold the image")
        say(f"{file.name} holds the image byte for byte")
        file.unlink()
    for kind in ("qcow2", "vmdk", "vdi"):
        file = ctx.work / f"x86.{kind}"
        do("k3img", "export", "--profile", "x86", "--out", ctx.image, "-o", file)
        with raw_image.powered_on(ctx, file, form=kind) as (qemu, _):
            raw_image.wait_until_ready(qemu, ctx.work / "console.log")
        file.unlink()


def write(ctx: Context, target: str | Path, *more: str) -> str:
    """Flash the image; returns what that says."""
    return do("k3img", "flash", "--profile", "x86", "--out", ctx.image, "--yes", "--unseeded", *more, target)


def refused(ctx: Context, why: str, target: str | Path, *more: str, image: Path | None = None) -> None:
    """Flash something that must fail."""
    out = image or ctx.image
    said = ends(6, "k3img", "flash", "--profile", "x86", "--out", out, "--yes", "--unseeded", *more, target)
    expect(why in said, f"it does not say {why!r}")
    expect("Traceback" not in said, "a traceback")


def no_table(medium: Path) -> None:
    """Whatever was on the medium, nothing boots from it."""
    size = medium.stat().st_size
    with medium.open("rb") as file:
        expect(not any(file.read(34 * 512)), f"{medium} begins with something")
        file.seek(size - 33 * 512)
        expect(not any(file.read()), f"{medium} ends with something")


def packed(ctx: Context) -> Path:
    """The compressed image."""
    return next(ctx.image.glob("*.raw.zst"))


def raw(ctx: Context) -> Path:
    """The image that was built."""
    return next(ctx.image.glob("*.raw"))


@contextmanager
def loop(medium: Path) -> Iterator[str]:
    """A loop device of a file, as a disk."""
    device = do("losetup", "--find", "--show", "--partscan", medium).strip()
    try:
        yield device
    finally:
        do("losetup", "--detach", device)


@contextmanager
def without_room(ctx: Context) -> Iterator[Path]:
    """A file as large as a medium, on a file system of 100 MiB."""
    with mounted("tmpfs", ctx.work / "mnt", "-t", "tmpfs", "-o", "size=100M") as folder:
        medium = folder / "medium"
        medium.touch()
        os.truncate(medium, raw_image.MEDIUM)
        yield medium


@contextmanager
def mounted(source: str, place: Path, *how: str) -> Iterator[Path]:
    """Something mounted at a folder, which is made."""
    place.mkdir(exist_ok=True)
    do("mount", *how, source, place)
    try:
        yield place
    finally:
        do("umount", place)


def sha256(file: Path) -> str:
    """Of what is in a file, unpacked by the program that everybody has for it."""
    cat, package = UNPACK.get(file.suffix, ("cat", "coreutils"))
    need(cat, package)
    return do("bash", "-c", f"set -o pipefail; {cat} {shlex.quote(str(file))} | sha256sum").split()[0]
