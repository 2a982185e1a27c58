"""Where a cluster's servers may be: named by a person, by the profile, or answering by mDNS."""

from __future__ import annotations

import ipaddress
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.cluster import found
from k3img.cluster.seed import members
from k3img.errors import UsageError
from k3img.node.names import PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from k3img.cluster.store import Kept
    from k3img.profile.model import Cluster


@dataclass(frozen=True, kw_only=True)
class Place:
    """An address where an API may be, and how we know it. `node` is who should be there, '' for anybody."""

    address: str
    port: int = PORT
    how: str
    node: str = ""


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


def by_mdns(names: Mapping[str, str], *, seconds: float = 1) -> tuple[Place, ...]:
    """Ask the local network for host names (by node), and wait so long for each that does not answer."""
    from zeroconf import AddressResolver, IPVersion, Zeroconf  # type: ignore[attr-defined]  # noqa: PLC0415 - slow

    places: list[Place] = []
    try:
        with closing(Zeroconf()) as network:
            for node, name in names.items():
                resolver = AddressResolver(f"{name}.local.")
                if resolver.request(network, seconds * 1000):
                    found = resolver.ip_addresses_by_version(IPVersion.All)
                    places += [Place(address=str(item), how="mDNS", node=node) for item in _usable(found)]
    except OSError:
        return ()  # a machine without any network
    return tuple(places)


def _usable(addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> Sequence[str]:
    """IPv4 first; an IPv6 address that counts on its link alone needs a scope that mDNS does not give."""
    order = sorted(addresses, key=lambda item: item.version)
    return [str(item) for item in order if not (item.version == 6 and item.is_link_local)]


def host_names(cluster: Cluster, kept: Kept) -> dict[str, str]:
    """The host name of each node, by node."""
    return {node.name: found.hostname(node, kept) for node in members(cluster)}
