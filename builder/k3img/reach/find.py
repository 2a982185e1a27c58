"""Where a cluster's servers may be: named by a person, by the profile, or answering by mDNS."""

from __future__ import annotations

import ipaddress
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img.cluster import found
from k3img.cluster.seed import members
from k3img.errors import UsageError
from k3img.node.names import PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from zeroconf import ServiceInfo

    from k3img.cluster.store import Kept
    from k3img.profile.model import Cluster

SERVICE = "_k3img._tcp.local."
NOBODY = "00:00:00:00:00:00"
"""The MAC of an address that did not answer."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """An address where an API may be, and how we know it.

    `node` is who should be there, '' for anybody; `host` the name by which that machine answers mDNS (two
    machines never have the same); `says` what it waits for, which nobody vouches for.
    """

    address: str
    port: int = PORT
    how: str
    node: str = ""
    host: str = ""
    says: str = ""


def named(text: str) -> Place:
    """What `--address` was given: an address or a name, with a port behind a colon if it is not 6443.

    Raises `UsageError` when it is neither.
    """
    host, colon, port = text.rpartition(":")
    bare = text.strip("[]")
    if _is_address(bare) or not colon:
        host, port = bare, str(PORT)
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no address", hint="Such as 192.168.7.31, or 10.0.0.1:16443.")
    return Place(address=host, port=int(port), how="--address")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def of_profile(cluster: Cluster) -> tuple[Place, ...]:
    """The endpoint, and the fixed addresses of servers."""
    places = [Place(address=cluster.endpoint, how="profile")] if cluster.endpoint else []
    places += [
        Place(address=address, how="profile", node=node)
        for node, address in found.fixed_addresses(cluster).items()
    ]
    return tuple(places)


def by_mdns(names: Mapping[str, str], *, seconds: float = 1.5) -> tuple[Place, ...]:
    """Machines of the local network that publish themselves as one of these nodes (host names, by node).

    Listens for so many seconds. A machine that took another name, because one of the same node was there
    before it, is found as well.
    """
    from zeroconf import ServiceBrowser, ServiceInfo, Zeroconf  # noqa: PLC0415 - slow

    heard: set[str] = set()
    places: list[Place] = []

    def hear(name: str, **_: object) -> None:
        heard.add(name)

    try:
        with closing(Zeroconf()) as network:
            browser = ServiceBrowser(network, SERVICE, handlers=[hear])
            time.sleep(seconds)
            browser.cancel()
            for name in sorted(heard):
                service = ServiceInfo(SERVICE, name)
                if service.request(network, seconds * 1000):
                    places += _published(service, names)
    except OSError:
        return ()  # a machine without any network
    return tuple(places)


def _published(service: ServiceInfo, names: Mapping[str, str]) -> Iterator[Place]:
    from zeroconf import IPVersion  # noqa: PLC0415 - slow

    said = {key: value or "" for key, value in service.decoded_properties.items()}
    node = said.get("node", "")
    if node not in names or names[node].rpartition("-")[2] != said.get("cluster"):
        return  # another cluster's
    host = (service.server or "").removesuffix(".local.")
    for address in _usable(service.ip_addresses_by_version(IPVersion.All)):
        yield Place(address=address, how="mDNS", node=node, host=host, says=_says(said))


def _says(said: Mapping[str, str]) -> str:
    """What the machine waits for, in its own words, fit for a terminal."""
    state, what = said.get("state", ""), said.get("waits-for", "")
    text = f"waits for {what}" if state == "waiting" else f"{state}: {what}"
    return "".join(c for c in text if c.isprintable()) if what else ""


def _usable(addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> Sequence[str]:
    """IPv4 first; an IPv6 address that counts on its link alone needs a scope that mDNS does not give."""
    order = sorted(addresses, key=lambda item: item.version)
    return [str(item) for item in order if not (item.version == 6 and item.is_link_local)]


def host_names(cluster: Cluster, kept: Kept) -> dict[str, str]:
    """The host name of each node, by node."""
    return {node.name: found.hostname(node, kept) for node in members(cluster)}


def hardware_address(address: str, table: Path = Path("/proc/net/arp")) -> str:
    """The MAC that answered for an IPv4 address a moment ago, '' when nobody knows (arp(7))."""
    try:
        rows = [row.split() for row in table.read_text(encoding="ascii").splitlines()]
    except OSError:
        return ""
    return next((row[3] for row in rows if row[:1] == [address] and row[3:4] != [NOBODY]), "")
