"""The serial console's log, followed while the machine runs: each line with the host's time.

QEMU writes the log itself, so nothing is lost when nobody looks; here it only gets its times.
"""

from __future__ import annotations

import codecs
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

EVERY = 0.1
"""Seconds between two looks: how exact a line's time is."""

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][A-Z0-9]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[=>78cM])"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)


# `[ ***  ] (1 of 3) Job k3s.service/start running (12s / no limit)`, twice a second.
_STAR = re.compile(r"\[[ *]{6}\] .*\((\d+(h|min|s|d) ?)+ / ")


def plain(text: str) -> str:
    """Console output without escape sequences and control characters, one line feed for each line's end."""
    return _ESCAPES.sub("", re.sub(r"\r+\n", "\n", text).replace("\r", "\n"))


def told(text: str) -> list[str]:
    """The lines of plain console output that say something: no empty ones, and not systemd's moving star."""
    return [line for line in text.split("\n") if line.strip() and not _STAR.match(line)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the console; `at` is when its first part was seen (time.monotonic())."""

    at: float
    text: str


class ConsoleLog:
    """Follows a console's log from its present end on. A context manager; it owns a small thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._open = ""  # a line whose end has not come yet
        self._opened_at = 0.0
        # A character that was cut in two by our look must not become two wrong ones.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look()

    def lines(self) -> tuple[Line, ...]:
        """All lines so far, the unfinished one included."""
        with self._lock:
            rest = (Line(at=self._opened_at, text=plain(self._open)),) if self._open else ()
            return (*self._lines, *rest)

    def look(self) -> None:
        """Read what is new."""
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                new = log.read()
        except FileNotFoundError:
            return
        if not new:
            return
        with self._lock:
            self._offset += len(new)
            now = time.monotonic()
            if not self._open:
                self._opened_at = now
            *whole, rest = (self._open + self._decoder.decode(new)).split("\n")
            for text in whole:
                self._lines += [Line(at=self._opened_at, text=part) for part in told(plain(text))]
                self._opened_at = now
            self._open = rest

    def _follow(self) -> None:
        while not self._stop.wait(EVERY):
            self.look()
