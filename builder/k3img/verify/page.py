"""The report as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

It is opened from a CI system's artifacts, often on a phone, by somebody who wants to know what broke: so
failures and their evidence come first, then where the seconds went, then everything else, folded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from k3img.verify.report import Outcome
from k3img.verify.timeline import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.verify.report import Check, ConsoleLine, Report
    from k3img.verify.timeline import Boot, Mark

KEPT_LINES = 4000
"""Lines of console in the page: the first and the last half of them."""

WORDS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.ERROR: "could not run",
    Outcome.SKIPPED: "skipped",
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a chart; `left` and `width` in percent of the chart."""

    name: str
    style: str
    left: str
    width: str
    seconds: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A vertical line of a chart: a moment, or a tick of the axis. `flip`: its text goes to its left."""

    name: str
    left: str
    flip: bool = False
    row: int = 0


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One boot, drawn."""

    name: str
    phases: tuple[Bar, ...]
    units: tuple[Bar, ...]
    ticks: tuple[Line, ...]
    marks: tuple[Line, ...]
    mark_rows: int
    summary: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Checks that belong together."""

    name: str
    checks: tuple[Check, ...]

    @property
    def count(self) -> str:
        """`12` when all passed, `11 of 12` when not."""
        passed, asked = (
            sum(check.ok for check in self.checks),
            sum(check.outcome is not Outcome.SKIPPED for check in self.checks),
        )
        return str(passed) if passed == asked else f"{passed} of {asked}"


def to_html(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("k3img.verify"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scale = max((boot.seconds for boot in report.timeline), default=0.0)
    return environment.get_template("report.html.j2").render(
        report=report,
        words=WORDS,
        bad=[check for check in report.checks if check.outcome in (Outcome.FAILED, Outcome.ERROR)],
        groups=_groups(report.checks),
        charts=[chart(boot, scale) for boot in report.timeline],
        kinds=[kind for kind in Kind if kind is not Kind.UNIT],
        lives=_console(report.console),
        took=duration(report.seconds),
        began=report.began.replace("T", " ").replace("+00:00", " UTC"),
    )


def chart(boot: Boot, scale: float) -> Chart:
    """A boot as rows and lines, on an axis of `scale` seconds that all boots of a report share."""
    step = _tick(scale)
    end = max(step, math.ceil(scale / step) * step)

    def percent(seconds: float) -> str:
        return f"{min(max(seconds / end, 0), 1) * 100:.2f}"

    bars = [
        Bar(
            name=span.name,
            style=span.kind.name.lower(),
            left=percent(span.start),
            width=percent(span.seconds),
            seconds=f"{span.seconds:.1f} s",
            title=f"{span.name}: from {span.start:.1f} s to {span.end:.1f} s",
        )
        for span in boot.spans
    ]
    marks = _marks(boot.marks, end)
    return Chart(
        name=boot.name,
        phases=tuple(bar for bar in bars if bar.style != "unit"),
        units=tuple(bar for bar in bars if bar.style == "unit"),
        ticks=tuple(
            Line(name=f"{number * step} s", left=percent(number * step)) for number in range(end // step + 1)
        ),
        marks=marks,
        mark_rows=max((mark.row for mark in marks), default=-1) + 1,
        summary=", ".join(f"{mark.name} {mark.at:.0f} s" for mark in boot.marks),
    )


def _marks(marks: Sequence[Mark], end: int) -> tuple[Line, ...]:
    """Moments in rows of their own, so that no name covers another.

    A line starts at its name; the latest is on top where names stand left of their lines, so none is crossed.
    """
    right = sorted((mark for mark in marks if mark.at <= end / 2), key=lambda mark: mark.at)
    left = sorted((mark for mark in marks if mark.at > end / 2), key=lambda mark: -mark.at)
    return tuple(
        Line(
            name=f"{mark.name} {mark.at:.1f} s",
            left=f"{min(mark.at / end, 1) * 100:.2f}",
            flip=row < len(left),
            row=row,
        )
        for row, mark in enumerate((*left, *right))
    )


def _tick(scale: float) -> int:
    """Seconds between two lines of the axis: a round number that gives at most six."""
    return next((step for step in (1, 2, 5, 10, 15, 30, 60, 120, 300) if scale / step <= 6), 600)


def _groups(checks: Sequence[Check]) -> tuple[Group, ...]:
    names = dict.fromkeys(check.group for check in checks)
    return tuple(
        Group(name=name, checks=tuple(check for check in checks if check.group == name)) for name in names
    )


def _console(lines: Sequence[ConsoleLine]) -> list[tuple[int, str]]:
    """For each power on: its number from 1, and its console as text."""
    half = KEPT_LINES // 2
    kept = list(lines)
    cut = len(kept) - KEPT_LINES
    found: dict[int, list[str]] = {}
    for number, entry in enumerate(kept):
        if cut > 0 and half <= number < half + cut:
            if number == half:
                found.setdefault(entry.life, []).append(f"[... {cut} lines left out ...]")
            continue
        found.setdefault(entry.life, []).append(f"{entry.at:8.1f}  {entry.text}")
    return [(life + 1, "\n".join(text)) for life, text in found.items()]


def duration(seconds: float) -> str:
    """`4 min 12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
