"""Bad node.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

STATUS = 90


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server."""
    return bed.cluster("shop", server("a-1", initializer=True))


def test_report(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A node.yaml with mistakes: the console and status.txt on the card name each, with its line."""
    member = shop["a-1"]
    shop.flash()
    good = member.card.read("node.yaml")
    member.card.write("node.yaml", good.replace("role: server", "role: srever"))
    shop.power_on("a-1")
    shop.wait_until("the report", lambda: "state=stopped" in member.status(), timeout=STATUS)
    shop.pause(60)  # status.txt is written once a state has lasted
    shop.power_off("a-1")
    text = member.card.read("status.txt")
    evidence(text)
    assert "srever" in text
    assert "node.yaml:" in text
    member.card.write("node.yaml", good)


def test_corrected(shop: LabCluster) -> None:
    """Corrected in a laptop, the same card boots and is Ready."""
    shop.power_on("a-1")
    shop.wait_ready("a-1", seen_by="a-1")


def test_wrong_network(bed: Bed, evidence: Callable[[object], None]) -> None:
    """An address in the wrong network: the status names it, the silent gateway, and the line."""
    wrong = bed.cluster("wrong", server("b-1", initializer=True))
    member = wrong["b-1"]
    wrong.flash()
    text = member.card.read("node.yaml")
    text = text.replace("address: dhcp", "address: 192.168.99.5/24\ngateway: 192.168.99.1")
    member.card.write("node.yaml", text)
    wrong.power_on("b-1")
    wrong.wait_until(
        "the status", lambda: "the gateway 192.168.99.1" in member.machine.console(), timeout=STATUS
    )
    evidence(member.machine.console_tail(12))
    assert "192.168.99.5" in member.machine.console()
    line = next(n for n, row in enumerate(text.splitlines(), 1) if row.startswith("gateway:"))
    assert f"node.yaml:{line}" in member.machine.console()
