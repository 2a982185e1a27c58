"""Network cards and addresses, as the kernel shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.device import files

if TYPE_CHECKING:
    from k3img.device.place import Place
    from k3img.device.system import System


@dataclass(frozen=True, kw_only=True)
class Link:
    """A network card (or bond or VLAN of ours) and whether it has a carrier."""

    name: str
    carrier: bool


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IPv4 address of global scope and its interface."""

    link: str
    ip: str


def cards(place: Place) -> tuple[Link, ...]:
    """The machine's network cards. Pods' bridges and veth pairs have no device behind them."""
    folder = place.sys / "class/net"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(
        Link(name=name, carrier=files.read_text(folder / name / "carrier") == "1")
        for name in names
        if (folder / name / "device").exists() and files.read_text(folder / name / "type") == "1"
    )


def ours(place: Place, name: str) -> bool:
    """The interface carries the node's own traffic: a card, or a bond or VLAN that node.yaml made."""
    if name.startswith(("bond", "vlan")):
        return True
    return (place.sys / "class/net" / name / "device").exists()


def addresses(place: Place, system: System) -> tuple[Address, ...]:
    """The node's own IPv4 addresses, one for each interface."""
    folder = place.sys / "class/net"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return tuple(
        Address(link=name, ip=ip)
        for name in names
        if ours(place, name) and (ip := system.ipv4(name)) is not None
    )


def silent(place: Place, system: System, gateway: str) -> bool:
    """Nobody has answered for a gateway's address, as far as is known (arp(7)); asks again."""
    rows = [row.split() for row in (files.read_text(place.root / "proc/net/arp") or "").splitlines()[1:]]
    # Address, hardware type, flags: 0 for an address that nobody has answered for.
    flags = [int(row[2], 16) for row in rows if len(row) > 2 and row[0] == gateway]
    system.poke(gateway)
    return not any(flags)


def default_route(place: Place) -> str | None:
    """The interface of the default route with the lowest metric, or None."""
    lines = (files.read_text(place.root / "proc/net/route") or "").splitlines()[1:]
    # Iface Destination Gateway Flags RefCnt Use Metric Mask ...
    routes = [fields for line in lines if len(fields := line.split()) >= 8]
    found = sorted((int(f[6]), f[0]) for f in routes if f[1] == f[7] == "00000000")
    return found[0][1] if found else None
