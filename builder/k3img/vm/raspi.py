"""QEMU's Raspberry Pi 4: a machine without firmware, SMBIOS, PCI or a network card, and its device tree.

QEMU plays the EEPROM and start4.elf: it loads U-Boot and the device tree that the image has on its ESP. Of
the hardware in that tree QEMU lacks some, so it gets a variant; each edit is for one thing that did not
boot without it (QEMU 10.0; facts: rpi, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MEMORY = 2048
"""MiB: what QEMU's machine has, neither more nor less."""

CPUS = 4

CARD = 4 << 30
"""Bytes of the card: a power of two, or QEMU refuses it; more takes minutes, as QEMU erases byte by byte."""

U_BOOT = "u-boot.bin"
DEVICE_TREE = "bcm2711-rpi-4-b.dtb"
"""The files of the ESP that QEMU loads."""

_ABSENT = (
    *("clock@7ef00000", "interrupt-controller@7ef00100", "hdmi@7ef00700", "hdmi@7ef05700"),
    *("i2c@7ef04500", "i2c@7ef09500", "avs-monitor@7d5d2000"),
)
_CARD = "/soc/mmc@7e300000"
"""QEMU plugs the card into the first SDHCI, which is WiFi's on a real Pi."""

EDITS: tuple[tuple[str, ...], ...] = (
    # Reading their registers is an external abort: QEMU has nothing there.
    *(("-t", "s", "{}", f"/soc/{node}", "status", "disabled") for node in _ABSENT),
    # Regulators on the firmware's GPIO expander, which QEMU's mailbox does not know.
    ("-d", "{}", "/emmc2bus/mmc@7e340000", "vmmc-supply", "vqmmc-supply"),
    ("-d", "{}", _CARD, "mmc-pwrseq", "non-removable"),
    ("-r", "{}", f"{_CARD}/wifi@1"),
    ("{}", _CARD, "broken-cd"),
    ("-t", "s", "{}", _CARD, "status", "okay"),
    # QEMU's watchdog knows no time: to start it is to reset the machine (hw/misc/bcm2835_powermgt.c).
    ("-t", "s", "{}", "/soc/watchdog@7e100000", "status", "disabled"),
    # Userspace on the mini UART locks a processor up; the other one is Bluetooth's on a real Pi.
    ("-t", "s", "{}", "/chosen", "stdout-path", "serial0:115200n8"),
    ("-r", "{}", "/soc/serial@7e201000/bluetooth"),
)
"""Arguments of fdtput, one call each; `{}` is the tree's file."""


@dataclass(frozen=True, kw_only=True)
class PiBoot:
    """What QEMU loads in the place of the Pi's own firmware."""

    u_boot: Path
    device_tree: Path


def edits(fdtput: Sequence[str], tree: Path) -> tuple[tuple[str, ...], ...]:
    """The commands that make a device tree fit for QEMU."""
    return tuple((*fdtput, *(word.format(tree) for word in words)) for words in EDITS)
