"""No NTP."""

from __future__ import annotations

import datetime as dt
import re
import ssl
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from k3img.node.names import PORT
from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster, Member

NAMES = ("a-1", "a-2")
DAY = 86400
EPOCH = "1970-01-01T00:00:00"
IMAGE_AGE = 400
JUMP = 300


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and an agent whose battery clocks begin in 1970; nobody tells them the time."""
    return bed.cluster("shop", server("a-1", initializer=True), agent("a-2"), rtc=EPOCH)


def clock(member: Member) -> int:
    """The node's time, in Unix seconds."""
    return int(member.machine.succeed("date +%s"))


def certificate(member: Member) -> x509.Certificate:
    """What a server shows."""
    return x509.load_pem_x509_certificate(
        ssl.get_server_certificate((member.lease.address, PORT), timeout=20).encode()
    )


def test_join(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """With an image that is 400 days older than the seed they begin at the seed's time, and join."""
    issued = int(time.time()) + IMAGE_AGE * DAY

    def later(files: dict[str, bytes]) -> dict[str, bytes]:
        when = f'issued: "{dt.datetime.fromtimestamp(issued, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"'.encode()
        text, count = re.subn(rb'issued: "[^"]*"', when, files["node.yaml"])
        assert count == 1
        return files | {"node.yaml": text}

    shop.flash(change=later)
    shop.power_on(*NAMES)
    shop.wait_ready(*NAMES, seen_by="a-1")
    times = {name: clock(shop[name]) for name in NAMES}
    evidence(f"the seed is of {issued}, the clocks are {times}")
    assert all(issued <= now < issued + DAY for now in times.values())


def test_a_clock_that_jumps(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """The right time comes, 300 days later: certificates are renewed, and nobody is locked out."""
    before = certificate(shop["a-1"])
    for name in NAMES:
        machine = shop[name].machine
        machine.succeed(f"date -s @$(( $(date +%s) + {JUMP * DAY} ))")
    now = clock(shop["a-1"])
    shop.wait_until(
        "the server to renew its certificate",
        lambda: _ends(shop["a-1"]) > now + 90 * DAY,
        timeout=120,
        evidence=shop.told,
    )
    shop.wait_until(
        "the agent to report in the new time",
        lambda: (at := shop.reported("a-2", seen_by="a-1")) is not None and at.timestamp() > now,
        timeout=180,
        evidence=shop.told,
    )
    shop.wait_ready(*NAMES, seen_by="a-1")
    shop.wait_until("a write", lambda: shop.answers("a-1"), timeout=60)
    after = certificate(shop["a-1"])
    evidence(f"the certificate ended {before.not_valid_after_utc}, and ends {after.not_valid_after_utc}")


def _ends(member: Member) -> float:
    try:
        return certificate(member).not_valid_after_utc.timestamp()
    except OSError:
        return 0.0  # k3s is restarting


def test_the_time_comes_late(bed: Bed, evidence: Callable[[object], None]) -> None:
    """A server that began without the time takes it when NTP answers, and stays Ready."""
    late = bed.cluster("late", server("b-1", initializer=True), rtc=EPOCH)
    late.flash()
    late.power_on("b-1")
    late.wait_ready("b-1", seen_by="b-1")
    machine = late["b-1"].machine
    machine.fail("test -e /run/systemd/timesync/synchronized")
    bed.network.serve_time()
    machine.succeed("systemctl restart systemd-timesyncd")  # it asks again after minutes, each time later
    late.wait_until(
        "the time",
        lambda: machine.execute("test -e /run/systemd/timesync/synchronized").rc == 0,
        timeout=120,
        evidence=lambda: machine.journal("systemd-timesyncd.service", lines=12),
    )
    off = abs(clock(late["b-1"]) - time.time())
    evidence(f"{off:.0f} s off")
    assert off < 30
    late.wait_ready("b-1", seen_by="b-1")
