"""The one thing that a node waits for, worked out from what can be seen. Read by people, and by rpi4's tests.

Order matters: the first thing that is missing explains all that come after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from k3img.device import discover, files, links, probe
from k3img.device import outcome as outcomes
from k3img.device.outcome import Go, Outcome
from k3img.node import names

if TYPE_CHECKING:
    from k3img.device.kube import Client
    from k3img.device.links import Address
    from k3img.device.place import Place
    from k3img.device.probe import NodeState
    from k3img.device.system import System

RESTARTS = 3
"""So often may k3s be restarted before that is worth saying."""


SILENT = 4
"""So many looks in a row without an answer: a gateway that is only slow has answered by then."""


class Mood(StrEnum):
    """A node's state in one word."""

    STARTING = "starting"
    WAITING = "waiting"
    STOPPED = "stopped"
    FAULT = "fault"
    READY = "ready"


@dataclass(frozen=True, kw_only=True)
class View:
    """What a person is told: the state, the one thing that it waits for, what to do, and the rest."""

    mood: Mood
    what: str = ""
    todo: str = ""
    addresses: tuple[Address, ...] = ()
    notes: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One look at the machine. `unit` is k3s' unit, asked for only now and then.

    `found_server` says that the search for a server is over, `search` is the last that it said. At so many
    looks in a row, `silent`, nobody answered for the gateway that node.yaml names.
    """

    outcome: Outcome | None
    found_server: bool = False
    search: discover.Report | None = None
    failed_first: bool = False
    cards: tuple[links.Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    node: NodeState | None = None
    unit: probe.Unit = field(default_factory=probe.Unit)
    last_words: str = ""
    gone_labels: tuple[str, ...] = ()
    silent: int = 0

    @property
    def runs(self) -> bool:
        """k3s has leave to run."""
        return self.outcome is not None and (self.outcome.go is Go.RUN or self.found_server)


def look(
    place: Place, system: System, client: Client | None, *, with_unit: bool, previous: Seen | None
) -> Seen:
    """Look at everything; k3s' unit is only asked for `with_unit` (it costs a program start)."""
    result = previous.outcome if previous and previous.outcome else outcomes.load(place)
    silent = 0
    if result is not None and result.gateway and links.silent(place, system, result.gateway):
        silent = (previous.silent if previous else 0) + 1
    if result is None or not outcomes.runs(place, result):
        return Seen(
            outcome=result,
            cards=links.cards(place),
            addresses=links.addresses(place, system),
            search=discover.report(place),
            silent=silent,
        )
    state = probe.node(client, result.node) if client is not None and place.api_access().exists() else None
    unit = previous.unit if previous else probe.Unit()
    words = previous.last_words if previous else ""
    if with_unit:
        name = names.unit(result.role)
        unit = probe.unit(system, name)
        words = _last_words(system, name) if unit.restarts > RESTARTS and state is None else ""
    return Seen(
        outcome=result,
        found_server=result.go is Go.JOIN,
        cards=links.cards(place),
        addresses=links.addresses(place, system),
        node=state,
        unit=unit,
        last_words=words,
        gone_labels=gone_labels(place),
        silent=silent,
    )


def gone_labels(place: Place) -> tuple[str, ...]:
    """Labels that node.yaml had once and has no more."""
    return tuple((files.read_text(place.state / "gone-labels") or "").split())


def _last_words(system: System, unit: str) -> str:
    """The last line of k3s' own that speaks of an error, or the last that says how it ended."""
    said = probe.journal(system, unit, lines=60)
    ours = [line for line in said if not line.startswith(("Failed to start", "Starting ", "Stopped "))]
    bad = [
        line for line in ours if any(word in line.lower() for word in ("fatal", "error", "panic", "failed"))
    ]
    return (bad or ours or [""])[-1][:160]


def view(seen: Seen) -> View:
    """What there is to say about what was seen."""
    result = seen.outcome
    if result is None:
        return View(mood=Mood.STARTING, what="k3img-firstboot", addresses=seen.addresses)
    notes = (*result.problems, *result.notes, *_label_notes(seen, result.node))
    if result.go is Go.JOIN and not seen.found_server:
        return _joining(seen, result, notes)
    if not seen.runs:
        mood = {Go.STOP: Mood.STOPPED, Go.REBOOT: Mood.STARTING}.get(result.go, Mood.WAITING)
        return View(mood=mood, what=result.what, todo=result.todo, addresses=seen.addresses, notes=notes)
    down = [card.name for card in seen.cards if not card.carrier]
    if seen.node is not None and seen.node.ready:
        if seen.cards and len(down) == len(seen.cards):
            notes = (*notes, f"no link on {', '.join(down)}")
        elif (missing := _silent_gateway(seen)) is not None:
            notes = (*notes, missing[0])
        return View(mood=Mood.READY, addresses=seen.addresses, notes=notes, version=seen.node.version)
    mood, what, todo = _waiting(seen, result)
    return View(mood=mood, what=what, todo=todo, addresses=seen.addresses, notes=notes)


def _joining(seen: Seen, result: Outcome, notes: tuple[str, ...]) -> View:
    """What a node says that has not found its server yet: its own network comes first."""
    what, todo = _no_network(seen) or (result.what, result.todo)
    if seen.addresses and seen.search is not None and seen.silent < SILENT:
        what, todo = seen.search.what, seen.search.todo
    return View(mood=Mood.WAITING, what=what, todo=todo, addresses=seen.addresses, notes=notes)


def _no_network(seen: Seen) -> tuple[str, str] | None:
    down = [card.name for card in seen.cards if not card.carrier]
    if not seen.cards:
        todo = "Give the machine a wired network card that this image has a driver for."
        return "a network card: none was found", todo
    if len(down) == len(seen.cards):
        return f"no link on {', '.join(down)}", "Plug in the network cable."
    if not seen.addresses:
        up = ", ".join(card.name for card in seen.cards if card.carrier)
        todo = "Check the DHCP server, or seed the node with a fixed address."
        return f"an address from DHCP on {up}", todo
    return _silent_gateway(seen)


def _silent_gateway(seen: Seen) -> tuple[str, str] | None:
    result = seen.outcome
    if seen.silent < SILENT or result is None:
        return None
    where = f", {result.gateway_line}" if result.gateway_line else ""
    todo = f"If the network is another one, correct {result.gateway_line or 'node.yaml'} and restart."
    return f"the gateway {result.gateway} to answer (this node is {result.address}{where})", todo


def _waiting(seen: Seen, result: Outcome) -> tuple[Mood, str, str]:
    if (missing := _no_network(seen)) is not None:
        return Mood.WAITING, *missing
    if seen.unit.restarts > RESTARTS and seen.node is None:
        words = f": {seen.last_words}" if seen.last_words else ""
        todo = "Power it off and on. If that does not help, a file factory-reset on K3IMG starts it over."
        return Mood.FAULT, f"k3s does not start ({seen.unit.restarts} times{words})", todo
    if seen.node is None:
        return Mood.STARTING, "Kubernetes to start", ""
    return Mood.STARTING, f"node {result.node} to become Ready ({seen.node.reason[:160]})", ""


def _label_notes(seen: Seen, node: str) -> tuple[str, ...]:
    if seen.node is None:
        return ()
    return tuple(
        f"label {key} is not in node.yaml any more, but stays on the Node: kubectl label node {node} {key}-"
        for key in seen.gone_labels
        if key in seen.node.labels
    )
