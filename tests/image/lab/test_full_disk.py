"""Full disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster

LARGE = 900_000
"""Bytes; the API takes a megabyte at most."""

FILL = "/var/lib/fill"
FILL_UP = f"fallocate -l $(df --output=avail -B1 / | tail -n 1) {FILL}; cat /dev/zero >> {FILL}"


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server, Ready."""
    made = bed.cluster("shop", server("a-1", initializer=True))
    made.flash()
    made.power_on("a-1")
    made.wait_ready("a-1", seen_by="a-1")
    return made


def test_full(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Root is filled to the last block: the API takes no more writes.

    Large ones, because sqlite has blocks that it can use again. kine 0.17 was seen to confirm writes that it
    had not stored, so what counts is whether they are there.
    """
    machine = shop["a-1"].machine
    machine.execute(FILL_UP, timeout=600)
    evidence(machine.succeed("df -h /"))
    shop.wait_until("a write to fail", lambda: not shop.answers("a-1", LARGE, timeout=30), timeout=120)
    shop.pause(60)


def test_space_again(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Space returns: writes are taken and the node is Ready, without anybody's help."""
    machine = shop["a-1"].machine
    uid = machine.succeed("cat /proc/sys/kernel/random/boot_id")
    machine.succeed(f"rm -f {FILL}")
    began = shop.now()
    shop.wait_until("a write", lambda: shop.answers("a-1"), timeout=180, evidence=shop.told)
    shop.wait_ready("a-1", seen_by="a-1", timeout=300)
    evidence(f"{shop.now() - began:.0f} s after the space returned")
    assert machine.succeed("cat /proc/sys/kernel/random/boot_id") == uid


def test_after_a_cut_while_full(shop: LabCluster) -> None:
    """A power cut on a full disk: it boots, and recovers once there is space."""
    machine = shop["a-1"].machine
    machine.execute(FILL_UP, timeout=600)
    shop.power_off("a-1")
    shop.power_on("a-1")
    shop.pause(60)
    machine.succeed(f"rm -f {FILL}")
    shop.wait_ready("a-1", seen_by="a-1", timeout=300)
    shop.wait_until("a write", lambda: shop.answers("a-1"), timeout=60)
