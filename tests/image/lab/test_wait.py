"""Wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.errors import ProgramError
from k3img.verify.lab import agent, server
from k3img.verify.laptop import Laptop

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and an agent, just powered on."""
    made = bed.cluster("shop", server("a-1", initializer=True), agent("a-2"))
    made.flash()
    made.power_on(*NAMES)
    return made


def test_on_the_network(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """`k3img wait` on a laptop of the network finds the nodes by mDNS and ends when all are Ready."""
    laptop = Laptop(shop)
    said = laptop.k3img("wait", "--timeout", "1200", timeout=1300)
    evidence(said)
    assert "all Ready after" in said
    for name in NAMES:
        assert any(name in line and "node Ready" in line for line in said.splitlines())
    assert laptop.server[0] == shop["a-1"].lease.address
    assert len(laptop.get("/api/v1/nodes")["items"]) == len(NAMES)


def test_behind_a_router(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """In a routed network, where no multicast comes, it says what to do; with `--address` it works."""
    laptop = Laptop(shop, shop.bed.network.subnet())
    with pytest.raises(ProgramError) as caught:
        laptop.k3img("wait", "--timeout", "5")
    assert "--address" in caught.value.details
    said = laptop.k3img("wait", "--address", shop["a-1"].lease.address, "--timeout", "120")
    evidence(said)
    assert "all Ready after" in said


def test_twins(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A second machine with the agent's seed: both are named with their MACs, and nobody says Ready."""
    shop.twin("a-2")
    shop.flash("a-2b")
    shop.power_on("a-2b")
    laptop = Laptop(shop)
    shop.wait_until(
        "both machines to be seen",
        lambda: "several machines are this node" in laptop.k3img("nodes"),
        timeout=240,
        evidence=lambda: laptop.k3img("nodes"),
    )
    said = laptop.k3img("nodes")
    evidence(said)
    for name in ("a-2", "a-2b"):
        assert f"{shop[name].lease.address} ({shop[name].lease.mac})" in said
    with pytest.raises(ProgramError) as caught:
        laptop.k3img("wait", "--timeout", "5")
    assert "s: a-2" in caught.value.details
