"""An image in the formats of hypervisors and of graphical flashers."""

from __future__ import annotations

import lzma
import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import log, proc
from k3img.errors import FlashError, ProgramError, UsageError
from k3img.tools import qemu_img

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k3img.image.released import ReleasedImage


class Kind(StrEnum):
    """What an image can be exported as."""

    RAW = "raw"
    RAW_ZST = "raw.zst"
    RAW_XZ = "raw.xz"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VDI = "vdi"


def kind_of(target: Path) -> Kind:
    """What a file's name says that it is. Raises `UsageError` when it says nothing."""
    found = next((kind for kind in Kind if target.name.endswith(f".{kind}")), None)
    if found is None:
        raise UsageError(
            f"{target.name} does not say which format it is", hint=f"Add --format, one of {', '.join(Kind)}."
        )
    return found


def export(
    image: ReleasedImage, target: Path, kind: Kind, *, size: int, program: Callable[[], Sequence[str]]
) -> None:
    """Write the image to a file, which appears when it is whole. `program` gives qemu-img's words.

    A hypervisor's disk has `size` bytes: the node's data lie behind the image.

    Raises `FlashError` when that fails; then nothing of the file is left.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        with log.step(f"Exporting {image.name} as {kind}"):
            match kind:
                case Kind.RAW_XZ:
                    pack(image.raw, part)
                case Kind.RAW_ZST:
                    shutil.copyfile(packed(image), part)
                case Kind.RAW:
                    copy(image.raw, part)
                case _:
                    convert(image, part, kind, size, program)
            part.replace(target)
    except ProgramError as error:
        raise FlashError(f"{target} cannot be written", details=error.details) from error
    except OSError as error:
        raise FlashError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def convert(
    image: ReleasedImage, target: Path, kind: Kind, size: int, program: Callable[[], Sequence[str]]
) -> None:
    """A disk of a hypervisor. Not every format can grow later, so it is made of an overlay of that size."""
    with tempfile.TemporaryDirectory(prefix="k3img-", dir="/var/tmp") as folder:
        overlay = Path(folder, "disk.qcow2")
        qemu_img.create_overlay(program(), image.raw, overlay, size=size)
        qemu_img.convert(program(), overlay, target, str(kind))


def copy(raw: Path, target: Path) -> None:
    """A copy with the holes that the image has."""
    proc.run(["cp", "--sparse=always", raw, target])


def packed(image: ReleasedImage) -> Path:
    """The compressed image that the build left. Raises `FlashError` when the profile does not make one."""
    file = image.raw.with_name(f"{image.raw.name}.zst")
    if not file.exists():
        raise FlashError(f"there is no {file}", hint="Add raw.zst to image.formats, and build.")
    return file


def pack(raw: Path, target: Path) -> None:
    """Most of an image is packed or zero already, so a higher level only takes longer."""
    with (
        raw.open("rb") as source,
        lzma.open(target, "wb", preset=1) as sink,
        log.progress("xz", raw.stat().st_size) as advance,
    ):
        while block := source.read(1 << 20):
            sink.write(block)
            advance(len(block))
