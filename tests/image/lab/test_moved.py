"""Moved."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server
from k3img.verify.laptop import Laptop
from k3img.verify.webs import Webs
from k3img.vm.lab import LEASE

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2")
NEW = "10.77.0.90"
LIMIT = 180


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and an agent, Ready."""
    made = bed.cluster("shop", server("a-1", initializer=True), agent("a-2"))
    made.flash()
    made.power_on(*NAMES)
    made.wait_ready(*NAMES, seen_by="a-1")
    return made


@pytest.fixture(scope="module")
def laptop(shop: LabCluster) -> Laptop:
    """A laptop whose kubeconfig leads to the server's first address."""
    made = Laptop(shop)
    made.k3img("nodes")
    assert made.server[0] == shop["a-1"].lease.address
    assert len(made.get("/api/v1/nodes")["items"]) == len(NAMES)
    return made


def test_moved(shop: LabCluster, laptop: Laptop, evidence: Callable[[object], None]) -> None:
    """DHCP gives the server another address: the agent is Ready again, and no pod was restarted."""
    webs = Webs(shop, NAMES)
    webs.start(seen_by="a-1")
    before = [webs.process(name) for name in NAMES]
    shop.move("a-1", NEW)
    member = shop["a-1"]
    asked = "ip -4 addr"
    shop.wait_until("the new address", lambda: f"{NEW}/" in member.machine.succeed(asked), timeout=LEASE)
    began, moved = shop.now(), dt.datetime.now(dt.UTC)
    shop.wait_until(
        "the agent to report to the new address",
        lambda: (shop.reported("a-2", seen_by="a-1") or moved) > moved and shop.ready(NAMES, seen_by="a-1"),
        timeout=LIMIT,
        evidence=shop.told,
    )
    evidence(f"Ready {shop.now() - began:.0f} s after the move\n{shop.told()}")
    assert [webs.process(name) for name in NAMES] == before
    assert laptop.server[0] != NEW


def test_the_laptop_follows(laptop: Laptop, evidence: Callable[[object], None]) -> None:
    """The kubeconfig works again after `k3img nodes`."""
    evidence(laptop.k3img("nodes"))
    assert laptop.server[0] == NEW
    assert len(laptop.get("/api/v1/nodes")["items"]) == len(NAMES)
