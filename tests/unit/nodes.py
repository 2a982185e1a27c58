"""A node's machine for tests: its programs answer what a test says, its clock moves when it sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k3img.device.system import Ended, System

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.device.place import Place


@dataclass
class FakeSystem(System):
    """`calls` are the programs that were started, `answers` what those that begin so answer."""

    place: Place
    boot: float = 10.0
    clock: float = 1_800_000_000.0
    address: str | None = "10.0.2.15"
    calls: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    poked: list[str] = field(default_factory=list)
    answers: dict[str, Ended] = field(default_factory=dict)

    def run(self, argv: Sequence[str], *, timeout: float = 90, path: str | None = None) -> Ended:
        self.calls.append(" ".join(argv))
        found = [answer for start, answer in self.answers.items() if self.calls[-1].startswith(start)]
        return found[0] if found else Ended(status=0)

    def now(self) -> float:
        return self.clock

    def since_boot(self) -> float:
        return self.boot

    def sleep(self, seconds: float) -> None:
        self.boot += seconds
        self.clock += seconds

    def poke(self, address: str) -> None:
        self.poked.append(address)

    def ipv4(self, interface: str) -> str | None:
        return self.address

    def log(self, text: str) -> None:
        self.logged.append(text)
