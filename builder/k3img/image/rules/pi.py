"""Rules about what a Raspberry Pi starts before systemd-boot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.image.rules.model import disk_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened

PI_KEYS = {"arm_64bit", "kernel", "enable_uart", "uart_2ndstage", "upstream_kernel", "device_tree"}
"""Keys of config.txt that our images use; dtoverlay is none: the overlays are not on the ESP."""

DEVICE_TREE = "bcm2711-rpi-4-b.dtb"
PI_FILES = ("start4.elf", "fixup4.dat", "config.txt", "u-boot.bin", DEVICE_TREE)

FDT = 0xD00DFEED
"""A device tree's first four bytes, big endian (Devicetree Specification, 5.2)."""
BOARD = b"raspberrypi,4-model-b\0brcm,bcm2711\0"


def pi_files(image: Opened) -> Iterator[str]:
    """All that a Raspberry Pi starts, before and with U-Boot."""
    if image.is_pi:
        yield from (f"the ESP has no {name}" for name in PI_FILES if not (image.esp / name).is_file())


def pi_config(image: Opened) -> Iterator[str]:
    """config.txt as start4.elf reads it."""
    path = image.esp / "config.txt"
    if not path.is_file():
        return
    data = path.read_bytes()
    if b"\r" in data:
        yield "config.txt: lines end in CRLF"
    if not data.endswith(b"\n"):
        yield "config.txt: the last line has no end"
    for number, line in enumerate(data.decode("ascii", errors="replace").splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if not equals or key not in PI_KEYS or value != value.strip():
            yield f"config.txt:{number}: {line!r} is nothing that our images use"
        elif key in ("kernel", "device_tree") and not (image.esp / value).is_file():
            yield f"config.txt:{number}: there is no {value} on the ESP"


def pi_console(image: Opened) -> Iterator[str]:
    """No console= on a Pi."""
    for uki in image.ukis if image.is_pi else ():
        if uki.option("console"):
            yield f"{uki.name}: the command line has console={uki.option('console')}"


def pi_device_tree(image: Opened) -> Iterator[str]:
    """The device tree that U-Boot hands to the kernel is whole, and a Pi 4's."""
    path = image.esp / DEVICE_TREE
    if not path.is_file():
        return
    data = path.read_bytes()
    magic, size = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4))
    if magic != FDT or size != len(data):
        yield f"{DEVICE_TREE} is no device tree of its {len(data)} bytes"
    elif BOARD not in data:
        yield f"{DEVICE_TREE} is not for a Raspberry Pi 4"


RULES = (
    disk_rule("pi-files", pi_files, "A Pi without one of them stays dark, or blinks seven times."),
    disk_rule(
        "pi-config",
        pi_config,
        "CRLF, or a key with a space, is silently ignored: the Pi then starts in 32-bit mode.",
    ),
    disk_rule(
        "pi-console",
        pi_console,
        "A Pi's ttyAMA0 is its Bluetooth: a console there is lost, and services wait for it.",
    ),
    disk_rule(
        "pi-device-tree",
        pi_device_tree,
        "A device tree of another board, or half of one: the Pi stays dark behind U-Boot.",
    ),
)
