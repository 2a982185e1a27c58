"""Which nodes of a cluster are there, and waiting until all of them are Ready. Trusts the pinned CA alone."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from k3img.cluster.api import Api, ApiError, condition
from k3img.cluster.seed import members
from k3img.reach.find import hardware_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k3img.profile.model import Cluster
    from k3img.reach.find import Place

WHERE_TO_LOOK = """\
Power and the network's link; whether DHCP gave an address; the console, or status.txt on the K3IMG partition.
Where multicast does not pass (another subnet, isolated Wi-Fi, a VPN): --address IP."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One node as it is now. `says` is what it waits for, or the version that runs."""

    name: str
    place: Place | None = None
    api: bool = False
    ready: bool = False
    says: str = "not found yet"

    def __str__(self) -> str:
        """A line for people."""
        where = f"{self.place.address} ({self.place.how})" if self.place else ""
        api = "API ready" if self.api else ""
        words = (f"{self.name:16}", f"{where:28}", f"{api:10}", "node Ready" if self.ready else "", self.says)
        return "  ".join(word for word in words if word).rstrip()


@dataclass(frozen=True, kw_only=True)
class Look:
    """All nodes, and the first place where the cluster's API answered as it should."""

    nodes: tuple[Seen, ...]
    api: Place | None

    @property
    def complete(self) -> bool:
        """Whether every node is Ready."""
        return all(node.ready for node in self.nodes)


def look(cluster: Cluster, kubeconfig: str, places: Iterable[Place]) -> Look:
    """Ask every place once."""
    tried = tuple(places)
    nodes: dict[str, Any] = {}
    answers: dict[Place, str] = {}
    first: Place | None = None
    for place in tried:
        listed, answers[place] = _ask(kubeconfig, place)
        if listed is not None:
            first = first or place
            nodes = nodes or {item["metadata"]["name"]: item for item in listed}
    seen = tuple(_seen(node.name, nodes, tried, answers, first) for node in members(cluster))
    return Look(nodes=seen, api=first)


def _ask(kubeconfig: str, place: Place) -> tuple[Sequence[Mapping[str, Any]] | None, str]:
    """The nodes that an API lists, or None and why not."""
    api = Api(kubeconfig, place.port, address=place.address, timeout=5)
    try:
        ready = api.request("GET", "/readyz")
        if not ready.ok:
            return None, f"its API is starting ({ready.status})"
        return api.get("/api/v1/nodes")["items"], ""
    except ApiError as error:
        if "CERTIFICATE_VERIFY_FAILED" in error.brief:
            return None, "another cluster answers there: its certificate is not of this CA"
        return None, "its API does not answer yet"
    finally:
        api.close()


def _seen(
    name: str,
    nodes: Mapping[str, Mapping[str, Any]],
    places: Sequence[Place],
    answers: Mapping[Place, str],
    api: Place | None,
) -> Seen:
    own = [place for place in places if place.node == name]
    answering = [place for place in own if not answers[place]]
    place = next(iter(answering or own), None)
    seen = Seen(name=name, place=place, api=bool(answering))
    if twins := _twins(own):
        return replace(seen, says=twins)
    node = nodes.get(name)
    own_words = next((item.says for item in own if item.says), "")
    if node is None and own_words:
        return replace(seen, says=own_words)
    if node is None:
        known = [answers[item] for item in own or places if answers[item]]
        if api is not None:
            there = ": its screen and status.txt say what it waits for" if place else ""
            return replace(seen, says=f"has not joined yet{there}")
        return replace(seen, says=known[0] if known else seen.says)
    if seen.place is None and len(nodes) == 1:
        seen = replace(seen, place=api, api=api is not None)
    version = str(node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""))
    if condition(node, "Ready") == "True":
        return replace(seen, ready=True, says=version)
    conditions = node.get("status", {}).get("conditions") or ()
    why = next((str(item.get("message", "")) for item in conditions if item.get("type") == "Ready"), "")
    return replace(seen, says=f"not Ready: {own_words or why or 'it has not said anything yet'}")


def _twins(places: Sequence[Place]) -> str:
    """Several machines with one node's seed, each with what is printed on its box; '' for a single one."""
    each = {place.host: place.address for place in reversed(places) if place.host}
    if len(each) < 2:
        return ""
    named = " and ".join(
        f"{address} ({hardware_address(address) or 'MAC unknown'})" for address in each.values()
    )
    return f"several machines are this node: {named}. One of them needs a node of its own: flash it again"


def wait(
    again: Callable[[], Look], tell: Callable[[str], None], *, timeout: float, every: float = 3
) -> tuple[Look, float]:
    """Look until all are Ready or the time is over; tell each change. Returns the last look, and how long."""
    began = time.monotonic()
    known: dict[str, str] = {}
    while True:
        now = again()
        for node in now.nodes:
            if known.get(node.name) != (line := str(node)):
                tell(line)
                known[node.name] = line
        spent = time.monotonic() - began
        if now.complete or spent > timeout:
            return now, spent
        with suppress(InterruptedError):
            time.sleep(every)
