"""Rows of ci/bench: a number, its goal, and the measurements behind it."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ci import full
from ci.steps import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUT = full.ROOT / "out/bench"
FAST = ("--set", "image.compression=fast")
SMALL = ("--set", "image.compression=small")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A number, the goal that it should not exceed, and the single measurements behind it."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    samples: tuple[float, ...] = ()
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        return None if self.goal is None else self.value <= self.goal


@dataclass
class Samples:
    """Seconds of several runs of several things, taken in turn."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self, name: str, action: Callable[[], object]) -> None:
        """Time one run."""
        say(f"\n== {name}, run {len(self.seconds.get(name, [])) + 1}")
        began = time.monotonic()
        action()
        self.seconds.setdefault(name, []).append(round(time.monotonic() - began, 1))

    def row(self, name: str, *, goal: float | None = None, note: str = "") -> Row:
        """The median of a thing's runs."""
        taken = self.seconds[name]
        return Row(
            name=name, value=statistics.median(taken), unit="s", goal=goal, samples=tuple(taken), note=note
        )


def packed(manifest: dict[str, Any]) -> int:
    """Bytes of the compressed image."""
    return int(next(item["size"] for name, item in manifest["files"].items() if name.endswith(".raw.zst")))


def megabytes(name: str, size: float, *, goal: float | None = None, note: str = "") -> Row:
    """A size, in MB of 1000000 bytes."""
    return Row(name=name, value=round(size / 1e6, 1), unit="MB", goal=goal, note=note)


def in_words(seconds: dict[str, float]) -> str:
    """Phases of a build, those that took a second or more."""
    return ", ".join(f"{title} {count:.0f}" for title, count in seconds.items() if count >= 1)


def table(rows: Sequence[Row]) -> list[str]:
    """The numbers for people."""
    lines = [f"{'':42}{'value':>9}      {'goal':>6}"]
    for row in rows:
        digits = 2 if row.unit == "x" else 1
        goal = "" if row.goal is None else f"{row.goal:g}"
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        text = f"{row.name:42}{row.value:9.{digits}f} {row.unit:4} {goal:>6}  {met}"
        lines.append(text.rstrip())
        each = ", ".join(f"{sample:g}" for sample in row.samples) if len(row.samples) > 1 else ""
        lines += [f"    {part}" for part in (each and f"each: {each}", row.note) if part]
    return lines
