"""Power cuts while joining."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import cuts
from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster, Member

LIMIT = 240

STARTING = 3
"""Seconds into k3s' first start, which takes 20 and more under emulation."""


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server, Ready, and an agent that was never on."""
    made = bed.cluster("shop", server("a-1", initializer=True), agent("a-2"))
    made.flash()
    made.power_on("a-1")
    made.wait_ready("a-1", seen_by="a-1")
    return made


def root_made(_shop: LabCluster, member: Member) -> bool:
    """systemd-repart has just made the root partition."""
    return cuts.has_root(member)


def secrets_leave(shop: LabCluster, member: Member) -> bool:
    """The token is no longer on the card: it was copied, and the erasing goes on."""
    return not cuts.has_token(shop, member)


def k3s_starts(_shop: LabCluster, member: Member) -> bool:
    """The server was found, and k3s is some seconds into its first start."""
    machine = member.machine
    said = [line.at for line in machine.console_lines() if "Lightweight Kubernetes (agent)" in line.text]
    return bool(said) and machine.now() - said[0] > STARTING


def joined(shop: LabCluster, member: Member) -> bool:
    """The Node has just appeared in the API."""
    return member.node.name in shop.listed("a-1")


def status_written(_shop: LabCluster, member: Member) -> bool:
    """status.txt has just got its first block: a node that gets Ready at once writes it when it is."""
    return member.card.contains(b"This file is overwritten by the node.")


POINTS = (root_made, secrets_leave, k3s_starts, joined, status_written)


@pytest.mark.parametrize("point", POINTS, ids=[point.__name__ for point in POINTS])
def test_cut(shop: LabCluster, point: Callable[[LabCluster, Member], bool]) -> None:
    """The power is cut at a point of the first boots."""
    assert not point(shop, shop["a-2"]), "this point lies behind it"
    cuts.cut(shop, "a-2", point, timeout=LIMIT)


def test_joined(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """In the end the node has joined, under its name, with all of its node.yaml."""
    shop.power_on("a-2")
    shop.wait_ready("a-1", "a-2", seen_by="a-1")
    assert set(shop.nodes("a-1")) == {"a-1", "a-2"}
    evidence(shop.told("a-2"))


def test_the_card_is_whole(shop: LabCluster) -> None:
    """Its partition is clean, node.yaml is as it was written, and no secret is on it any more."""
    member = shop["a-2"]
    shop.pause(30)  # status.txt
    # Switched off at once, it would be gone before it has answered.
    member.machine.succeed("(sleep 3; systemctl poweroff) >/dev/null 2>&1 &")
    assert member.machine.ended(180 * member.machine.stretch)
    shop.power_off("a-2")
    member.card.check()
    _, content = shop.give(member.node)
    written = member.card.read("node.yaml").splitlines()
    wanted = content["node.yaml"].decode().splitlines()
    assert [row for row in written if not row.startswith("issued")] == [
        row for row in wanted if not row.startswith("issued")
    ]
    for name, body in content.items():
        if name.startswith("secrets/"):
            assert not member.card.contains(body.strip()), name
