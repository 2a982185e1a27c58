"""Reflash agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.cluster import store
from k3img.cluster.api import takes_in
from k3img.node.names import PORT, server_name
from k3img.verify.lab import agent, server
from k3img.verify.laptop import Laptop

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


def test_new_tokens(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """`k3img cluster rotate-token`: the server takes nodes in by the new token alone, and both come back."""
    old = shop.kept.secrets
    told = Laptop(shop).k3img("cluster rotate-token", "--timeout", "1200", timeout=2400)
    evidence(told)
    assert "all have them" in told
    found = store.load(shop.kept.folder)
    assert found is not None
    shop.kept = found
    shop.bed.secrets |= {f"{what}, rotated": value for what, value in shop.secrets().items()}
    address, name = shop["a-1"].lease.address, server_name(shop.cluster.name)
    ca = old.authorities["server-ca"].certificate
    asked = [
        takes_in(address, PORT, name=name, ca=ca, token=secrets.agent_token)
        for secrets in (old, shop.kept.secrets)
    ]
    assert asked == [False, True]
    shop.power_off(*NAMES)
    shop.power_on(*NAMES)
    shop.wait_ready(*NAMES, seen_by="a-1")


def test_reflashed_after_that(shop: LabCluster) -> None:
    """The agent's medium is written anew with the new token: it joins under its name once more."""
    before = shop.nodes("a-1")["a-2"]["metadata"]["uid"]
    shop.power_off("a-2")
    shop.flash("a-2")
    shop.power_on("a-2")
    shop.wait_ready("a-2", seen_by="a-1")
    assert shop.nodes("a-1")["a-2"]["metadata"]["uid"] == before
