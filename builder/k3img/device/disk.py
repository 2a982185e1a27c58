"""Which disk booted, and where its seed partition is. Never by a label alone: every medium written from
one image carries the same labels and identifiers.

systemd-boot leaves the PARTUUID of the ESP it came from in an EFI variable. The kernel's list of disks is
searched for it; two disks that carry it are two copies of one medium, and only the one that holds the
running root can be ours.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.device import gpt
from k3img.node.medium import SEED_LABEL, SEEDED_BIT

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.device.place import Place

LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""Vendor of the boot loader interface's EFI variables (systemd.io/BOOT_LOADER_INTERFACE)."""

_NO_DISKS = ("loop", "ram", "zram", "dm-", "sr", "fd", "md", "nbd")


@dataclass(frozen=True, kw_only=True)
class Medium:
    """What was found out about the disk that booted.

    `disk` and `seed` are device nodes; `root` is the PARTUUID of the running root. `twins` are all disks
    with the booted ESP's PARTUUID, when there are several. `seeded` is the mark in the partition table.
    """

    disk: Path | None = None
    seed: Path | None = None
    seeded: bool = False
    root: str | None = None
    sector: int = 512
    twins: tuple[Path, ...] = ()


def efi_text(place: Place, name: str) -> str | None:
    """A variable of the boot loader interface, as text; None when it is not set (or this is no UEFI)."""
    path = place.sys / f"firmware/efi/efivars/{name}-{LOADER_GUID}"
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    # Four bytes of attributes, then UTF-16 with a trailing zero.
    return raw[4:].decode("utf-16-le", errors="replace").rstrip("\0")


def find(place: Place) -> Medium:
    """The disk that booted, its seed partition and its mark."""
    disks = {name: table for name in _disks(place) if (table := _table(place, name)) is not None}
    booted = (efi_text(place, "LoaderDevicePartUUID") or "").lower()
    holders = [name for name, table in disks.items() if any(p.guid == booted for p in table.partitions)]
    own, number = _root(place)
    if own is None or own not in disks:
        own, number = (holders[0], None) if len(holders) == 1 else (None, None)
    elif holders and own not in holders:
        # The loader came from a disk that is not the root's: whatever this is, it is not our layout.
        holders = [*holders, own]
        own = None
    twins = tuple(place.root / "dev" / name for name in sorted(holders)) if len(holders) > 1 else ()
    if own is None:
        return Medium(twins=twins)
    table = disks[own]
    seed = next((p for p in table.partitions if p.name == SEED_LABEL), None)
    root = next((p for p in table.partitions if p.number == number and p.type in gpt.TYPE_ROOTS), None)
    return Medium(
        disk=place.root / "dev" / own,
        seed=_node(place, own, seed.number) if seed else None,
        seeded=bool(seed and seed.attributes & SEEDED_BIT),
        root=root.guid if root else None,
        sector=_sector(place, own),
        twins=twins,
    )


def _disks(place: Place) -> list[str]:
    block = place.sys / "block"
    if not block.is_dir():
        return []
    return sorted(p.name for p in block.iterdir() if not p.name.startswith(_NO_DISKS))


def _sector(place: Place, disk: str) -> int:
    try:
        return int((place.sys / f"block/{disk}/queue/logical_block_size").read_text())
    except (OSError, ValueError):
        return 512


def _table(place: Place, disk: str) -> gpt.Table | None:
    return gpt.read(place.root / "dev" / disk, _sector(place, disk))


def _node(place: Place, disk: str, number: int) -> Path | None:
    for part in (place.sys / "block" / disk).glob("*/partition"):
        if part.read_text().strip() == str(number):
            return place.root / "dev" / part.parent.name
    return None


def _root(place: Place) -> tuple[str | None, int | None]:
    """The disk that holds the running root, and the number of its partition."""
    device = (place.root / "").stat().st_dev
    link = place.sys / f"dev/block/{os.major(device)}:{os.minor(device)}"
    try:
        folder = link.resolve(strict=True)
        return folder.parent.name, int((folder / "partition").read_text())
    except (OSError, ValueError):
        return None, None
