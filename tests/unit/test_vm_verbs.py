"""Waiting, against a machine that is a script: each command has a list of answers, the last one stays."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from k3img.vm.channel import ChannelTimeoutError, Result
from k3img.vm.faults import CommandError, MachineError, WaitError
from k3img.vm.verbs import Verbs, with_console

if TYPE_CHECKING:
    from collections.abc import Callable


class Fake(Verbs):
    """A machine whose time passes only when somebody waits."""

    def __init__(self, **answers: list[tuple[int, str]]) -> None:
        self.answers = answers
        self.said = "line\n" * 100 + "last words\n"
        self.time = 0.0
        self.ran: list[str] = []
        self.gone_at: float | None = None

    def execute(self, command: str, *, timeout: float = 60) -> Result:
        self.ran.append(command)
        key = command.split(maxsplit=1)[0]
        script = self.answers.get(key, [(127, "")])
        rc, out = script.pop(0) if len(script) > 1 else script[0]
        return Result(command=command, rc=rc, stdout=out, stderr="")

    def console(self) -> str:
        return self.said

    def check(self) -> None:
        if self.gone_at is not None and self.time >= self.gone_at:
            raise MachineError("QEMU ended by itself")

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds


def state(active: str, job: str = "") -> tuple[int, str]:
    return 0, f"ActiveState={active}\nJob={job}\n"


def test_succeed_and_fail() -> None:
    machine = Fake(true=[(0, "yes\n")], false=[(1, "no\n")])
    assert machine.succeed("true") == "yes\n"
    assert machine.fail("false") == "no\n"
    with pytest.raises(CommandError) as caught:
        machine.succeed("false x")
    assert caught.value.brief == "command failed in the guest: false x"
    assert caught.value.details == "$ false x   -> exit status 1\nno"
    with pytest.raises(CommandError, match="must not"):
        machine.fail("true")


def test_long_commands_are_cut_in_messages() -> None:
    with pytest.raises(CommandError) as caught:
        Fake().succeed("python3 -c '\n" + "x = 1\n" * 100 + "'")
    assert len(caught.value.brief) < 170
    assert "\n" not in caught.value.brief


def test_wait_for_unit() -> None:
    machine = Fake(systemctl=[state("inactive", "12"), state("activating"), state("active")])
    machine.wait_for_unit("k3s.service")
    assert machine.time == 2


@pytest.mark.parametrize("end", [state("failed"), state("inactive")])
def test_wait_for_unit_gives_up_at_once(end: tuple[int, str]) -> None:
    machine = Fake(systemctl=[state("activating"), end], journalctl=[(0, "it is broken")])
    with pytest.raises(WaitError) as caught:
        machine.wait_for_unit("k3s.service", timeout=1000)
    assert machine.time == 1
    assert "it is broken" in caught.value.details
    assert "last words" in caught.value.details


def test_deadline_is_stretched_and_has_evidence() -> None:
    machine = Fake(systemctl=[state("activating")], journalctl=[(0, "still trying")])
    machine.stretch = 3.0
    with pytest.raises(WaitError) as caught:
        machine.wait_for_unit("k3s.service", timeout=10)
    assert machine.time == 30
    assert caught.value.brief == "waited 30 s in vain for k3s.service"
    assert "still trying" in caught.value.details
    assert caught.value.details.count("line") < 60, "the console's tail, not all of it"


def test_evidence_never_hides_the_failure() -> None:
    def broken() -> str:
        raise MachineError("no journal")

    machine = Fake()
    with pytest.raises(WaitError) as caught:
        machine.wait_until("rain", lambda: None, timeout=1, evidence=broken)
    assert "(no further evidence: no journal)" in caught.value.details
    assert "last words" in caught.value.details


def test_a_machine_that_goes_away_ends_the_wait() -> None:
    machine = Fake()
    machine.gone_at = 5
    with pytest.raises(MachineError, match="ended by itself"):
        machine.wait_until("rain", lambda: None, timeout=1000)
    assert machine.time == 5


def test_wait_until_succeeds() -> None:
    machine = Fake(cat=[(1, ""), (1, ""), (0, "found")])
    assert machine.wait_until_succeeds("cat /x") == "found"
    assert machine.ran == ["cat /x"] * 3


def test_wait_until_succeeds_shows_the_last_answer() -> None:
    machine = Fake(cat=[(1, "nothing here")])
    with pytest.raises(WaitError, match="the file") as caught:
        machine.wait_until_succeeds("cat /x", timeout=2, subject="the file")
    assert "nothing here" in caught.value.details


@pytest.mark.parametrize(
    ("pattern", "after", "found"),
    [(r"^last (\w+)$", 0, "words"), (r"(line)", 480, "line")],
)
def test_wait_for_console(pattern: str, after: int, found: str) -> None:
    assert Fake().wait_for_console(pattern, after=after)[1] == found


def test_wait_for_console_ignores_what_was_before() -> None:
    machine = Fake()
    with pytest.raises(WaitError, match=re.escape("'line' on the console")):
        machine.wait_for_console("line", after=len(machine.said) - 3, timeout=1)


@pytest.mark.parametrize("kind", [MachineError, ChannelTimeoutError])
def test_with_console_keeps_the_kind(kind: Callable[..., MachineError]) -> None:
    error = with_console(kind("gone", details="why"), Fake())
    assert type(error) is kind
    assert error.details.startswith("why\n")
    assert "last words" in error.details
