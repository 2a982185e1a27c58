"""High availability."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from k3img.node.model import DatastoreKind
from k3img.verify import etcd, load
from k3img.verify.lab import agent, server
from k3img.verify.webs import Webs

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

SERVERS = ("s-1", "s-2", "s-3")
ANSWERS = 60


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd and an agent."""
    nodes = (server("s-1", initializer=True), server("s-2"), server("s-3"), agent("a-1"))
    return bed.cluster("shop", *nodes, datastore=DatastoreKind.ETCD)


@pytest.fixture(scope="module")
def webs(shop: LabCluster) -> Webs:
    """A pod on the agent."""
    return Webs(shop, ["a-1"])


def test_ready(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Three servers and an agent, powered on together, become Ready."""
    shop.flash()
    shop.power_on(*SERVERS, "a-1")
    seconds = shop.wait_ready(*SERVERS, "a-1", seen_by="s-1", timeout=240)
    shop["s-1"].life.numbers["three servers and an agent Ready after power on"] = f"{seconds:.0f} s"
    evidence(shop.told())


def test_members(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The three servers are etcd's members; with nothing to do they elect nobody else."""
    assert etcd.members(shop["s-2"]).keys() == set(SERVERS)
    before = etcd.term(shop["s-2"])
    busy = load.busy(60)
    evidence(f"term {before}; over a minute the host's processors were busy for {busy:.0%}")
    assert etcd.term(shop["s-2"]) == before


def test_another_answers(shop: LabCluster, webs: Webs, evidence: Callable[[object], None]) -> None:
    """The first server is killed: another one takes writes within the time, and the agent's pod runs on."""
    webs.start(seen_by="s-2")
    before = webs.process("a-1")
    shop.power_off("s-1")
    began, killed = shop.now(), dt.datetime.now(dt.UTC)
    shop.wait_until("another server", lambda: shop.answers("s-2") or shop.answers("s-3"), timeout=ANSWERS)
    evidence(f"{shop.now() - began:.0f} s; the limit is {ANSWERS} s times {shop.stretch:.1f}")
    shop.wait_until(
        "the agent to report to another server",
        lambda: (shop.reported("a-1", seen_by="s-2") or killed) > killed,
        timeout=ANSWERS,
        evidence=shop.told,
    )
    assert webs.process("a-1") == before


def test_it_comes_back(shop: LabCluster, webs: Webs) -> None:
    """The killed server comes back, as the member that it was; the agent's pod never noticed."""
    before = webs.process("a-1")
    shop.power_on("s-1")
    shop.wait_ready(*SERVERS, "a-1", seen_by="s-2")
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert webs.process("a-1") == before
