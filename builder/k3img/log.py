"""What a user sees while something runs: steps with seconds, notes, percentages. All of it on stderr.

On a terminal rich draws a spinner or a bar; elsewhere (CI, a pipe) plain lines are printed, one when a
step begins and one when it ends, so that a log shows where a hanging run hangs. Results never come
from here: they go to stdout, from `k3img.cli`.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.status import Status


def console() -> Console:
    """A console on today's stderr (tests and click replace the stream, so it is never kept)."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass
class Step:
    """A step that is running, or has run. `seconds` is final once the step has ended.

    `failed` is for one that came to its end but found something wrong.
    """

    title: str
    depth: int
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    failed: bool = False
    _status: Status | None = None
    _last: str = ""

    def note(self, text: str) -> None:
        """Say what the step is doing now. Repeating the same text prints nothing."""
        if text == self._last:
            return
        self._last = text
        if self._status is not None:
            self._status.update(f"{self.title}: {text}")
        else:
            line(f"{'  ' * (self.depth + 1)}{text} ({time.monotonic() - self.began:.0f} s)")


_running: list[Step] = []

QUIET = 2.0
"""Seconds between two lines of a progress in a log; one that ends before prints none."""


def line(text: str) -> None:
    """Print one plain line to stderr, above a running spinner if there is one."""
    live = next((s._status for s in _running if s._status is not None), None)  # noqa: SLF001 - same module
    if live is not None:
        live.console.print(text, markup=False)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the module that prints


def warning(text: str) -> None:
    """Say something that the user should know although the work goes on."""
    line(f"warning: {text}")


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Time one phase and show it. Steps may lie in one another; only the outermost has the spinner."""
    this = Step(title, depth=len(_running))
    out = console()
    if out.is_terminal and not _running:
        this._status = out.status(title)  # noqa: SLF001 - same module
        this._status.start()  # noqa: SLF001
    elif not out.is_terminal:
        line(f"{'  ' * this.depth}{title} ...")
    _running.append(this)
    mark = "✗"
    try:
        yield this
        mark = "✗" if this.failed else "✓"
    finally:
        this.seconds = time.monotonic() - this.began
        _running.remove(this)
        if this._status is not None:  # noqa: SLF001
            this._status.stop()  # noqa: SLF001
        line(f"{'  ' * this.depth}{mark} {title}  {this.seconds:.1f} s")


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far something of `total` bytes is. Yields `advance(bytes)`.

    Without a terminal a line is printed at each tenth, if the last one was `QUIET` seconds ago.
    """
    out = console()
    if out.is_terminal and not _running:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
        return
    done, shown, last = 0, 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, shown, last
        done += count
        tenth = done * 10 // total if total else 0
        if tenth > shown and time.monotonic() - last >= QUIET:
            shown, last = tenth, time.monotonic()
            note = f"{title}: {tenth * 10} % of {(total or 0) / 1e6:.0f} MB"
            if _running:
                _running[0].note(note)
            else:
                line(note)

    yield advance
