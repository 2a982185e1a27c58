"""A program beside us (QEMU, a DHCP server), ended with us. Nobody else starts one that outlives a call."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

from k3img.proc import clean_environment, quoted, which
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEPT_BYTES = 4000
"""Bytes of a program's own messages that an error carries."""


class Child:
    """A running program. `log` gets its command line and all that it prints (warnings, why it ended)."""

    def __init__(self, argv: Sequence[str], *, log: Path, cwd: Path, name: str = "QEMU") -> None:
        self.log = log
        self.name = name
        with log.open("ab") as sink:
            sink.write(f"+ {quoted(argv)}\n".encode())
            sink.flush()
            self._process = subprocess.Popen(  # ended by stop(), which its owner's ExitStack calls
                [*dies_with_us(), *argv],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=cwd,
                env=clean_environment(),
                # Its own session: Ctrl-C at the terminal is for us, and we end it in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it has ended, and badly."""
        return self._process.poll() not in (None, 0)

    def check(self) -> None:
        """Raise `MachineError`, with its last words, when it has ended."""
        status = self._process.poll()
        if status is not None:
            how = f"exit status {status}" if status >= 0 else f"signal {-status}"
            raise MachineError(f"{self.name} ended by itself ({how})", details=self.messages())

    def messages(self) -> str:
        """The last of what it printed."""
        return self.log.read_bytes()[-KEPT_BYTES:].decode(errors="replace").strip()

    def wait_until_ended(self, timeout: float) -> bool:
        """Whether it ends within `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def hang_up(self) -> None:
        """Tell it to read its configuration again (SIGHUP)."""
        self._process.send_signal(signal.SIGHUP)

    def interrupt(self) -> None:
        """End it by SIGINT, for programs that take SIGTERM as less urgent. Does nothing when it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            if not self.wait_until_ended(10):
                self.kill()

    def kill(self) -> None:
        """End it as a power cut would: what it had not handed to the kernel is lost."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it by its id, politely first. Does nothing when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            if not self.wait_until_ended(10):
                self.kill()


def dies_with_us() -> tuple[str, ...]:
    """A prefix that makes the kernel end it when we are killed without a chance to do so ourselves."""
    # setpriv (util-linux) instead of preexec_fn: no Python between fork and exec, we may have threads.
    setpriv = which("setpriv")
    return (str(setpriv), "--pdeathsig", "KILL", "--") if setpriv else ()


def wait_for_socket(path: Path, child: Child, *, timeout: float = 30) -> None:
    """Return once a program has made a socket; raise `MachineError` when it ends first, or is too slow."""
    deadline = time.monotonic() + timeout
    while not path.exists():
        child.check()
        if time.monotonic() > deadline:
            raise MachineError(
                f"{child.name} made no socket {path} within {timeout:.0f} s", details=child.messages()
            )
        time.sleep(0.02)
