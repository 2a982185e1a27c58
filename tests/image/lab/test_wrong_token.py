"""Wrong token."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from k3img.cluster import model
from k3img.verify.load import Ticks

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import LabCluster

SERVER, WRONG, FOREIGN = "a-1", "x-1", "x-2"

WAIT = 120

MOST_TRIES = 5
"""In `WAIT` seconds."""

MOST_WORK = 0.5
"""A busy loop takes all of a processor; an emulated one that only waits was seen to take 9 to 16%."""


@pytest.fixture(scope="module")
def shop(one_server: LabCluster) -> LabCluster:
    """A server, an agent whose token is wrong, and one that was seeded for another cluster of that name."""
    made = one_server
    made.power_off(*(name for name in made.members if name != SERVER))
    if not made[SERVER].machine.on:
        made.flash(SERVER)
    other = model.create(made.cluster.name, model.lifetime(dt.datetime.now(dt.UTC)))
    token = f"K10{made.kept.secrets.ca_hash}::node:{'0' * 32}\n".encode()

    def wrong(files: dict[str, bytes]) -> dict[str, bytes]:
        return files | {"secrets/token": token}

    def foreign(files: dict[str, bytes]) -> dict[str, bytes]:
        """The other cluster's CA and token, this one's servers' names."""
        node = files["node.yaml"].replace(made.kept.secrets.ca_hash.encode(), other.ca_hash.encode())
        return files | {"node.yaml": node, "secrets/token": other.agent_token.encode()}

    for name, change in ((WRONG, wrong), (FOREIGN, foreign)):
        made.add(name)
        made.flash(name, change=change)
    return made


def test_server(shop: LabCluster) -> None:
    """The server is Ready, and two machines that may not join have power."""
    shop.power_on(*(name for name in (SERVER, WRONG, FOREIGN) if not shop[name].machine.on))
    shop.wait_ready(SERVER, seen_by=SERVER)


def test_wrong_token(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A wrong token: the status says that the server refuses it, and what to do."""
    member = shop[WRONG]
    shop.wait_until("the refusal", lambda: "refuses this node" in member.status(), timeout=WAIT)
    assert f"k3img seed --node {WRONG}" in member.machine.console()
    evidence(member.status())


def test_foreign_ca(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Another cluster's seed: its server is not found, and nobody else is believed."""
    member, wanted = shop[FOREIGN], f"a server of cluster {shop.cluster.name}"
    shop.wait_until("the search", lambda: wanted in member.status(), timeout=WAIT)
    assert member.machine.execute("systemctl is-active k3s-agent.service").stdout.strip() == "inactive"
    evidence(member.status())


def test_slow(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Neither is in a busy loop: both try again, seldom, and their processors have time to spare."""
    count = "journalctl -b -u k3img-discover.service -o cat | grep -c '^Starting' || true"
    machines = {name: shop[name].machine for name in (WRONG, FOREIGN)}

    def tries() -> dict[str, int]:
        return {name: int(machine.succeed(count)) for name, machine in machines.items()}

    def ticks() -> dict[str, Ticks]:
        return {name: Ticks.parse(machine.succeed("cat /proc/stat")) for name, machine in machines.items()}

    def again() -> dict[str, int] | None:
        now = tries()
        return now if all(now[name] > tried[name] for name in machines) else None

    tried, worked, began = tries(), ticks(), shop.now()
    shop.pause(WAIT)
    later = shop.wait_until("another try of both", again, timeout=WAIT)
    seconds, after = shop.now() - began, ticks()
    for name in machines:
        more, share = later[name] - tried[name], after[name].busy_since(worked[name])
        evidence(f"{name}: {more} tries in {seconds:.0f} s, processor busy {share:.0%}")
        assert more <= MOST_TRIES * seconds / WAIT
        assert share < MOST_WORK


def test_nothing_joined(shop: LabCluster) -> None:
    """Neither agent is a node, nor ran anything: the nodes are the others that this bed has had."""
    assert set(shop.nodes(SERVER)) == set(shop.members) - {WRONG, FOREIGN}
    for name in (WRONG, FOREIGN):
        assert shop[name].machine.execute("test -e /var/lib/rancher/k3s/agent/client-kubelet.crt").rc == 1
