"""Reflash server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import etcd
from k3img.verify.etcd import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd, Ready."""
    return etcd.trio(bed)


@pytest.fixture(scope="module")
def uid(shop: LabCluster) -> str:
    """The cluster's identity."""
    return shop.uid("s-1")


def test_refused(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """A second machine of the same node is refused while the first one runs."""
    twin = shop.twin("s-3")
    shop.flash("s-3b")
    shop.power_on("s-3b")
    shop.wait_until("the refusal", lambda: "the other machine that runs as s-3" in twin.status(), timeout=120)
    evidence(twin.status())
    assert etcd.members(shop["s-1"]).keys() == set(SERVERS)
    assert shop.ready(SERVERS, seen_by="s-1")
    assert shop.uid("s-1") == uid


def test_replaced(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """The first one is switched off: the second takes its place among the members, in the same cluster."""
    before = set(etcd.members(shop["s-1"]).values())
    shop.power_off("s-3")
    seconds = shop.wait_ready("s-3b", seen_by="s-1", timeout=400)
    evidence(f"{seconds:.0f} s after power on\n{shop.told('s-3b')}")
    assert etcd.members(shop["s-3b"]).keys() == set(SERVERS)
    after = set(etcd.members(shop["s-1"]).values())
    assert len(before & after) == len(SERVERS) - 1, f"{before} became {after}"
    assert shop.uid("s-3b") == uid
