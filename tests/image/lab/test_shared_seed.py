"""Shared seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from k3img.cluster import seed
from k3img.node.model import Network
from k3img.profile.model import Match
from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

AGENTS = ("a-2", "a-3")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server, and two agents that are told apart by their cards."""
    agents = [replace(agent(name), network=Network(mac=f"52:54:00:aa:00:0{name[-1]}")) for name in AGENTS]
    return bed.cluster("shop", server("a-1", initializer=True), *agents)


def test_ready(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The agents' media are written alike: each machine becomes its own node, and all are Ready."""
    shop.flash("a-1")
    cluster = replace(shop.cluster, match=Match.MAC)
    content = seed.shared(cluster, shop.kept.secrets, issued=1)
    for name in AGENTS:
        shop.bed.flash(shop[name].medium, content)
    shop.power_on("a-1", *AGENTS)
    shop.wait_ready("a-1", *AGENTS, seen_by="a-1")
    evidence(shop.told())


def test_nothing_of_others(shop: LabCluster) -> None:
    """No agent keeps what belongs to the other, neither on its root nor on its card."""
    for name, other in (AGENTS, AGENTS[::-1]):
        password = shop.kept.secrets.node_password(other)
        machine = shop[name].machine
        assert password not in machine.succeed("cat /var/lib/k3img/seed/* /etc/rancher/node/password")
        shop.power_off(name)
        assert shop[name].card.read(f"secrets/agents/52-54-00-aa-00-0{other[-1]}/node-password") == ""
