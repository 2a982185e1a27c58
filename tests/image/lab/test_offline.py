"""Offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server
from k3img.verify.webs import Webs

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2")
UNPLUGGED = 300


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and an agent in a network without a router."""
    bed.network.serve(router=False)
    return bed.cluster("shop", server("a-1", initializer=True), agent("a-2"))


def test_join(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Without a default route and an internet: an agent without a cable waits, its server is Ready."""
    shop.flash()
    shop.bed.network.cut(shop["a-2"].label)
    shop.power_on(*NAMES)
    assert "default" not in shop["a-1"].machine.succeed("ip route")
    shop.wait_ready("a-1", seen_by="a-1")
    boot = shop["a-2"].machine.succeed("cat /proc/sys/kernel/random/boot_id")
    shop.pause(UNPLUGGED)
    assert shop["a-2"].machine.succeed("cat /proc/sys/kernel/random/boot_id") == boot
    evidence(shop["a-2"].status())


def test_plugged_in(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Once the cable is in, the agent joins and is Ready."""
    shop.bed.network.heal(shop["a-2"].label)
    shop.wait_ready(*NAMES, seen_by="a-1")
    evidence(shop.told())


def test_pods(shop: LabCluster) -> None:
    """Pods run on both, and reach each other."""
    webs = Webs(shop, NAMES)
    webs.start(seen_by="a-1")
    addresses = webs.addresses(seen_by="a-1")
    other = addresses["a-2"]
    assert webs.fetch("a-1", other) == {other: "200"}
