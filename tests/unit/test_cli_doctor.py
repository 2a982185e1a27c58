"""`k3img doctor`: the table, the JSON and the exit code."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from k3img.cli import doctor as command
from k3img.tools import binfmt, host, kvm, toolbox
from k3img.tools.finding import Finding, State
from k3img.tools.kvm import Kvm
from k3img.tools.toolbox import Survey

if TYPE_CHECKING:
    from collections.abc import Callable

FINE = Finding(name="mkosi >= 25.3", state=State.OK, found="25.3-7 (cache)", needed_for="building images")
OLD = Finding(
    name="mkfs.erofs >= 1.8",
    state=State.MISSING,
    found="1.5, too old",
    needed_for="the /usr file system",
    how="k3img doctor --fix",
)
GONE = Finding(
    name="newuidmap",
    state=State.MISSING,
    found="none",
    needed_for="building without root",
    how="apt-get install uidmap",
    package="uidmap",
)
NATIVE = Finding(name="aarch64 programs", state=State.OK, found="run", needed_for="arm64")
FOREIGN = Finding(
    name="aarch64 programs", state=State.NOTE, found="do not run", needed_for="arm64", how="apt-get install x"
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what the machine has."""

    def has(*findings: Finding, properties: tuple[Finding, ...] = (), foreign: Finding = NATIVE) -> None:
        seen = Survey(mkosi=None, tree=None, programs={}, findings=findings)
        monkeypatch.setattr(toolbox, "survey", lambda _, target: seen)
        monkeypatch.setattr(binfmt, "finding", lambda _: foreign)
        monkeypatch.setattr(host, "properties", lambda _: properties)

    return has


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.doctor, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    return int(result.return_value or 0), result.stdout


def test_all_is_well(machine: Callable[..., None]) -> None:
    machine(FINE)
    status, text = run()
    assert status == 0
    assert "✓  mkosi >= 25.3     25.3-7 (cache)" in text
    assert text.endswith("nothing is missing\n")


def test_missing_and_too_old_are_3_and_say_what_to_type(machine: Callable[..., None]) -> None:
    machine(FINE, OLD, GONE)
    status, text = run()
    assert status == 3
    assert "✗  mkfs.erofs >= 1.8  1.5, too old" in text
    assert "✗ mkfs.erofs >= 1.8: k3img doctor --fix" in text
    assert "✗ newuidmap: apt-get install uidmap" in text
    assert text.endswith("2 missing\n")


def test_a_note_stops_nobody(machine: Callable[..., None]) -> None:
    machine(FINE, foreign=FOREIGN)
    status, text = run()
    assert status == 0
    assert "! aarch64 programs: apt-get install x" in text


def test_json_says_the_same(machine: Callable[..., None]) -> None:
    machine(FINE, OLD)
    status, text = run("--json")
    found = json.loads(text)
    assert status == 3
    assert found["ok"] is False
    assert [row["name"] for row in found["findings"]] == [
        "mkosi >= 25.3",
        "mkfs.erofs >= 1.8",
        "KVM",
        "aarch64 programs",
    ]
    assert found["findings"][1] == {
        "name": "mkfs.erofs >= 1.8",
        "state": "missing",
        "found": "1.5, too old",
        "needed_for": "the /usr file system",
        "how": "k3img doctor --fix",
    }


def test_kvm_is_not_tried_without_qemu(machine: Callable[..., None]) -> None:
    machine(OLD)
    assert "not tried: no QEMU" in run()[1]


def test_kvm_that_does_not_work_is_a_note(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(FINE)
    monkeypatch.setattr(Survey, "toolbox", lambda _: object())
    answer = Kvm(works=False, why="firmware crashed: KVM internal error", how="nothing")
    monkeypatch.setattr(kvm, "works", lambda *_, again: answer)
    status, text = run()
    assert status == 0
    assert "no: firmware crashed: KVM internal error" in text
    assert "! KVM: nothing" in text


@pytest.mark.parametrize(("uid", "installed"), [(0, [["uidmap"]]), (1000, [])])
def test_fix_installs_packages_of_the_host_only_as_root(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, uid: int, installed: list[list[str]]
) -> None:
    machine(FINE)
    asked: list[list[str]] = []
    prepared: list[object] = []
    monkeypatch.setattr("k3img.cli.doctor.os.geteuid", lambda: uid)
    monkeypatch.setattr(host, "programs", lambda: (GONE,))
    monkeypatch.setattr(host, "install", lambda names: asked.append(list(names)))

    def prepare(_: object, target: str) -> SimpleNamespace:
        prepared.append(target)
        return SimpleNamespace(tree="tree")

    monkeypatch.setattr(toolbox, "prepare", prepare)
    registered: list[object] = []
    monkeypatch.setattr(binfmt, "register", lambda *arguments: registered.append(arguments))
    run("--fix", "--target", "arm64")
    assert asked == installed
    assert prepared == ["arm64"]
    assert registered == ([("arm64", "tree")] if uid == 0 else [])
