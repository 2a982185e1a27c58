"""What a test says to a machine: succeed, fail, wait for a unit, for a line on the console.

Every wait has a subject, a deadline and evidence. The logic needs only the four abstract methods, so
it is tested without a machine, and a real board could stand in for QEMU.
"""

from __future__ import annotations

import re
import shlex
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

from k3img.errors import K3imgError
from k3img.log import step
from k3img.vm.channel import ChannelTimeoutError, Result
from k3img.vm.console import told
from k3img.vm.faults import CommandError, MachineError, WaitError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

KEPT_LINES = 40
"""Lines of console and journal that evidence carries."""


class Waits(ABC):
    """Waiting for something of one or of several machines. `stretch` multiplies time-outs (1 with KVM)."""

    stretch: float = 1.0

    @abstractmethod
    def console(self) -> str:
        """All that the serial console said so far, as plain text."""

    @abstractmethod
    def check(self) -> None:
        """Raise `MachineError` when a machine is no longer there."""

    def now(self) -> float:
        """Seconds on a clock that only runs forward."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def wait_until(
        self,
        subject: str,
        probe: Callable[[], T | None],
        *,
        timeout: float,
        every: float = 1.0,
        evidence: Callable[[], str] | None = None,
    ) -> T:
        """Call `probe` until it returns something true, and return that.

        Raises `WaitError` after `timeout` (stretched) seconds, with `evidence` and the console's tail.
        """
        limit = timeout * self.stretch
        deadline = self.now() + limit
        with step(f"Waiting for {subject}"):
            while True:
                self.check()
                found = probe()
                if found:
                    return found
                if self.now() >= deadline:
                    raise WaitError(
                        f"waited {limit:.0f} s in vain for {subject}", details=self.evidence(evidence)
                    )
                self.pause(every)

    def console_tail(self, lines: int = KEPT_LINES) -> str:
        """The last lines of the console."""
        return "\n".join(told(self.console())[-lines:])

    def evidence(self, more: Callable[[], str] | None = None) -> str:
        """What helps to understand a failure. Never raises: the failure itself matters more."""
        parts = []
        if more is not None:
            try:
                parts.append(more())
            except K3imgError as error:
                parts.append(f"(no further evidence: {error.brief})")
        try:
            parts.append(f"--- the console's last lines ---\n{self.console_tail()}")
        except OSError as error:
            parts.append(f"(no console: {error})")
        return "\n".join(part for part in parts if part)


class Verbs(Waits):
    """A machine that a test can talk to."""

    @abstractmethod
    def execute(self, command: str, *, timeout: float = 60) -> Result:
        """Run a shell command in the guest, whatever its exit status; it may take `timeout` (stretched).

        Raises `MachineError` when the guest does not answer.
        """

    def succeed(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that has to end with 0; returns its standard output."""
        result = self.execute(command, timeout=timeout)
        if not result.ok:
            raise CommandError(f"command failed in the guest: {_short(command)}", details=str(result))
        return result.stdout

    def fail(self, command: str, *, timeout: float = 60) -> str:
        """Run a command that must not end with 0; returns its standard output."""
        result = self.execute(command, timeout=timeout)
        if result.ok:
            raise CommandError(f"command succeeded but must not: {_short(command)}", details=str(result))
        return result.stdout

    def wait_until_succeeds(self, command: str, *, timeout: float = 120, subject: str = "") -> str:
        """Repeat a command until it ends with 0; returns its standard output."""
        last: list[Result] = []

        def probe() -> Result | None:
            last[:] = [self.execute(command, timeout=timeout)]
            return last[0] if last[0].ok else None

        return self.wait_until(
            subject or f"success of `{_short(command)}`",
            probe,
            timeout=timeout,
            evidence=lambda: str(last[0]) if last else "",
        ).stdout

    def wait_for_unit(self, unit: str, *, timeout: float = 120) -> None:
        """Wait until a unit is active. Gives up at once when it has failed, or is inactive with no job."""
        query = f"systemctl show --property=ActiveState,Job {shlex.quote(unit)}"

        def probe() -> bool:
            state = dict(line.split("=", 1) for line in self.succeed(query).splitlines() if "=" in line)
            now, job = state.get("ActiveState", "unknown"), state.get("Job", "")
            if now == "failed" or (now in ("inactive", "unknown") and not job):
                # A job may have ended between two looks: systemd answers consistently, so this is the end.
                raise WaitError(f"{unit} is {now}", details=self.evidence(lambda: self.journal(unit)))
            return now == "active"

        self.wait_until(unit, probe, timeout=timeout, evidence=lambda: self.journal(unit))

    def wait_for_console(self, pattern: str, *, timeout: float = 120, after: int = 0) -> re.Match[str]:
        """Wait until the console, from character `after` on, matches a regular expression."""
        wanted = re.compile(pattern, re.MULTILINE)
        return self.wait_until(
            f"{pattern!r} on the console",
            lambda: wanted.search(self.console(), after),
            timeout=timeout,
            every=0.3,
        )

    def journal(self, unit: str, lines: int = KEPT_LINES) -> str:
        """The end of a unit's journal; says why when it cannot be had."""
        command = f"journalctl --no-pager -o short-monotonic -n {lines} -u {shlex.quote(unit)}"
        return str(self.execute(command, timeout=30))


def with_console(error: MachineError, machine: Verbs) -> MachineError:
    """The same error, with the console's tail as evidence."""
    kind = ChannelTimeoutError if isinstance(error, ChannelTimeoutError) else MachineError
    details = "\n".join(text for text in (error.details, machine.evidence()) if text)
    return kind(error.brief, details=details, hint=error.hint)


def _short(command: str, limit: int = 120) -> str:
    line = " ".join(command.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
