"""QEMU's control socket: power, cables, events. A small synchronous face over `qemu.qmp`."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from qemu.qmp import ConnectError, QMPClient, QMPError

from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

T = TypeVar("T")

ATTEMPTS, PAUSE = 100, 0.05
"""On a busy host there was a moment between a socket's bind and its listen."""

# The library logs each closed connection as an error; what matters is in our exceptions.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

# A line of `info usernet`: `TCP[HOST_FORWARD]  13  127.0.0.1 40123  10.0.2.15  6443  0  0`
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that QEMU reported: `RESET`, `SHUTDOWN`, `WATCHDOG` ...; `seconds` is Unix time."""

    name: str
    data: dict[str, Any]
    seconds: float


class Qmp:
    """A connection to one QEMU. Every method raises `MachineError` when QEMU is gone or refuses."""

    def __init__(self, socket: Path, *, timeout: float = 30) -> None:
        self._timeout = timeout
        # A loop of our own, run only inside a call: whoever uses us needs no event loop.
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("k3img")
        self._events: list[Event] = []
        try:
            self._sync(self._connect(str(socket)), "connect")
        except MachineError:
            self._loop.close()
            raise

    async def _connect(self, socket: str) -> None:
        """Connect to a socket that QEMU has named and may not listen on yet."""
        for _ in range(ATTEMPTS - 1):
            try:
                await self._client.connect(socket)
            except ConnectError as error:
                if not isinstance(error.exc, ConnectionRefusedError):
                    raise
                await asyncio.sleep(PAUSE)
            else:
                return
        await self._client.connect(socket)

    def command(self, name: str, /, **arguments: Any) -> Any:
        """Run one QMP command and return its answer."""
        return self._sync(self._client.execute(name, arguments), name)

    def resume(self) -> None:
        """Start a paused machine; for a machine made with `-S` this is power on."""
        self.command("cont")

    def status(self) -> str:
        """`running`, `paused`, `shutdown` ..."""
        return str(self.command("query-status")["status"])

    def version(self) -> str:
        """QEMU's version, such as `10.0.13`."""
        number = self.command("query-version")["qemu"]
        return f"{number['major']}.{number['minor']}.{number['micro']}"

    def kvm(self) -> bool:
        """Whether KVM runs the guest."""
        return bool(self.command("query-kvm")["enabled"])

    def link(self, *, up: bool, device: str = "nic0") -> None:
        """Plug the network cable in, or pull it."""
        self.command("set_link", name=device, up=up)

    def press_power(self) -> None:
        """Press the power button (ACPI): the guest shuts down if it listens."""
        self.command("system_powerdown")

    def reset(self) -> None:
        """Press the reset button."""
        self.command("system_reset")

    def quit(self) -> None:
        """Tell QEMU to end at once; the guest is not asked."""
        # QEMU may close the socket before its answer is read.
        with suppress(MachineError):
            self.command("quit")

    def forwarded(self) -> dict[int, int]:
        """Guest port to the port on 127.0.0.1 that QEMU chose for it."""
        text = str(self.command("human-monitor-command", **{"command-line": "info usernet"}))
        return {int(guest): int(host) for host, guest in _FORWARD.findall(text)}

    def write_byte(self, node: str, offset: int, value: int) -> None:
        """Write one byte to a disk that no guest uses; `node` is its medium's name."""
        line = f'qemu-io {node} "write -q -P {value} {offset} 1"'
        # The monitor prints nothing when it worked, and has no other way to say that it did not.
        answer = str(self.command("human-monitor-command", **{"command-line": line})).strip()
        if answer:
            raise MachineError(f"byte {offset} of {node} cannot be written: {answer}")

    def events(self) -> tuple[Event, ...]:
        """Everything that happened since power on, oldest first."""
        with suppress(MachineError):  # what was heard before the socket closed still counts
            self._sync(asyncio.sleep(0.01), "events")
        for message in self._client.events.clear():
            heard: dict[str, Any] = dict(message)
            at = heard["timestamp"]
            self._events.append(
                Event(
                    name=str(heard["event"]),
                    data=dict(heard.get("data", {})),
                    seconds=at["seconds"] + at["microseconds"] / 1e6,
                )
            )
        return tuple(self._events)

    def count(self, name: str) -> int:
        """How often an event was seen."""
        return sum(event.name == name for event in self.events())

    def close(self) -> None:
        """Hang up; QEMU goes on."""
        with suppress(MachineError):
            self._sync(self._client.disconnect(), "disconnect")
        self._loop.close()

    def _sync(self, work: Coroutine[Any, Any, T], what: str) -> T:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, self._timeout))
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise MachineError(f"QMP {what}: {str(error) or type(error).__name__}") from error
