"""Factory reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import cuts, etcd
from k3img.verify.etcd import SERVERS
from k3img.verify.lab import agent

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster, Member

NAMES = (*SERVERS, "a-1")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd and an agent, Ready."""
    return etcd.trio(bed, agent("a-1"))


def given_back(shop: LabCluster, member: Member) -> bool:
    """The token is on the card again; the root partition may still be there."""
    return cuts.has_token(shop, member)


def root_gone(_shop: LabCluster, member: Member) -> bool:
    """The root partition's entry has left the GPT, and the machine restarts."""
    return not cuts.has_root(member)


def root_made(_shop: LabCluster, member: Member) -> bool:
    """systemd-repart has just made the new root: nothing has been copied to it."""
    return cuts.has_root(member)


POINTS = (given_back, root_gone, root_made)
"""In the order in which a reset comes to them."""


def ask(shop: LabCluster, name: str) -> str:
    """Switch a node off and put the file that asks for a reset on its card; returns its machine id."""
    member = shop[name]
    before = member.machine.succeed("cat /etc/machine-id")
    shop.power_off(name)
    member.card.write("factory-reset", "please")
    return before


def test_an_agent(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """An agent starts over, and joins again under its name; the power is cut at three points of it."""
    member = shop["a-1"]
    before = ask(shop, "a-1")
    assert not given_back(shop, member), "the token never left the card"
    assert cuts.has_root(member)
    for point in POINTS:
        cuts.cut(shop, "a-1", point, timeout=120)
    shop.power_on("a-1")
    shop.wait_ready("a-1", seen_by="s-1", timeout=240)
    assert member.machine.succeed("cat /etc/machine-id") != before
    assert set(shop.nodes("s-1")) == set(NAMES)
    evidence(shop.told("a-1"))


def test_the_initializer(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The initializer starts over: it joins the old cluster, and makes no second one."""
    uid = shop.uid("s-2")
    before = ask(shop, "s-1")
    shop.power_on("s-1")
    shop.wait_ready(*NAMES, seen_by="s-2", timeout=400)
    assert shop["s-1"].machine.succeed("cat /etc/machine-id") != before
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert shop.uid("s-1") == uid
    evidence(shop.told("s-1"))
