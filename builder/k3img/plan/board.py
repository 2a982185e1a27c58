"""Boards that UEFI does not boot by itself: which files of which packages lie on their ESP.

The Raspberry Pi 4 (facts: rpi): its EEPROM starts start4.elf, that starts U-Boot, and U-Boot is an UEFI that
starts systemd-boot. The device trees are the kernel's own: those of the Pi's firmware switch the memory
cgroup off, without which k3s does not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.plan.model import BootFirmware, BootPackage
from k3img.profile.boards import Board

if TYPE_CHECKING:
    from k3img.profile.model import Profile

PI_CONFIG = """\
# Read by start4.elf. LF only, no spaces around =.
arm_64bit=1
kernel=u-boot.bin
enable_uart=1
uart_2ndstage=1
upstream_kernel=1
"""

PI_FILES = (
    ("raspi-firmware", "usr/lib/raspi-firmware/start4.elf", ""),
    ("raspi-firmware", "usr/lib/raspi-firmware/fixup4.dat", ""),
    ("u-boot-rpi", "usr/lib/u-boot/rpi_arm64/u-boot.bin", ""),
)

PI_DEVICE_TREES = tuple(f"broadcom/bcm2711-rpi-{name}.dtb" for name in ("4-b", "400", "cm4-io"))


def firmware(profile: Profile) -> tuple[BootFirmware, ...]:
    """What goes onto the ESP besides systemd-boot and the UKI; nothing on a machine with UEFI."""
    target = profile.target
    if target.board is not Board.RPI4:
        return ()
    return (
        BootFirmware(
            packages=tuple(
                BootPackage(name=name, at_least=package.at_least, suites=package.suites)
                for name, package in sorted(target.boot_packages.items())
            ),
            files=PI_FILES,
            device_trees=PI_DEVICE_TREES,
            texts=(("config.txt", PI_CONFIG),),
            mirror=profile.os.mirror,
            reason="target.board: rpi4 starts start4.elf, then U-Boot, then systemd-boot",
        ),
    )
