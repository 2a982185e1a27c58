"""From a released image to a machine: a disk over it that takes all writes, and what the machine gets."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from k3img import proc, scratch
from k3img.errors import ProgramError
from k3img.image import gpt
from k3img.profile.model import Arch
from k3img.tools import qemu_img
from k3img.tree import give_to_caller
from k3img.vm import channel, raspi
from k3img.vm.faults import MachineError
from k3img.vm.machine import Machine
from k3img.vm.raspi import PiBoot
from k3img.vm.spec import GIB, Accel, Bus, Disk, MachineSpec, Network, Sockets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from k3img.image.released import ReleasedImage
    from k3img.tools.toolbox import Toolbox

DISK = 8 * GIB
"""Size of the disk that the image finds itself on: it has to grow its root to it."""

QEMU = {Arch.X86_64: "qemu-system-x86_64", Arch.ARM64: "qemu-system-aarch64"}
SERIAL = {Arch.X86_64: "ttyS0", Arch.ARM64: "ttyAMA0"}

LOGS = ("console.log", "qemu.log")
"""What is kept of a machine."""

TESTS_SERIAL = "k3imgtest"
"""Serial of the read-only disk with the tests' container images: /dev/disk/by-id/virtio-k3imgtest."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a machine is made of, besides the image. `spare` are further empty disks, of 1 GiB each."""

    bus: Bus = Bus.VIRTIO_BLK
    network: Network = field(default_factory=Network)
    spare: tuple[Bus, ...] = ()
    memory: int = 4096
    cpus: int = 2
    watchdog: bool = False
    rtc: str | None = None
    pi: bool = False
    """QEMU's Raspberry Pi 4 in the place of all that: a card and a serial port, see `PI`."""


PI = Hardware(memory=raspi.MEMORY, cpus=raspi.CPUS, pi=True)


@contextmanager
def machine(
    image: ReleasedImage,
    toolbox: Toolbox,
    *,
    accel: Accel,
    hardware: Hardware | None = None,
    disk: Path | None = None,
    medium: Path | None = None,
    images: Path | None = None,
    credentials: Mapping[str, bytes] | None = None,
    folder: Path | None = None,
    label: str = "machine",
) -> Iterator[Machine]:
    """A machine that is still off, with `image` on its disk; at the end nothing of it is left.

    `disk` keeps what the machine writes (a qcow2 file, made when missing); without it that goes when the
    machine goes. `medium` is a disk that was written before (raw), in the place of both. `images` is an
    archive of container images, attached read-only. `folder` keeps console log and QEMU's messages after
    the end, as LABEL.console.log and LABEL.qemu.log.
    Raises `MachineError` when the disks cannot be made.
    """
    with scratch.folder() as private:
        made = hardware or Hardware()
        try:
            disks = _disks(image, toolbox, made, _first(disk, medium, private), private)
        except ProgramError as error:
            raise MachineError("the machine's disks cannot be made", details=error.details) from error
        if images is not None and not made.pi:
            disks = (*disks, Disk(path=images, format="raw", serial=TESTS_SERIAL, read_only=True))
        firmware = toolbox.firmware(image.arch.debian)
        spec = MachineSpec(
            name=image.profile,
            program=toolbox.argv(QEMU[image.arch]),
            data=toolbox.qemu_data(QEMU[image.arch]),
            arch=image.arch,
            accel=accel,
            memory=made.memory,
            cpus=made.cpus,
            firmware_code=firmware.code,
            sockets=Sockets(folder=private),
            disks=disks,
            network=made.network,
            credentials={**channel.credentials(), **(credentials or {})},
            kernel_extra=_kernel_extra(image.arch, accel),
            watchdog=made.watchdog,
            rtc=made.rtc,
            pi=_pi_boot(image, toolbox, private) if made.pi else None,
        )
        with Machine(spec, firmware) as ready:
            try:
                yield ready
            finally:
                ready.close()
                if folder is not None:
                    _keep(private, folder, label)


def _pi_boot(image: ReleasedImage, toolbox: Toolbox, private: Path) -> PiBoot:
    """U-Boot and the device tree from the image's own ESP, the latter fit for QEMU."""
    esp = next(part for part in gpt.read(image.raw) if part.kind == "esp")
    names = (raspi.U_BOOT, raspi.DEVICE_TREE)
    try:
        for name in names:
            source = f"{image.raw}@@{esp.start}"
            proc.run([*toolbox.argv("mcopy"), "-n", "-i", source, f"::{name}", private / name])
        for command in raspi.edits(toolbox.argv("fdtput"), private / raspi.DEVICE_TREE):
            proc.run(command)
    except ProgramError as error:
        raise MachineError("the image has no boot files for QEMU's Pi", details=error.details) from error
    u_boot, tree = (private / name for name in names)
    return PiBoot(u_boot=u_boot, device_tree=tree)


def _kernel_extra(arch: Arch, accel: Accel) -> str:
    """What is added to the image's kernel command line, from outside."""
    # The image's own console comes last on the screen; here the serial port is all there is.
    words = [f"console={SERIAL[arch]}", "systemd.show_status=yes"]
    if accel is Accel.TCG:
        # An emulated processor has no flaws to work around, and pays for it at each indirect jump.
        words.append("mitigations=off")
    return " ".join(words)


def _first(disk: Path | None, medium: Path | None, private: Path) -> Disk:
    """What the machine boots from: a written medium, or an overlay over the image, kept or not."""
    if medium is not None:
        return Disk(path=medium, format="raw")
    return Disk(path=disk or private / "disk.qcow2", durable=disk is not None)


def _disks(
    image: ReleasedImage, toolbox: Toolbox, hardware: Hardware, first: Disk, private: Path
) -> tuple[Disk, ...]:
    program = toolbox.argv("qemu-img")
    if not first.path.exists():
        size = raspi.CARD if hardware.pi else DISK
        qemu_img.create_overlay(program, image.raw, first.path, size=size)
        give_to_caller(first.path)
    disks = [replace(first, bus=hardware.bus)]
    for number, bus in enumerate(hardware.spare):
        path = private / f"spare{number}.raw"
        qemu_img.create_raw(program, path, size=GIB)
        disks.append(Disk(path=path, bus=bus, format="raw", serial=f"spare{number}"))
    return tuple(disks)


def forget(folder: Path) -> None:
    """Remove the logs that machines of an earlier run have left in a folder."""
    for path in folder.iterdir():
        if any(path.name.endswith(f".{name}") for name in LOGS):
            path.unlink()


def _keep(private: Path, folder: Path, label: str) -> None:
    """Save what explains a machine's end."""
    for name in LOGS:
        if (private / name).exists():
            kept = folder / f"{label}.{name}"
            shutil.copyfile(private / name, kept)
            give_to_caller(kept)
