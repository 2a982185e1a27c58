"""Two clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server
from k3img.verify.laptop import Laptop

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2")


@pytest.fixture(scope="module")
def shops(bed: Bed) -> tuple[LabCluster, ...]:
    """Two clusters of one name, with nodes of the same names; the CAs are others."""
    nodes = (server("a-1", initializer=True), agent("a-2"))
    return tuple(bed.cluster("shop", *nodes, label=label) for label in ("left", "right"))


def uids(shop: LabCluster) -> dict[str, str]:
    """What tells a Node from another one of its name."""
    nodes = shop.nodes("a-1")
    return {name: nodes[name]["status"]["nodeInfo"]["machineID"] for name in nodes}


def own(shop: LabCluster) -> dict[str, str]:
    """The same, as the machines say it."""
    return {name: shop[name].machine.succeed("cat /etc/machine-id").strip() for name in NAMES}


def power_on(shops: tuple[LabCluster, ...]) -> None:
    """All machines of both, together."""
    for shop in shops:
        shop.switch_on(*NAMES)
    for shop in shops:
        shop.wait_for_boot(*NAMES)


def test_complete(shops: tuple[LabCluster, ...], evidence: Callable[[object], None]) -> None:
    """Powered on together, each becomes complete, with its own nodes and no other."""
    for shop in shops:
        shop.flash()
    power_on(shops)
    for shop in shops:
        shop.wait_ready(*NAMES, seen_by="a-1", timeout=300)
        assert uids(shop) == own(shop)
        evidence(shop.told())
    left, right = (shop.uid("a-1") for shop in shops)
    assert left != right


def test_found(shops: tuple[LabCluster, ...], evidence: Callable[[object], None]) -> None:
    """`k3img wait` finds each by its own secrets."""
    for shop in shops:
        laptop = Laptop(shop)
        evidence(laptop.k3img("wait", "--timeout", "120"))
        assert laptop.server[0] == shop["a-1"].lease.address


def test_after_a_reboot(shops: tuple[LabCluster, ...]) -> None:
    """The same after all of them lost their power."""
    before = [shop.uid("a-1") for shop in shops]
    for shop in shops:
        shop.power_off(*NAMES)
    power_on(shops)
    for shop, uid in zip(shops, before, strict=True):
        shop.wait_ready(*NAMES, seen_by="a-1", timeout=300)
        assert uids(shop) == own(shop)
        assert shop.uid("a-1") == uid
