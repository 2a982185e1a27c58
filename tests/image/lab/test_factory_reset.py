"""Factory reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import etcd
from k3img.verify.etcd import SERVERS
from k3img.verify.lab import agent

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = (*SERVERS, "a-1")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd and an agent, Ready."""
    return etcd.trio(bed, agent("a-1"))


def reset(shop: LabCluster, name: str, *, cut: bool = False) -> str:
    """Ask for a reset by a file on the card; returns the machine id of before.

    With `cut` the power goes as soon as the node says that it begins.
    """
    member = shop[name]
    before = member.machine.succeed("cat /etc/machine-id")
    shop.power_off(name)
    member.card.write("factory-reset", "please")
    if cut:
        member.machine.start()
        member.machine.wait_for_console("to begin the factory reset", timeout=180)
        shop.power_off(name)
    shop.power_on(name)
    return before


def test_an_agent(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """An agent starts over, and joins again under its name; the power is cut in the middle of it."""
    before = reset(shop, "a-1", cut=True)
    shop.wait_ready("a-1", seen_by="s-1", timeout=240)
    assert shop["a-1"].machine.succeed("cat /etc/machine-id") != before
    assert set(shop.nodes("s-1")) == set(NAMES)
    evidence(shop.told("a-1"))


def test_the_initializer(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The initializer starts over: it joins the old cluster, and makes no second one."""
    uid = shop.uid("s-2")
    before = reset(shop, "s-1")
    shop.wait_ready(*NAMES, seen_by="s-2", timeout=400)
    assert shop["s-1"].machine.succeed("cat /etc/machine-id") != before
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert shop.uid("s-1") == uid
    evidence(shop.told("s-1"))
