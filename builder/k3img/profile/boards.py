"""How machines boot, and the packages that the boot firmware of a board comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from k3img.profile import rules
from k3img.profile.kinds import Text
from k3img.profile.tables import ListOf, key


class Board(StrEnum):
    """How the machine boots."""

    UEFI = "uefi"
    RPI4 = "rpi4"


BOOT_PACKAGES = {Board.RPI4: ("raspi-firmware", "u-boot-rpi")}
"""What a board's boot firmware is made of; a board that is not here needs none."""


@dataclass(frozen=True, kw_only=True)
class BootPackage:
    """Where a package with boot firmware may be had, and the oldest version that boots the board."""

    at_least: str = field(
        metadata=key(Text(rule=rules.debian_version), "The oldest version that boots the board."),
    )
    suites: tuple[str, ...] = field(
        metadata=key(
            ListOf(item=Text(rule=rules.suite, pattern=rules.SUITE)), "Debian suites that may have it."
        ),
    )
