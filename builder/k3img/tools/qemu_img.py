"""qemu-img: the disks of virtual machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.proc import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def create_overlay(program: Sequence[str], image: Path, overlay: Path, *, size: int) -> None:
    """Make a qcow2 disk of `size` bytes that starts as `image` (raw) and never writes to it.

    `program` is qemu-img as the toolbox gives it.
    """
    run(
        [
            *program, "create", "-q",
            "-f", "qcow2",
            "-b", str(image.absolute()),
            "-F", "raw",
            str(overlay),
            str(size),
        ]
    )  # fmt: skip


def create_raw(program: Sequence[str], disk: Path, *, size: int) -> None:
    """Make an empty sparse disk of `size` bytes."""
    run([*program, "create", "-q", "-f", "raw", str(disk), str(size)])


def convert(program: Sequence[str], source: Path, target: Path, form: str) -> None:
    """Write a qcow2 disk as another format; holes stay holes. qcow2 is packed, which all readers know."""
    packed = ["-c"] if form == "qcow2" else []
    run([*program, "convert", "-f", "qcow2", "-O", form, *packed, str(source), str(target)])
