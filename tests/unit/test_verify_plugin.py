"""The plugin with checks of its own and a machine that is none: what becomes of each outcome."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from k3img.verify import run
from k3img.verify.plugin import VerifyPlugin
from k3img.verify.report import Outcome
from k3img.vm.channel import Result
from k3img.vm.console import Line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.verify.life import Life

NUMBERS = itertools.count()

CHECKS = '''
"""Odds and ends.

More about them.
"""
import pytest
from k3img.vm.faults import CommandError, MachineError

def test_good(life, evidence):
    """All is well."""
    evidence("seen it")

def test_bad():
    """Two is three."""
    assert {"a": 2}["a"] == 3, "arithmetic"

def test_command():
    """A command works."""
    raise CommandError("command failed", details="$ false")

def test_asked(host):
    """The guest is asked."""
    assert host.check_output("echo %s", "a b") == "said a b"

@pytest.mark.parametrize("what", ["x", "y"])
def test_many(what):
    """Each of them."""

def test_mistake():
    """The check itself is wrong."""
    {}["nothing"]

def test_skipped(ready):
    """Needs a node."""

def test_breaks(machine):
    """The machine breaks."""
    raise MachineError("QEMU ended by itself", details="last words")

def test_after():
    """Never asked."""
    raise AssertionError
'''


class FakeMachine:
    """Says back what it is told to echo."""

    spec = SimpleNamespace(name="fake")
    closed = False

    def execute(self, command: str, *, timeout: float = 60) -> Result:
        return Result(
            command=command, rc=0, stdout=f"said {command.split(maxsplit=1)[1]}".replace("'", ""), stderr=""
        )

    def close(self) -> None:
        self.closed = True

    def history(self) -> tuple[tuple[float, tuple[Line, ...]], ...]:
        return ((100.0, (Line(at=101.5, text="one"),)), (200.0, (Line(at=203.0, text="two"),)))


@contextmanager
def fake_life(_hardware: object, _credentials: object) -> Iterator[Life]:
    life = SimpleNamespace(machine=FakeMachine(), ready=False, forget_api=lambda: None, boots=[], numbers={})
    yield cast("Life", life)


def played(tmp_path: Path, text: str) -> VerifyPlugin:
    folder = tmp_path / "image/odds"
    folder.mkdir(parents=True)
    # pytest keeps modules by name: each run of this test needs its own.
    (folder / f"test_odds_{next(NUMBERS)}.py").write_text(text)
    plugin = VerifyPlugin(fake_life)
    run._pytest(pytest.main, plugin, folder.parent, [folder])
    return plugin


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> VerifyPlugin:
    return played(tmp_path_factory.mktemp("checks"), CHECKS)


@pytest.mark.parametrize(
    ("name", "outcome", "evidence"),
    [
        ("All is well", Outcome.PASSED, "seen it"),
        ("Two is three", Outcome.FAILED, "arithmetic\nassert 2 == 3"),
        ("A command works", Outcome.FAILED, "command failed\n$ false"),
        ("The guest is asked", Outcome.PASSED, "$ echo 'a b'\nsaid a b"),
        ("Each of them [x]", Outcome.PASSED, ""),
        ("Each of them [y]", Outcome.PASSED, ""),
        ("Needs a node", Outcome.SKIPPED, "the node did not become Ready"),
        ("The machine breaks", Outcome.ERROR, "QEMU ended by itself\nlast words"),
        ("Never asked", Outcome.SKIPPED, "not asked: the machine broke before (QEMU ended by itself)"),
    ],
)
def test_outcome(plugin: VerifyPlugin, name: str, outcome: Outcome, evidence: str) -> None:
    (check,) = [check for check in plugin.checks if check.name == name]
    assert (check.group, check.outcome, check.evidence) == ("Odds and ends", outcome, evidence)


def test_mistake_shows_its_traceback(plugin: VerifyPlugin) -> None:
    (check,) = [check for check in plugin.checks if check.name == "The check itself is wrong"]
    assert check.outcome is Outcome.FAILED
    assert '{}["nothing"]' in check.evidence


def test_order_and_completeness(plugin: VerifyPlugin) -> None:
    assert len(plugin.checks) == 10
    assert plugin.checks[-1].name == "Never asked"


def test_console_of_every_power_on(plugin: VerifyPlugin) -> None:
    assert [(line.life, line.at, line.text) for line in plugin.console] == [(0, 1.5, "one"), (1, 3.0, "two")]


def test_machine_is_closed(plugin: VerifyPlugin) -> None:
    (life,) = plugin.lives
    assert cast("Any", life.machine).closed


def test_checks_that_cannot_be_read(tmp_path: Path) -> None:
    plugin = played(tmp_path, "import no_such_module\n")
    assert plugin.checks == []
    assert "no_such_module" in plugin.harness_error


def test_long_evidence_keeps_both_ends(tmp_path: Path) -> None:
    plugin = played(
        tmp_path,
        'def test_long(evidence):\n    """Long."""\n    evidence("begin" + "x" * 50000 + "end")\n',
    )
    text = plugin.checks[0].evidence
    assert text.startswith("begin")
    assert text.endswith("end")
    assert len(text) < 13000


def test_being_ended_is_no_failed_check(tmp_path: Path) -> None:
    plugin = played(
        tmp_path,
        'def test_one():\n    """One."""\n    raise SystemExit(143)\n\ndef test_two():\n    """Two."""\n',
    )
    assert plugin.ended is not None
    assert plugin.ended.code == 143
    assert [check.name for check in plugin.checks if check.name == "Two"] == []
