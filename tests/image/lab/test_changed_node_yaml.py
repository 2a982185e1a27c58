"""Changed node.yaml."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from k3img.node.model import DatastoreKind
from k3img.verify.lab import agent, server
from k3img.verify.life import internal_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("s-1", "a-1")
NEW = "10.77.0.70"


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server on etcd and an agent, Ready, then off."""
    made = bed.cluster("shop", server("s-1", initializer=True), agent("a-1"), datastore=DatastoreKind.ETCD)
    made.flash()
    made.power_on(*NAMES)
    made.wait_ready(*NAMES, seen_by="s-1")
    made.power_off(*NAMES)
    return made


def edit(shop: LabCluster, name: str, *lines: str) -> None:
    """Put lines into the node.yaml on a card, as an editor does, in the place of those with the same keys."""
    card, keys = shop[name].card, {line.partition(":")[0] for line in lines}
    kept = [row for row in card.read("node.yaml").splitlines() if row.partition(":")[0] not in keys]
    card.write("node.yaml", "\n".join([*kept, *lines]) + "\n")


def notes(shop: LabCluster, name: str) -> list[str]:
    """What the node says about its node.yaml."""
    said: list[str] = json.loads(shop[name].machine.succeed("cat /run/k3img/node.json"))["notes"]
    return said


def test_taken(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """New labels and an agent's new address are taken."""
    edit(shop, "a-1", "labels: {place: roof}", f"address: {NEW}/24", f"gateway: {shop.bed.host}")
    shop.power_on(*NAMES)
    shop.wait_ready(*NAMES, seen_by="s-1")
    shop.wait_until(
        "the agent's new address and label",
        lambda: (
            internal_ip(node := shop.listed("s-1").get("a-1", {})) == NEW
            and node["metadata"]["labels"].get("place") == "roof"
        ),
        timeout=60,
    )
    evidence(json.dumps(shop.nodes("s-1")["a-1"]["metadata"]["labels"]))
    assert notes(shop, "a-1") == []


def test_refused(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A new role, an etcd member's address and taints are not: the node runs on as it was, and says so."""
    shop.power_off(*NAMES)
    edit(shop, "s-1", "address: 10.77.0.71/24", f"gateway: {shop.bed.host}")
    edit(shop, "a-1", "role: server", "taints: ['only=this:NoSchedule']")
    shop.power_on(*NAMES)
    shop.wait_ready(*NAMES, seen_by="s-1")
    server_says, agent_says = notes(shop, "s-1"), notes(shop, "a-1")
    evidence("\n".join([*server_says, *agent_says]))
    assert any("address stays dhcp" in text for text in server_says)
    assert any("role stays agent" in text and "factory-reset" in text for text in agent_says)
    assert any("kubectl taint node a-1" in text for text in agent_says)
    assert not shop.nodes("s-1")["a-1"]["spec"].get("taints")
