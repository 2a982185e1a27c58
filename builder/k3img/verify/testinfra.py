"""pytest-testinfra over the test channel: `host.file("/usr")`, `host.run(...)` in an unmodified image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

if TYPE_CHECKING:
    from k3img.vm.channel import Result
    from k3img.vm.machine import Machine


class ChannelBackend(BaseBackend):  # type: ignore[misc]  # testinfra ships no types
    """Runs testinfra's commands in the guest, and keeps them: they are a check's evidence."""

    NAME = "k3img-channel"

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.spec.name)
        self._machine = machine
        self._encoding = "utf-8"
        self.seen: list[Result] = []

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a command whose `%s` are replaced by quoted `args`."""
        text = self.get_command(command, *args)
        result = self._machine.execute(text)
        self.seen.append(result)
        return self.result(result.rc, text.encode(), result.stdout.encode(), result.stderr.encode())


def host(machine: Machine) -> tuple[Host, ChannelBackend]:
    """Testinfra's host for a machine, and the backend under it."""
    backend = ChannelBackend(machine)
    made = Host(backend)
    backend.set_host(made)
    return made, backend
