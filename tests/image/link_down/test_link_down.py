"""First boot without a network cable."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from k3img.verify.boot import Hardware
from k3img.vm.spec import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k3img.verify.life import Life
    from k3img.verify.plugin import VerifyPlugin

LINK_DOWN = 330
"""Seconds without a cable: longer than every limit of the image (systemd's 90 s, NTP's, health's 5 min).
Not stretched: the guest's timers follow the clock, however slow it is."""

READY_AFTER = 180
"""Seconds from plugging in to Ready."""


@pytest.fixture(scope="session")
def life(verify: VerifyPlugin) -> Iterator[Life]:
    """A machine whose cable is not plugged in."""
    with ExitStack() as stack:
        yield verify.open_life(stack, Hardware(network=Network(link=False)))


def test_boots(life: Life) -> None:
    """The image boots without a link."""
    life.power_on()


def test_says_so(life: Life, evidence: Callable[[object], None]) -> None:
    """The console says that there is no link, and on which interface."""
    found = life.machine.wait_for_console(r"no link on (\S+)", timeout=90)
    evidence(found[0])
    interfaces = life.machine.succeed("ls /sys/class/net").split()
    assert found[1].strip('",.') in interfaces


def test_waits(life: Life, evidence: Callable[[object], None]) -> None:
    """Without a link for longer than every limit, the machine does not restart and does not give up."""
    machine = life.machine
    boot = machine.channel.boot
    while machine.seconds() < LINK_DOWN:
        machine.check()
        machine.pause(2)
    assert machine.qmp.count("RESET") == 0
    assert machine.succeed("cat /proc/sys/kernel/random/boot_id").strip() == boot
    evidence(f"{machine.seconds():.0f} s without a link")


def test_nothing_failed(life: Life) -> None:
    """No unit has failed for want of a network."""
    assert life.machine.succeed("systemctl --failed --plain --no-legend") == ""


def test_status_on_medium(life: Life, evidence: Callable[[object], None]) -> None:
    """status.txt on the seed partition says it too."""
    text = life.machine.wait_until_succeeds(
        "mkdir -p /run/seed && mount -o ro /dev/disk/by-partlabel/K3IMG /run/seed"
        " && { cat /run/seed/status.txt; umount /run/seed; }",
        timeout=60,
    )
    evidence(text.strip())
    assert "no link on" in text


def test_plugged_in(life: Life, evidence: Callable[[object], None]) -> None:
    """Once the cable is plugged in, the node becomes Ready within three minutes (longer when emulated)."""
    machine = life.machine
    machine.plug()
    plugged = machine.now()
    boot = life.become_ready("cable plugged in", since=machine.powered_on)
    took = machine.now() - plugged
    evidence(f"Ready {took:.0f} s after plugging in ({boot.marks[-1].at:.0f} s after power on)")
    assert took <= READY_AFTER * machine.stretch
