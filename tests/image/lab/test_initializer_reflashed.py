"""Initializer reflashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import etcd
from k3img.verify.etcd import SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

MINUTES = 5


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """Three servers on etcd, Ready."""
    return etcd.trio(bed)


@pytest.fixture(scope="module")
def uid(shop: LabCluster) -> str:
    """The cluster's identity; then all of it is switched off, and the initializer's medium written anew."""
    known = shop.uid("s-1")
    shop.power_off(*SERVERS)
    (gift,) = shop.flash("s-1")
    assert not gift.bootstrap
    assert any("comes back as one that joins" in text for text in gift.says)
    return known


def test_waits(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """Powered on minutes before the others it waits, and makes no cluster."""
    shop.power_on("s-1")
    shop.pause(60 * MINUTES)
    assert "a server of cluster shop (asks s-2-" in shop["s-1"].status()
    assert shop["s-1"].machine.execute("systemctl is-active k3s.service").stdout.strip() == "inactive"
    evidence(f"{shop['s-1'].status()}\nthe cluster's identity was {uid}")


def test_joins(shop: LabCluster, uid: str, evidence: Callable[[object], None]) -> None:
    """When the others have power it joins the old cluster, which has three members in the end."""
    shop.power_on("s-2", "s-3")
    shop.wait_ready(*SERVERS, seen_by="s-2", timeout=400)
    assert etcd.members(shop["s-2"]).keys() == set(SERVERS)
    assert shop.uid("s-1") == uid
    evidence(shop.told())
