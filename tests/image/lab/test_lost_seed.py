"""Lost seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

STATUS = 60


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server."""
    return bed.cluster("shop", server("a-1", initializer=True))


def test_no_cluster(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A seeded medium whose seed was zeroed before first boot says so, and makes no cluster."""
    member = shop["a-1"]
    shop.flash()
    member.card.zero()
    shop.power_on("a-1")
    shop.wait_until("its status", lambda: "state=stopped" in member.status(), timeout=STATUS)
    evidence(member.machine.console_tail(8))
    assert "the seed partition cannot be read" in member.machine.console()
    # The folders are made at every boot; a cluster would be files in them.
    assert not member.machine.succeed("find /var/lib/rancher/k3s/server -type f")
    assert member.machine.execute("systemctl is-active k3s.service").stdout.strip() == "inactive"


def test_bad_on_a_running_node(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A file with mistakes does not stop a node that ran once: the last good one is used; they are told."""
    member = shop["a-1"]
    shop.power_off("a-1")
    shop.flash("a-1", new_datastore=True)
    shop.power_on("a-1")
    shop.wait_ready("a-1", seen_by="a-1")
    uid = shop.uid("a-1")
    shop.power_off("a-1")
    text = member.card.read("node.yaml")
    member.card.write("node.yaml", text.replace("role: server", "role: srever"))
    shop.power_on("a-1")
    shop.wait_ready("a-1", seen_by="a-1")
    assert shop.uid("a-1") == uid
    notes = member.machine.succeed("cat /run/k3img/node.json")
    assert "srever" in notes
    assert "the last good one is" in notes
    evidence(notes)


def test_gone_on_a_running_node(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Nor does a partition that is gone altogether."""
    member = shop["a-1"]
    uid = shop.uid("a-1")
    shop.power_off("a-1")
    member.card.zero()
    shop.power_on("a-1")
    shop.wait_ready("a-1", seen_by="a-1")
    assert shop.uid("a-1") == uid
    notes = member.machine.succeed("cat /run/k3img/node.json")
    assert "the last good node.yaml is used" in notes
    evidence(notes)
