"""Reflash only server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2", "a-3")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server on sqlite and two agents, Ready."""
    made = bed.cluster("shop", server("a-1", initializer=True), agent("a-2"), agent("a-3"))
    made.flash()
    made.power_on(*NAMES)
    made.wait_ready(*NAMES, seen_by="a-1")
    return made


def test_says_what_is_lost(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Flashing the only server says that the datastore goes with the card, and asks for it."""
    gift, _ = shop.give(shop["a-1"].node, new_datastore=True)
    assert gift.asks == ("--replace", "--new-datastore")
    assert any("goes with the old card" in text for text in gift.says)
    evidence("\n".join(gift.says))


def test_agents_come_back(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The server's medium is written anew: the agents, which nobody touched, are Ready in the new cluster."""
    before = shop.uid("a-1")
    shop.power_off("a-1")
    shop.flash("a-1", new_datastore=True)
    shop.power_on("a-1")
    shop.wait_ready(*NAMES, seen_by="a-1", timeout=240)
    # The API was reached by the kubeconfig that was made before the first power on.
    assert shop.uid("a-1") != before
    assert set(shop.nodes("a-1")) == set(NAMES)
    evidence(shop.told())
