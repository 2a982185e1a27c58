"""From systemd's clock to seconds since power on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from k3img.verify import timeline
from k3img.verify.timeline import Kind
from k3img.vm.console import Line

if TYPE_CHECKING:
    from k3img.vm.machine import Machine

UNITS = """\
Id=k3s.service
InactiveExitTimestampMonotonic=30000000
ActiveEnterTimestampMonotonic=70000000

Id=dbus.service
InactiveExitTimestampMonotonic=29000000
ActiveEnterTimestampMonotonic=29100000

Id=k3img-firstboot.service
InactiveExitTimestampMonotonic=20000000
ActiveEnterTimestampMonotonic=20100000

Id=systemd-networkd.service
InactiveExitTimestampMonotonic=21000000
ActiveEnterTimestampMonotonic=22500000

Id=k3s-agent.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0

Id=k3img-test.service
InactiveExitTimestampMonotonic=20000000
ActiveEnterTimestampMonotonic=20000000

Id=k3img-health.service
InactiveExitTimestampMonotonic=71000000
ActiveEnterTimestampMonotonic=0
"""


class Fake:
    """A guest that answers the three questions, 100 s after power on."""

    def __init__(self, *, finish: int = 80_000_000, lines: tuple[Line, ...] = ()) -> None:
        self.finish = finish
        self.lines = lines

    def succeed(self, command: str, *, timeout: float = 60) -> str:
        if command.startswith("cat /proc/uptime"):
            return "92.50 12.00\n"
        if "*.service" in command:
            return UNITS
        return (
            "InitRDTimestampMonotonic=5000000\n"
            "UserspaceTimestampMonotonic=19000000\n"
            f"FinishTimestampMonotonic={self.finish}\n"
        )

    def console_lines(self) -> tuple[Line, ...]:
        return self.lines

    def now(self) -> float:
        return 1100.0


def spans(fake: Fake) -> dict[str, tuple[float, float]]:
    found = timeline.measure(cast("Machine", fake), since=1000.0)
    return {span.name: (span.start, span.end) for span in found}


def test_phases_follow_each_other() -> None:
    lines = (
        Line(at=950.0, text="BdsDxe: starting Boot0001 of an earlier boot"),
        Line(at=1004.0, text="BdsDxe: starting Boot0001 UEFI Misc Device"),
    )
    found = spans(Fake(lines=lines))
    assert found["firmware"] == (0, 4)
    assert found["boot loader"] == (4, 7.5)
    assert found["kernel"] == (7.5, 12.5)
    assert found["initrd"] == (12.5, 26.5)
    assert found["userspace"] == (26.5, 87.5)


def test_firmware_that_said_nothing() -> None:
    assert spans(Fake())["firmware and boot loader"] == (0, 7.5)


def test_boot_that_has_not_finished() -> None:
    assert spans(Fake(finish=0))["userspace"] == (26.5, 100)


def test_units_that_took_long_or_are_ours() -> None:
    found = timeline.measure(cast("Machine", Fake()), since=1000.0)
    units = [span for span in found if span.kind is Kind.UNIT]
    assert [span.name for span in units] == [
        "k3img-firstboot.service",
        "systemd-networkd.service",
        "k3s.service",
    ]
    assert units[2].start == pytest.approx(37.5)
    assert units[2].seconds == pytest.approx(40)
