"""Reflash agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

NAMES = ("a-1", "a-2")


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and an agent."""
    return bed.cluster("shop", server("a-1", initializer=True), agent("a-2"))


def test_ready(shop: LabCluster) -> None:
    """A server and an agent become Ready."""
    shop.flash()
    shop.power_on(*NAMES)
    shop.wait_ready(*NAMES, seen_by="a-1")


def test_reflashed(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The agent's medium is written anew: it joins under its name, and nobody deletes its Node."""
    before = shop.nodes("a-1")["a-2"]["metadata"]["uid"]
    identity = shop["a-2"].machine.succeed("cat /etc/machine-id")
    shop.power_off("a-2")
    (gift,) = shop.flash("a-2")
    assert gift.asks == ("--replace",)
    shop.power_on("a-2")
    seconds = shop.wait_ready("a-2", seen_by="a-1")
    assert shop["a-2"].machine.succeed("cat /etc/machine-id") != identity
    assert shop.nodes("a-1")["a-2"]["metadata"]["uid"] == before
    assert set(shop.nodes("a-1")) == set(NAMES)
    evidence(f"Ready {seconds:.0f} s after power on\n{shop.told('a-2')}")
