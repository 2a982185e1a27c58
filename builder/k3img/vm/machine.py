"""A running machine: QEMU, its control socket, its console and the channel into it, owned together."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Self

from k3img.log import step
from k3img.vm import firmware
from k3img.vm.channel import Channel, ChannelTimeoutError, Result
from k3img.vm.child import Child, wait_for_socket
from k3img.vm.console import ConsoleLog, Line, plain
from k3img.vm.faults import MachineError
from k3img.vm.qmp import Qmp
from k3img.vm.spec import DISK_NODE, Accel, MachineSpec, argv, storage_argv
from k3img.vm.verbs import Verbs, with_console

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from k3img.tools.toolbox import Firmware

TCG_STRETCH = 6.0
"""How much longer everything may take when QEMU translates (seen: 4 to 8 times, on a busy 2-core host)."""

BOOT_SECONDS = 60
"""From power on to the test channel (start of multi-user), with KVM."""

PATIENCE = 4
"""So many time-outs may a boot take that still shows progress."""

MOST_RESETS = 3
"""So many restarts without an answer are a boot loop."""


class Machine(Verbs):
    """One machine over its whole life: it may be cut from power and started again, on the same disks.

    A context manager: at its end, or when it raises, nothing of it is left running.
    """

    def __init__(self, spec: MachineSpec, files: Firmware) -> None:
        self.spec = spec
        self.stretch = TCG_STRETCH if spec.accel is Accel.TCG else 1.0
        self.powered_on = 0.0
        """When power was last switched on, by `now()`."""
        self._files = files
        self._power = ExitStack()  # what lives from power on to power off
        self._qemu: Child | None = None
        self._qmp: Qmp | None = None
        self._channel: Channel | None = None
        self._consoles: list[tuple[float, ConsoleLog]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Switch the power on. Returns once QEMU runs the firmware; see `wait_for_boot`.

        Raises `MachineError` with QEMU's own words when it ends at once.
        """
        firmware.install(self._files, self.spec.sockets)
        with ExitStack() as stack:
            qemu, qmp = self._open(stack, argv(self.spec))
            self._qemu, self._qmp = qemu, qmp
            stack.callback(self._forget)
            if self.spec.pi is None:  # that one has no virtio
                self._channel = Channel(self.spec.sockets.channel)
                stack.callback(self._channel.close)
            if self.spec.network is not None and not self.spec.network.link:
                qmp.link(up=False)
            log = stack.enter_context(ConsoleLog(self.spec.sockets.console_log))
            self.powered_on = self.now()
            self._consoles.append((self.powered_on, log))
            qmp.resume()
            self._power = stack.pop_all()

    def damage(self, changes: Iterable[tuple[int, int]]) -> None:
        """While the power is off: write single bytes, (offset, value) each, to the disk it boots from."""
        with ExitStack() as stack:
            qemu, qmp = self._open(stack, storage_argv(self.spec))
            for offset, value in changes:
                qmp.write_byte(DISK_NODE, offset, value)
            qmp.quit()  # it flushes
            qemu.wait_until_ended(30)

    def _open(self, stack: ExitStack, command: Sequence[str]) -> tuple[Child, Qmp]:
        """A new QEMU, paused before its first instruction, and our connection to it; `stack` ends both."""
        if self._qemu is not None:
            raise MachineError(f"{self.spec.name} is already on")
        sockets = self.spec.sockets
        for stale in (sockets.qmp, sockets.channel, sockets.console):
            stale.unlink(missing_ok=True)
        qemu = Child(command, log=sockets.folder / "qemu.log", cwd=sockets.folder)
        stack.callback(qemu.stop)
        wait_for_socket(sockets.qmp, qemu)
        try:
            qmp = Qmp(sockets.qmp)
        except MachineError:
            qemu.wait_until_ended(0.5)  # it may be dying: then its own words say more than ours
            qemu.check()
            raise
        stack.callback(qmp.close)
        return qemu, qmp

    def wait_for_boot(self, *, timeout: float = BOOT_SECONDS, other_than: str | None = None) -> str:
        """Wait until a guest (another boot than `other_than`) answers on the channel; returns its boot id.

        The time-out begins anew while the console goes on: a guest that makes progress on a busy host is
        slow, not hung. `PATIENCE` time-outs are the end all the same.
        Raises `MachineError` with the console's tail: without the channel there is nothing to judge.
        """
        limit = timeout * self.stretch
        began = deadline = self.now()
        resets, said = self.qmp.count("RESET"), -1
        with step("Waiting for the guest"):
            while True:
                self.check()
                with suppress(ChannelTimeoutError):
                    return self.channel.wait_for_boot(1, other_than=other_than)
                if (more := len(self.console_lines())) != said:
                    said, deadline = more, self.now() + limit
                if self.now() > min(deadline, began + PATIENCE * limit):
                    error = MachineError(f"no guest answered within {self.now() - began:.0f} s")
                    raise with_console(error, self)
                if self.qmp.count("RESET") - resets >= MOST_RESETS:
                    error = MachineError(f"the guest restarted {MOST_RESETS} times without answering")
                    raise with_console(error, self)

    def execute(self, command: str, *, timeout: float = 60) -> Result:
        """Run a shell command in the guest, whatever its exit status; it may take `timeout` (stretched)."""
        try:
            return self.channel.run(command, timeout=timeout * self.stretch)
        except MachineError as error:
            if self._qemu is not None:
                self._qemu.wait_until_ended(0.2)
            self.check()
            raise with_console(error, self) from error

    def console(self) -> str:
        """All that the serial console said so far, over all boots, as plain text."""
        try:
            # Not read_text: it would make two line ends of the console's "\r\r\n".
            return plain(self.spec.sockets.console_log.read_bytes().decode(errors="replace"))
        except FileNotFoundError:
            return ""

    def console_lines(self) -> tuple[Line, ...]:
        """The console's lines since power was last switched on, with their times."""
        return self._consoles[-1][1].lines() if self._consoles else ()

    def history(self) -> tuple[tuple[float, tuple[Line, ...]], ...]:
        """For each time that power was switched on: when (`now()`), and the console's lines since then."""
        return tuple((on, log.lines()) for on, log in self._consoles)

    def check(self) -> None:
        """Raise `MachineError` when QEMU has ended, or had to stop because the host's disk failed it."""
        if self._qemu is None:
            raise MachineError(f"{self.spec.name} is off")
        try:
            self._qemu.check()
        except MachineError as error:
            raise with_console(error, self) from error
        for event in self.qmp.events():
            if event.name == "BLOCK_IO_ERROR":
                reason = event.data.get("reason", "input/output error")
                raise MachineError(f"QEMU cannot write the machine's disk: {reason}")

    def reboot(self, *, timeout: float = BOOT_SECONDS) -> None:
        """Restart the guest from inside, in order, and wait until the next boot answers."""
        before = self.channel.boot
        # In a second, so that the answer to this command is out before the channel goes down.
        self.succeed("systemd-run --quiet --on-active=1s --timer-property=AccuracySec=1ms systemctl reboot")
        # Stopping k3s and its pods takes a while as well.
        self.wait_for_boot(timeout=2 * timeout, other_than=before)

    def crash(self) -> None:
        """Cut the power: QEMU is killed.

        What the guest had flushed is in the host's page cache, or on its disk. What it had only written
        may be lost: into clusters that were already allocated it survives, into new ones it does not,
        because qcow2's tables live in QEMU's memory until a flush. So this proves flushes, in
        the order in which they were made, but not reordering or torn sectors inside a real card's cache.
        """
        if self._qemu is not None:
            self._qemu.kill()
        self._off()

    def power_cut(self) -> None:
        """Cut the power by QMP `quit`: the guest is not asked, but QEMU itself flushes all that was written.

        Kinder than `crash`: every write that the guest had issued is there afterwards.
        """
        self.qmp.quit()
        if self._qemu is not None:
            self._qemu.wait_until_ended(30)
        self._off()

    def unplug(self) -> None:
        """Pull the network cable."""
        self.qmp.link(up=False)

    def plug(self) -> None:
        """Plug the network cable in."""
        self.qmp.link(up=True)

    def forwarded(self, port: int) -> int:
        """The port on 127.0.0.1 behind which the guest's `port` is."""
        try:
            return self.qmp.forwarded()[port]
        except KeyError:
            raise MachineError(f"port {port} of {self.spec.name} is not forwarded") from None

    def seconds(self) -> float:
        """Host seconds since power on."""
        return self.now() - self.powered_on

    def close(self) -> None:
        """End everything. May be called at any time, also twice."""
        self._off()

    def ended(self, timeout: float) -> bool:
        """Whether the guest switches the machine off within `timeout` seconds. Raises if QEMU fails."""
        if self._qemu is None:
            return True
        if not self._qemu.wait_until_ended(timeout):
            return False
        if self._qemu.failed:
            self.check()
        self._off()
        return True

    @property
    def on(self) -> bool:
        """Whether the power is on."""
        return self._qemu is not None

    @property
    def qmp(self) -> Qmp:
        """QEMU's control socket; raises `MachineError` while the machine is off."""
        if self._qmp is None:
            raise MachineError(f"{self.spec.name} is off")
        return self._qmp

    @property
    def channel(self) -> Channel:
        """The test channel; raises `MachineError` while the machine is off."""
        if self._channel is None:
            raise MachineError(f"{self.spec.name} is off")
        return self._channel

    def now(self) -> float:
        """Seconds on a clock that only runs forward."""
        return time.monotonic()

    def _forget(self) -> None:
        self._qemu = self._qmp = self._channel = None

    def _off(self) -> None:
        self._power.close()
