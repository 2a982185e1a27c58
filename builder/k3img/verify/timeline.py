"""Where the seconds of a boot went, in host seconds since power on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from k3img.vm.console import Line
    from k3img.vm.machine import Machine

LONGEST = 8
"""So many units are drawn besides ours: those that took longest."""

SHORTEST = 0.4
"""A unit that took fewer seconds is not drawn, unless it is one of ours."""

OURS = re.compile(r"^(k3s|k3img-)")
NOT_OURS = re.compile(r"^k3img-test\.service$")

# edk2's boot manager says so on every console when it starts what it found.
_LOADER_STARTS = re.compile(r"BdsDxe: starting Boot")


class Kind(StrEnum):
    """What a span belongs to; the page has a colour for each."""

    FIRMWARE = "firmware"
    LOADER = "boot loader"
    KERNEL = "kernel"
    INITRD = "initrd"
    USERSPACE = "userspace"
    UNIT = "unit"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Something that took from `start` to `end`, in seconds since power on."""

    name: str
    kind: Kind
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A moment that somebody waits for: `node Ready`."""

    name: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Boot:
    """One boot. `reset_at` is when the machine was reset in seconds since power on: 0 for a power on."""

    name: str
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def seconds(self) -> float:
        """When the last thing ended."""
        return max((*(span.end for span in self.spans), *(mark.at for mark in self.marks)), default=0.0)


_MANAGER = "InitRDTimestampMonotonic UserspaceTimestampMonotonic FinishTimestampMonotonic".split()
_UNIT = "Id InactiveExitTimestampMonotonic ActiveEnterTimestampMonotonic".split()


def measure(machine: Machine, *, since: float) -> tuple[Span, ...]:
    """The spans of the boot that runs now. `since` is when it began (`machine.now()`).

    Firmware and boot loader leave no times in the guest when it is emulated, so the host's clock joins
    both: what the guest's uptime is now tells when its kernel began.
    """
    manager = _properties(machine.succeed(f"systemctl show -p {','.join(_MANAGER)}"))
    units = machine.succeed(f"systemctl show -p {','.join(_UNIT)} '*.service'", timeout=120)
    uptime = float(machine.succeed("cat /proc/uptime").split()[0])
    kernel = machine.now() - since - uptime
    finish = _microseconds(manager.get("FinishTimestampMonotonic"))
    return (
        *_before(machine.console_lines(), since, kernel),
        *_phases(manager, kernel, kernel + (finish or uptime)),
        *_services(units, kernel),
    )


def _before(lines: Iterable[Line], since: float, kernel: float) -> tuple[Span, ...]:
    """Firmware and boot loader."""
    loader = next(
        (line.at - since for line in lines if line.at >= since and _LOADER_STARTS.search(line.text)), None
    )
    if loader is None or not 0 < loader < kernel:
        return (Span(name="firmware and boot loader", kind=Kind.FIRMWARE, start=0, end=kernel),)
    return (
        Span(name="firmware", kind=Kind.FIRMWARE, start=0, end=loader),
        Span(name="boot loader", kind=Kind.LOADER, start=loader, end=kernel),
    )


def _phases(manager: dict[str, str], kernel: float, end: float) -> tuple[Span, ...]:
    """Kernel, initrd and userspace, one after the other."""
    initrd = _microseconds(manager.get("InitRDTimestampMonotonic"))
    userspace = _microseconds(manager.get("UserspaceTimestampMonotonic"))
    borders = [(Kind.KERNEL, kernel)]
    if initrd:
        borders.append((Kind.INITRD, kernel + initrd))
    if userspace:
        borders.append((Kind.USERSPACE, kernel + userspace))
    ends = [start for _, start in borders[1:]] + [end]
    return tuple(
        Span(name=str(kind), kind=kind, start=start, end=stop)
        for (kind, start), stop in zip(borders, ends, strict=True)
    )


def _services(text: str, kernel: float) -> tuple[Span, ...]:
    """The units whose start took longest, and ours, in the order in which they began."""
    ours, others = [], []
    for block in text.split("\n\n"):
        unit = _properties(block)
        name = unit.get("Id", "")
        begin = _microseconds(unit.get("InactiveExitTimestampMonotonic"))
        active = _microseconds(unit.get("ActiveEnterTimestampMonotonic"))
        if not begin or not active or active < begin or NOT_OURS.search(name):
            continue
        span = Span(name=name, kind=Kind.UNIT, start=kernel + begin, end=kernel + active)
        if OURS.search(name):
            ours.append(span)
        elif span.seconds >= SHORTEST:
            others.append(span)
    longest = sorted(others, key=lambda span: -span.seconds)[:LONGEST]
    return tuple(sorted((*ours, *longest), key=lambda span: span.start))


def _properties(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _microseconds(text: str | None) -> float | None:
    """Seconds; None for systemd's 0, which means never."""
    return int(text) / 1e6 if text and text.isdigit() and int(text) else None


def as_text(boots: Sequence[Boot]) -> str:
    """The moments of every boot, a line each, for the terminal."""
    lines = []
    for boot in boots:
        phases = [f"{s.name} {s.seconds:.0f} s" for s in boot.spans if s.kind is not Kind.UNIT]
        marks = [f"{mark.name} at {mark.at:.0f} s" for mark in boot.marks]
        lines.append(f"{boot.name}: {', '.join([*phases, *marks])}")
    return "\n".join(lines)
