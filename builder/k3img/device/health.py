"""k3img-health: is this boot good? It decides whether a counted boot entry is blessed.

On the factory's entry, which has no counter, it only reports. On a counted one it restarts the machine only
when the entry is still on trial and a fault of this machine is proven: what is missing outside (a link, a
server, a quorum, a database) is waited for, without blessing and without restarting.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from k3img.device import disk, files, links, outcome, probe
from k3img.node import names

if TYPE_CHECKING:
    from k3img.device.kube import Client
    from k3img.device.outcome import Outcome
    from k3img.device.place import Place
    from k3img.device.system import System

TICK = 10.0
PROOF = 6
"""The same fault at so many looks in a row is a proof."""

RESTARTS = 5
COUNTER = "LoaderBootCountPath"
"""systemd-boot sets it when the entry that it started has a counter."""

OWN = "k3img-health.service"


class Verdict(StrEnum):
    """What one look says about this boot."""

    GOOD = "good"
    WAITING = "waiting"
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True)
class Look:
    """A verdict and its reason. `kind` is the same for the same fault at another time."""

    verdict: Verdict
    kind: str = ""
    why: str = ""


def assess(place: Place, system: System, client: Client | None) -> Look:
    """Look at everything once."""
    failed = [name for name in probe.failed_units(system) if name != OWN]
    if failed:
        return Look(verdict=Verdict.FAULT, kind="unit", why=f"failed: {', '.join(failed)}")
    result = outcome.load(place)
    if result is None or not outcome.runs(place, result):
        return Look(verdict=Verdict.WAITING, why=result.what if result else "k3img-firstboot")
    if (why := _datastore_fault(place)) is not None:
        return Look(verdict=Verdict.FAULT, kind="datastore", why=why)
    if result.role == "server":
        state = probe.node(client, result.node) if client is not None and place.kubeconfig.exists() else None
        if state is not None and state.ready:
            return Look(verdict=Verdict.GOOD)
    elif probe.kubelet_configured(place) and probe.kubelet_answers():
        return Look(verdict=Verdict.GOOD)
    if not links.addresses(place, system):
        return Look(verdict=Verdict.WAITING, why="no link or no address")
    return _runtime(place, system, result)


def _datastore_fault(place: Place) -> str | None:
    why = probe.sqlite_fault(place)
    return f"the sqlite datastore cannot be read: {why}" if why else None


def _runtime(place: Place, system: System, result: Outcome) -> Look:
    """k3s' own state, once nothing outside explains that the node is not Ready."""
    unit = probe.unit(system, names.unit(result.role))
    if unit.active == "active" and probe.kubelet_configured(place) and not probe.kubelet_answers():
        return Look(verdict=Verdict.FAULT, kind="kubelet", why="the kubelet was configured and is dead")
    if unit.restarts >= RESTARTS and not _needs_others(place, result):
        return Look(verdict=Verdict.FAULT, kind="k3s", why=f"k3s does not start ({unit.restarts} times)")
    if unit.active == "active" and (why := probe.etcd_fault(place)) is not None:
        return Look(verdict=Verdict.FAULT, kind="etcd", why=f"its own etcd does not answer: {why}")
    return Look(verdict=Verdict.WAITING, why="Kubernetes to start")


def _needs_others(place: Place, result: Outcome) -> bool:
    """k3s may stop for want of something outside: a server, a quorum, a database."""
    if result.role != "server" or (place.rancher / "k3s/config.yaml.d/25-datastore.yaml").exists():
        return True
    return (place.k3s / "server/db/etcd/member/wal").exists()


def counted(place: Place) -> bool:
    """The boot loader counts the tries of the entry that it started."""
    return disk.efi_text(place, COUNTER) is not None


def run(place: Place, system: System, *, looks: int | None = None) -> int:
    """Return 0 when the boot is good (or not counted), never while it waits; `looks` is for tests."""
    client = _client(place)
    if not counted(place):
        look = assess(place, system, client)
        system.log(f"this boot entry has no counter: only a report. {look.verdict} {look.why}".rstrip())
        return 0
    said, streak, kind = "", 0, ""
    while looks is None or looks > 0:
        looks = None if looks is None else looks - 1
        client = client or _client(place)
        look = assess(place, system, client)
        if f"{look.verdict} {look.why}" != said:
            said = f"{look.verdict} {look.why}"
            system.log(said)
        if look.verdict is Verdict.GOOD:
            return 0
        streak = streak + 1 if look.verdict is Verdict.FAULT and look.kind == kind else 1
        kind = look.kind if look.verdict is Verdict.FAULT else ""
        if kind and streak >= PROOF:
            return _proven(place, system, look)
        system.sleep(TICK)
    return 1


def _client(place: Place) -> Client | None:
    if not place.kubeconfig.exists():
        return None
    from k3img.device.kube import Client  # noqa: PLC0415 - TLS is slow to import

    return Client(place)


def _proven(place: Place, system: System, look: Look) -> int:
    trial = system.run(["/usr/lib/systemd/systemd-bless-boot", "status"], timeout=60).output.strip()
    if trial != "indeterminate":
        system.log(f"a fault is proven, but this entry is not on trial ({trial}): no restart")
        return 0
    system.log(f"restarting into the other entry: {look.why}")
    files.write(place.state / "last-fault", f"{look.why}\n")
    system.run(["systemctl", "--no-block", "reboot"])
    return 1
