"""networkd's files for a node. What no node.yaml says is left to the image's own file: DHCP on every card.

The image's file is `80-k3img-ether.network`; ours sort before it. Cards are matched as `Type=ether` without
a kind, so that the bridges and veth pairs of pods are never touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.node.model import Network

PREFIX = "60-k3img-"

# A re-flashed node must get the lease it had: the MAC identifies it, not an id made on first boot.
_DHCP = """
[DHCPv4]
ClientIdentifier=mac
UseHostname=no
{v4}
[DHCPv6]
DUIDType=link-layer
UseHostname=no
{v6}"""

_ANY_CARD = "Type=ether\nKind=!*"


def render(net: Network) -> Mapping[str, str]:
    """The files by name; empty when the image's own file says all."""
    found: dict[str, str] = {}
    carrier = _ANY_CARD
    if net.bond:
        found[f"{PREFIX}bond.netdev"] = (
            "[NetDev]\nName=bond0\nKind=bond\n\n[Bond]\nMode=active-backup\nMIIMonitorSec=100ms\n"
        )
        for index, card in enumerate(net.bond):
            match = f"PermanentMACAddress={card}" if ":" in card else f"Name={card}"
            found[f"{PREFIX}bond-{index}.network"] = (
                f"[Match]\n{_ANY_CARD}\n{match}\n\n[Network]\nBond=bond0\n"
            )
        carrier = "Name=bond0"
    elif net.mac:
        carrier = f"{_ANY_CARD}\nMACAddress={net.mac}"
    if net.vlan:
        name = f"vlan{net.vlan}"
        found[f"{PREFIX}vlan.netdev"] = f"[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={net.vlan}\n"
        found[f"{PREFIX}node.network"] = (
            f"[Match]\n{carrier}\n\n[Network]\nVLAN={name}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        )
        found[f"{PREFIX}vlan.network"] = f"[Match]\nName={name}\n\n{_addressing(net)}"
    elif net.bond or net.mac or net.address != "dhcp" or net.dns or net.ntp:
        found[f"{PREFIX}node.network"] = f"[Match]\n{carrier}\n\n{_addressing(net)}"
    if net.bond or net.mac:
        # The card was named on purpose: another one must not bring a second default route.
        found[f"{PREFIX}others.network"] = f"[Match]\n{_ANY_CARD}\n\n[Link]\nUnmanaged=yes\n"
    return found


def _addressing(net: Network) -> str:
    lines = ["[Link]", "RequiredFamilyForOnline=ipv4", "", "[Network]"]
    if net.address == "dhcp":
        lines.append("DHCP=yes")
    else:
        lines += ["DHCP=no", f"Address={net.address}"]
        lines += [f"Gateway={net.gateway}"] if net.gateway else []
    lines += [f"DNS={server}" for server in net.dns]
    lines += [f"NTP={server}" for server in net.ntp]
    lines += ["IPv6AcceptRA=yes", "LLMNR=no", "MulticastDNS=yes"]
    text = "\n".join(lines) + "\n"
    if net.address == "dhcp":
        other = ("UseDNS=no\n" if net.dns else "") + ("UseNTP=no\n" if net.ntp else "")
        text += _DHCP.format(v4=other, v6=other)
    return text


def apply(folder: Path, net: Network | None) -> bool:
    """Make the folder hold these files and none of our older ones; says whether anything changed."""
    wanted = render(net) if net is not None else {}
    changed = False
    if folder.is_dir():
        for path in folder.iterdir():
            if path.name.startswith(PREFIX) and path.name not in wanted:
                changed |= files.remove(path)
    for name, text in wanted.items():
        changed |= files.write(folder / name, text, durable=False)
    return changed
