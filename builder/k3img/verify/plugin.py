"""The pytest plugin that runs `tests/image` for `k3img verify`: it owns the machine and collects the checks.

A check is a test; its name is its docstring. A machine that breaks is one error, and what was still to be
asked of it is skipped: forty failures would hide the one that matters.
"""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING

import pytest

from k3img.errors import K3imgError
from k3img.log import line
from k3img.verify.fixtures import PLUGIN
from k3img.verify.hardware import PAIRS
from k3img.verify.report import Check, ConsoleLine, Outcome
from k3img.verify.testinfra import ChannelBackend, host
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from contextlib import AbstractContextManager, ExitStack

    from testinfra.host import Host

    from k3img.verify.boot import Hardware
    from k3img.verify.lab import Bed
    from k3img.verify.life import Life

    MakeBed = Callable[[ExitStack, Callable[[Life], None]], Bed]
    MakeLife = Callable[[Hardware | None, Mapping[str, bytes] | None], AbstractContextManager[Life]]

KEPT_CHARACTERS = 12_000
"""Of one check's evidence; the end is kept, where the reason is."""

_WHERE = re.compile(r"\s*\+\s+(where|and)\b")

MARKS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.ERROR: "✗", Outcome.SKIPPED: "-"}


class VerifyPlugin:
    """One run of pytest over one scenario. `make_life` opens a machine for given hardware and seed."""

    def __init__(
        self,
        make_life: MakeLife,
        make_bed: MakeBed | None = None,
        *,
        pairs: tuple[str, ...] = (),
    ) -> None:
        self.checks: list[Check] = []
        self.lives: list[Life] = []
        self.console: list[ConsoleLine] = []
        self.secrets: dict[str, str] = {}
        self.pairs = pairs
        self.harness_error = ""
        self.ended: SystemExit | None = None
        self._make_life = make_life
        self._make_bed = make_bed
        self._backends: dict[int, tuple[Host, ChannelBackend]] = {}
        self._notes: list[str] = []
        self._broken: dict[str, str] = {}  # machine (see _machine_of) to why it can be asked no more

    # Opening machines

    def open_life(
        self,
        stack: ExitStack,
        hardware: Hardware | None = None,
        *,
        credentials: Mapping[str, bytes] | None = None,
    ) -> Life:
        """A new machine, off; `stack` ends it and saves its console.

        `credentials` (a seed) take the place of those that all machines of the run get.
        """
        made = stack.enter_context(self._make_life(hardware, credentials))
        self._opened(stack, made)
        return made

    def open_bed(self, stack: ExitStack) -> Bed:
        """A network for several machines; `stack` ends it, and them, and saves their consoles."""
        if self._make_bed is None:
            raise MachineError("this run has no network of its own")
        bed = self._make_bed(stack, partial(self._opened, stack))
        self.secrets = bed.secrets
        return bed

    def _opened(self, stack: ExitStack, life: Life) -> None:
        self.lives.append(life)
        stack.callback(self._save_console, life)

    def _save_console(self, life: Life) -> None:
        life.forget_api()
        life.machine.close()
        for on, lines in life.machine.history():
            number = self.console[-1].life + 1 if self.console else 0
            self.console += [ConsoleLine(life=number, at=entry.at - on, text=entry.text) for entry in lines]

    def testinfra(self, life: Life) -> Host:
        """Testinfra's view of a machine."""
        key = id(life)
        if key not in self._backends:
            self._backends[key] = host(life.machine)
        return self._backends[key][0]

    def note(self, what: object) -> None:
        """Keep what was seen with the running check."""
        self._notes.append(str(what))

    # Hooks

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Say what matters ourselves, line by line; pytest's own reporter is there by now, and goes."""
        config.stash[PLUGIN] = self
        config.addinivalue_line("markers", "spare: asks for disks beside the one that the machine boots from")
        if reporter := config.pluginmanager.get_plugin("terminalreporter"):
            config.pluginmanager.unregister(reporter)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """The hardware scenario asks for each chosen pair of disk controller and network card."""
        if "pair" in metafunc.fixturenames:
            metafunc.parametrize("pair", self.pairs, scope="module")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Do not ask a machine without spare disks for them."""
        items[:] = [item for item in items if not item.get_closest_marker("spare") or _has_spare(item)]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file of checks that cannot be read is an error of ours, not of the image."""
        if report.failed:
            self.harness_error += f"{report.nodeid}\n{report.longreprtext}\n"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what is still to be asked of a machine that broke."""
        self._notes.clear()
        for _, backend in self._backends.values():
            backend.seen.clear()
        if reason := self._broken.get(_machine_of(item)):
            pytest.skip(f"not asked: the machine broke before ({reason})")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn pytest's result into a check."""
        report = yield
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, SystemExit):
            # Somebody ends us (SIGTERM), which pytest takes for a failure of this check.
            self.ended = error
            item.session.shouldstop = "ended"
        elif isinstance(error, MachineError):
            self._broken.setdefault(_machine_of(item), error.brief)
        if call.when == "call" or not report.passed:
            self._record(item, report, error)
        return report

    def _record(self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
        if report.skipped:
            outcome = Outcome.SKIPPED
        elif report.passed:
            outcome = Outcome.PASSED
        elif isinstance(error, MachineError) or report.when != "call":
            outcome = Outcome.ERROR
        else:
            outcome = Outcome.FAILED
        check = Check(
            name=_name(item),
            group=_group(item),
            outcome=outcome,
            evidence=self._evidence(report, error),
            seconds=report.duration,
        )
        self.checks.append(check)
        line(f"  {MARKS[outcome]} {check.name}  {check.seconds:.1f} s")
        if outcome in (Outcome.FAILED, Outcome.ERROR):
            for text in check.evidence.splitlines()[:12]:
                line(f"      {text}")

    def _evidence(self, report: pytest.TestReport, error: BaseException | None) -> str:
        """Why it failed, then what was noted, then the commands that were run."""
        parts = []
        if error is not None:
            parts.append(_reason(report, error))
        parts += self._notes
        parts += [str(result) for _, backend in self._backends.values() for result in backend.seen]
        text = "\n".join(part for part in parts if part)
        if len(text) > KEPT_CHARACTERS:
            text = f"{text[: KEPT_CHARACTERS // 2]}\n[...]\n{text[-KEPT_CHARACTERS // 2 :]}"
        return text


def _reason(report: pytest.TestReport, error: BaseException) -> str:
    if isinstance(error, K3imgError):
        return "\n".join(part for part in (error.brief, error.details, error.hint) if part)
    if isinstance(error, AssertionError | pytest.skip.Exception):
        # pytest explains each name of the expression; what the commands said is evidence enough.
        return "\n".join(text for text in str(error).splitlines() if not _WHERE.match(text))
    return report.longreprtext  # a mistake in the check itself: its traceback is what helps


def _machine_of(item: pytest.Item) -> str:
    """Which machine a check asks: the one of its pair of hardware, or the shared one."""
    call = getattr(item, "callspec", None)
    return str(call.params.get("pair", "")) if call is not None else ""


def _has_spare(item: pytest.Item) -> bool:
    return bool(PAIRS[_machine_of(item)].spare)


def _name(item: pytest.Item) -> str:
    """The first sentence of the test's docstring, and its parameters."""
    function = getattr(item, "function", None)
    text = (inspect.getdoc(function) or item.name).splitlines()[0].rstrip(".")
    parameters = item.name.partition("[")[2].rstrip("]")
    return f"{text} [{parameters}]" if parameters and function is not None else text


def _group(item: pytest.Item) -> str:
    """The first line of the test module's docstring."""
    module = getattr(item, "module", None)
    return (inspect.getdoc(module) or item.path.stem).splitlines()[0].rstrip(".")
