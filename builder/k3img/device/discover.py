"""k3img-discover: a node that joins looks for a server of its cluster, then starts k3s.

Run now and then by a timer, never resident. An address counts only when a TLS handshake for the cluster's
name verifies against the pinned CA: anybody can replay what a server tells the public. It is kept in
`/etc/hosts`, which is what k3s asks, and followed when the server moves.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from k3img.device import files, links, outcome
from k3img.device.outcome import Go
from k3img.node import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.device.place import Place
    from k3img.device.system import System
    from k3img.device.trust import Verdict

JOIN = "join.json"
"""In `/run/k3img`: what to look for, left by k3img-firstboot."""

FOUND = "discover.json"
"""In `/run/k3img`: what is told to people while the search goes on."""

MARK = "# k3img: the server that was found"
TRIES, PAUSE = 12, 3.0
"""Looks within one run, and seconds between them; then the timer starts another run, later."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for: a cluster's servers by their mDNS names, or its endpoint.

    `name` is what a server must prove to be, `ca_hash` the sha256 of the CA file that it must show.
    """

    name: str
    node: str
    role: str
    ca_hash: str
    endpoint: str = ""
    servers: tuple[str, ...] = ()
    etcd: bool = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is told to people: the one thing that is waited for, and what they can do."""

    what: str
    todo: str = ""


def save(place: Place, search: Search) -> bool:
    """Leave word of what to look for; says whether it is another than before."""
    return files.write(place.run / JOIN, json.dumps(asdict(search)) + "\n", durable=False)


def load(place: Place) -> Search | None:
    """What to look for; None on a node that joins nobody."""
    try:
        raw = json.loads((place.run / JOIN).read_text())
        return Search(**{**raw, "servers": tuple(raw["servers"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def report(place: Place) -> Report | None:
    """The last that was told."""
    try:
        return Report(**json.loads((place.run / FOUND).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def candidates(place: Place, search: Search) -> tuple[str, ...]:
    """Addresses that a server may have: the one that is known first."""
    from k3img.device import resolve  # noqa: PLC0415 - first boot and status need no sockets

    found = [known] if (known := known_address(place, search.name)) else []
    for name in (search.endpoint,) if search.endpoint else search.servers:
        found += [name] if _is_address(name) else resolve.addresses(place, name)
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 4 and all(part.isdecimal() for part in parts)


def known_address(place: Place, name: str) -> str:
    """The server's address in `/etc/hosts`, or nothing."""
    for line in (files.read_text(place.root / "etc/hosts") or "").splitlines():
        words = line.partition("#")[0].split()
        if name in words[1:]:
            return words[0]
    return ""


def keep_address(place: Place, name: str, address: str) -> bool:
    """Write the server's address into `/etc/hosts`; says whether it changed."""
    path = place.root / "etc/hosts"
    old = [line for line in (files.read_text(path) or "").splitlines() if name not in line.split()]
    # The link to /usr's file, if there is one, becomes a file of this node.
    return files.write(path, "\n".join([*old, f"{address} {name} {MARK}"]) + "\n")


def look(
    place: Place, search: Search, check: Callable[[Place, Search, str], Verdict]
) -> tuple[str, tuple[Verdict, ...]]:
    """Try every candidate; the first that proves itself, and what was wrong with the others."""
    verdicts = []
    for address in candidates(place, search):
        verdict = check(place, search, address)
        if verdict.good:
            return address, ()
        verdicts.append(verdict)
    return "", tuple(verdicts)


def explain(search: Search, verdicts: tuple[Verdict, ...]) -> Report:
    """Why no server was found, the most telling reason first."""
    asked = search.endpoint or ", ".join(search.servers) or "(no other server)"
    worst = max(verdicts, key=lambda verdict: verdict.weight, default=None)
    what = f"a server of cluster {search.name.split('.')[1]} (asks {asked})"
    if worst is None:
        todo = "Power a server on; it must be on this network, and multicast must reach it."
        return Report(what=what, todo=todo if not search.endpoint else "Power the server on.")
    return Report(what=f"{what}: {worst.text}", todo=worst.todo)


def run(place: Place, system: System) -> int:
    """Look for a server; start k3s when one is found. Returns 0 also when none was: the timer goes on."""
    from k3img.device import rejoin, trust  # noqa: PLC0415 - TLS is slow to import

    result, search = outcome.load(place), load(place)
    if result is None or result.go is not Go.JOIN or search is None:
        return 0
    running = outcome.runs(place, result)
    for attempt in range(1 if running else TRIES):
        if attempt:
            system.sleep(PAUSE)
        if not links.addresses(place, system):
            continue
        address, verdicts = look(place, search, trust.check)
        if not address:
            told = explain(search, verdicts)
            slow = any(verdict.slow for verdict in verdicts)
        else:
            if keep_address(place, search.name, address):
                system.log(f"{search.name} is {address}")
            if running:
                return 0
            held = rejoin.prepare(place, system, search, address) if search.etcd else None
            if held is None:
                return _start(place, system, result.role)
            told, slow = held, True
        if running:
            return 0
        _tell(place, system, told)
        if slow:  # what a person must change is not asked for again at once
            break
    return 0


def _tell(place: Place, system: System, told: Report) -> None:
    if told != report(place):
        system.log(f"waits for {told.what}")
        files.write(place.run / FOUND, json.dumps(asdict(told)) + "\n", durable=False)


def _start(place: Place, system: System, role: str) -> int:
    outcome.let_run(place, role)
    files.remove(place.run / FOUND)
    return 0 if system.run(["systemctl", "--no-block", "start", names.unit(role)]).status == 0 else 1
