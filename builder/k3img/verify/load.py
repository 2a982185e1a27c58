"""How busy processors were, from the first line of /proc/stat (proc_stat(5)): ticks since boot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_IDLE, _IOWAIT = 3, 4  # fields after the name


@dataclass(frozen=True)
class Ticks:
    """All ticks of all processors, and those without work."""

    total: int
    idle: int

    @classmethod
    def parse(cls, stat: str) -> Ticks:
        """From the text of /proc/stat."""
        fields = [int(word) for word in stat.splitlines()[0].split()[1:]]
        return cls(sum(fields), fields[_IDLE] + fields[_IOWAIT])

    def busy_since(self, earlier: Ticks) -> float:
        """The share of the time since then with work to do, 0 to 1."""
        return 1 - (self.idle - earlier.idle) / max(1, self.total - earlier.total)


def busy(seconds: float) -> float:
    """The share of the next seconds in which this host's processors have work to do."""
    before = Ticks.parse(Path("/proc/stat").read_text())
    time.sleep(seconds)
    return Ticks.parse(Path("/proc/stat").read_text()).busy_since(before)
