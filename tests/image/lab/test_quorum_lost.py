"""Quorum lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import etcd
from k3img.verify.etcd import SERVERS
from k3img.verify.life import internal_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

SETTLED = 30

ELSEWHERE = {"s-1": "10.77.0.71", "s-2": "10.77.0.72", "s-3": "10.77.0.73"}


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd, Ready."""
    return etcd.trio(bed)


@pytest.fixture(scope="module")
def uid(shop: LabCluster) -> str:
    """The cluster's identity, once it has a ConfigMap; then all are off, and two of them never come back.

    A follower knows only by a later entry that the last one was committed, and a cluster reset takes nothing
    else: what is written in the moment in which the others vanish may be lost.
    """
    shop.keep("before", through="s-2")
    shop.pause(SETTLED)
    known = shop.uid("s-2")
    shop.power_off(*SERVERS)
    return known


def test_reset(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """A file cluster-reset on the card of one that is left: it is Ready, with the data, and says so."""
    shop["s-2"].card.write("cluster-reset", "please")
    shop.power_on("s-2")
    shop.wait_ready("s-2", seen_by="s-2", timeout=400)
    assert etcd.members(shop["s-2"]).keys() == {"s-2"}
    assert shop.uid("s-2") == uid
    assert shop.has("before", seen_by="s-2")
    notes = shop["s-2"].machine.succeed("cat /run/k3img/node.json")
    assert "etcd's only member" in notes
    evidence(notes)


def test_the_others_join(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The other two are written anew, the initializer too: they join, three members in the end."""
    for name in ("s-1", "s-3"):
        (gift,) = shop.flash(name)
        assert not gift.bootstrap
    shop.power_on("s-1", "s-3")
    shop.wait_ready(*SERVERS, seen_by="s-2", timeout=400)
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert shop.has("before", seen_by="s-3")
    evidence(shop.told())


def test_once(shop: LabCluster) -> None:
    """The next boot of the card resets nothing: the file has another name."""
    shop.power_off("s-2")
    shop.power_on("s-2")
    shop.wait_ready(*SERVERS, seen_by="s-1", timeout=240)
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    shop.power_off("s-2")
    assert shop["s-2"].card.read("cluster-reset.done") == "please"


def test_all_addresses_changed(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """While all are off, each server's address changes: a file on one card again, and the others anew."""
    shop.power_off("s-1", "s-3")
    for name, address in ELSEWHERE.items():
        shop.move(name, address)
    shop["s-2"].card.write("cluster-reset", "please")
    shop.flash("s-1", "s-3")
    shop.power_on("s-2")
    shop.wait_ready("s-2", seen_by="s-2", timeout=400)
    shop.power_on("s-1", "s-3")
    shop.wait_ready(*SERVERS, seen_by="s-2", timeout=400)
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert shop.uid("s-1") == uid
    assert shop.has("before", seen_by="s-3")
    where = {name: internal_ip(node) for name, node in shop.nodes("s-3").items()}
    assert where == ELSEWHERE
    evidence(where)
