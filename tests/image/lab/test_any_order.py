"""Any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

AGENTS = ("a-2", "a-3")
MINUTES = 3


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and two agents."""
    return bed.cluster("shop", server("a-1", initializer=True), agent("a-2"), agent("a-3"))


def test_agents_wait(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Agents that are powered on minutes before the server say whom they ask, and start nothing."""
    shop.flash()
    shop.power_on(*AGENTS)
    shop.pause(60 * MINUTES)
    for name in AGENTS:
        member = shop[name]
        assert "a server of cluster shop (asks a-1-" in member.status()
        state = member.machine.execute("systemctl is-active k3s-agent.service").stdout.strip()
        assert state == "inactive"
        evidence(member.status())
    said = {node.name: node for node in shop.look().nodes}
    for name in AGENTS:
        assert said[name].place is not None
        assert "waits for a server of cluster shop" in said[name].says
        evidence(f"a laptop sees: {said[name]}")


def test_all_ready(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Once the server has power all become Ready by themselves."""
    shop.power_on("a-1")
    seconds = shop.wait_ready("a-1", *AGENTS, seen_by="a-1")
    evidence(f"{seconds:.0f} s after the server's power on\n{shop.told()}")


def test_nothing_failed(shop: LabCluster) -> None:
    """No unit failed on the way, and nothing restarted."""
    for name in ("a-1", *AGENTS):
        machine = shop[name].machine
        assert machine.succeed("systemctl --failed --no-legend --plain").strip() == ""
        assert machine.succeed(f"systemctl show -P NRestarts {shop[name].unit}").strip() == "0"
