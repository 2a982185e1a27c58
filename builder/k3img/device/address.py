"""For a node without a default route: k3s is told its address, and services get a route of their own.

k3s looks for its address at the default route and stops without one. And a connection to a service's
address is refused by the kernel before the service's rules see it, unless some route covers it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from k3img.device import files, links

if TYPE_CHECKING:
    from k3img.device.links import Address
    from k3img.device.place import Place
    from k3img.device.system import System

FILE = "k3s/config.yaml.d/30-address.yaml"
SERVICES = "10.43.0.0/16"
"""k3s' default service-cidr."""


def apply(place: Place, system: System) -> Address | None:
    """Write the node's address for k3s, or remove it when there is a default route.

    Returns the address that was written. Raises `LookupError` when there is none yet.
    """
    if links.default_route(place) is not None:
        files.remove(place.rancher / FILE)
        return None
    found = links.addresses(place, system)
    if not found:
        raise LookupError("no card has an IPv4 address")
    chosen = found[0]
    if '"node-ip"' not in (files.read_text(place.rancher / "k3s/config.yaml.d/20-node.yaml") or ""):
        text = f'# no default route: written by k3img\nnode-ip: "{chosen.ip}"\n'
        files.write(place.rancher / FILE, text, mode=0o600)
    route_services(place, system, chosen)
    return chosen


def route_services(place: Place, system: System, chosen: Address) -> None:
    """Let connections to services leave towards the card; kube-proxy's rules then redirect them."""
    for cidr in _service_networks(place):
        # The metric is high: any other route wins.
        argv = ["ip", "route", "replace", cidr, "dev", chosen.link, "src", chosen.ip, "metric", "10000"]
        system.run(argv, timeout=20)


def _service_networks(place: Place) -> list[str]:
    """The IPv4 service networks of the configuration, or k3s' default."""
    networks: list[str] = []
    for path in sorted((place.rancher / "k3s/config.yaml.d").glob("*.yaml")):
        for line in (files.read_text(path) or "").splitlines():
            if re.match(r"\s*[\"']?service-cidr\b", line):
                networks = re.findall(r"\d+\.\d+\.\d+\.\d+/\d+", line) or networks
    return networks or [SERVICES]
