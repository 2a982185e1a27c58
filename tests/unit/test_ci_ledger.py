"""The ledger of ci/full and what --resume makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ci import full, ledger, limit, steps
from ci.ledger import Entry
from ci.parts import PARTS
from ci.steps import Context, PartError

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = Entry(
    part="etcd",
    began="2026-11-25T01:00:00+00:00",
    seconds=600,
    state="c0ffee",
    image="abc",
    passed=True,
    log="x.log",
)
FAILED = replace(ENTRY, passed=False, why="exit status 5")


def test_entries_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new/ledger.jsonl"
    assert ledger.read(path) == ()
    ledger.append(path, ENTRY)
    ledger.append(path, FAILED)
    assert ledger.read(path) == (ENTRY, FAILED)


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger.append(path, ENTRY)
    with path.open("a") as file:
        file.write('{"part": "etcd", "beg\n')
        file.write('{"part": "etcd", "unknown": 1}\n')
    ledger.append(path, FAILED)
    assert ledger.read(path) == (ENTRY, FAILED)


def test_a_kept_ledger_has_the_runs_of_several_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    later = replace(ENTRY, began="2026-11-26T01:00:00+00:00")
    for name, entries in {"KEPT": (ENTRY, later), "LEDGER": (later, FAILED)}.items():
        monkeypatch.setattr(full, name, tmp_path / name)
        for entry in entries:
            ledger.append(tmp_path / name, entry)
    monkeypatch.setattr(full, "ROOT", tmp_path)
    assert full.main(["--keep"]) == 0
    assert full.main(["--keep"]) == 0
    assert "3 runs" in capsys.readouterr().out
    assert ledger.read(tmp_path / "KEPT") == (ENTRY, FAILED, later)
    assert full.main(["--history"]) == 0
    assert ["abc", "etcd", "3", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_pass_counts_for_its_state_and_image_only() -> None:
    def passed(part: str = "etcd", state: str = "c0ffee", image: str = "abc") -> Entry | None:
        return ledger.passed((ENTRY,), part, state=state, image=image)

    assert passed() == ENTRY
    assert passed(part="html") is None
    assert passed(state="c0ffee+1") is None
    assert passed(image="def") is None


def test_the_last_run_counts() -> None:
    assert ledger.passed((ENTRY, FAILED), "etcd", state="c0ffee", image="abc") is None
    assert ledger.passed((FAILED, ENTRY), "etcd", state="c0ffee", image="abc") == ENTRY
    other = replace(FAILED, state="beef")
    assert ledger.passed((ENTRY, other), "etcd", state="c0ffee", image="abc") == ENTRY


def test_minutes_are_those_of_the_last_pass() -> None:
    entries = (ENTRY, replace(ENTRY, seconds=300), replace(FAILED, seconds=4800))
    assert ledger.minutes(entries, "etcd", 18) == 5
    assert ledger.minutes((FAILED,), "etcd", 18) == 18
    assert ledger.minutes((), "etcd", 18) == 18


def test_estimate_is_printed_first_with_its_sum(capsys: pytest.CaptureFixture[str]) -> None:
    parts = full.chosen(["etcd", "html"])
    entries = (ENTRY,)
    assert full.estimate(parts, entries) == [
        "    1 min  html                       the report in a browser",
        "   10 min  etcd                       etcd in the place of sqlite",
        "   11 min  all; each part is ended after 80",
    ]
    assert full.main(["--list", "--only", "actionlint"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("all; each part is ended after 80")


def test_parts_are_named_once_and_fit_into_their_time() -> None:
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    assert all(0 < part.minutes < full.MINUTES for part in PARTS)
    assert full.chosen([]) == PARTS


def test_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        full.main(["--only", "nope"])
    assert end.value.code == 2
    assert "invalid choice: 'nope'" in capsys.readouterr().err


def test_resume_does_not_run_what_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "OUT", tmp_path)
    (part,) = full.chosen(["etcd"])
    context = Context(root=tmp_path, cache=tmp_path, work=tmp_path)
    # A run would start a program, which fails here.
    assert full.one(part, context, "c0ffee", "abc", (ENTRY,), resume=True) == ENTRY


def test_a_run_goes_into_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "ROOT", tmp_path)
    monkeypatch.setattr(full, "OUT", tmp_path / "out")
    monkeypatch.setattr(full, "LEDGER", tmp_path / "ledger.jsonl")
    monkeypatch.setattr(full, "empty", lambda folder: folder.mkdir(parents=True))
    ended = iter([limit.Ended(status=1, seconds=5), limit.Ended(status=None, seconds=4800)])

    def run(argv: list[str], *, log: Path, seconds: float) -> limit.Ended:
        assert (argv[3:5], seconds) == (["ci.parts", "etcd"], 80 * 60)
        log.write_text("booting\nFAILED etcd: the node is not Ready\nbye\n")
        return next(ended)

    monkeypatch.setattr(limit, "run", run)
    (part,) = full.chosen(["etcd"])
    context = Context(root=tmp_path, cache=tmp_path, work=tmp_path)
    first = full.one(part, context, "c0ffee", "abc", (ENTRY,), resume=False)
    (tmp_path / "out/work/etcd").rmdir()
    second = full.one(part, context, "c0ffee", "abc", (first,), resume=True)
    assert ledger.read(tmp_path / "ledger.jsonl") == (first, second)
    assert (first.passed, first.why) == (False, "the node is not Ready")
    assert (second.passed, second.why) == (False, "not done after 80 minutes, so it was ended")
    assert full.table((first, second))[-1] == "0 passed, 2 failed; image abc"


def test_the_history_counts_passes_in_a_row_and_hides_no_failure() -> None:
    other = replace(ENTRY, image="def")
    said = ledger.history((ENTRY, ENTRY, FAILED, ENTRY, other, ENTRY))
    rows = [line.split() for line in said]
    assert ["abc", "etcd", "5", "2"] in rows
    assert ["def", "etcd", "1", "1"] in rows
    assert [line for line in said if "FAILED: exit status 5  (x.log)" in line]
    assert ["abc", "etcd", "1", "0"] in [line.split() for line in ledger.history((FAILED,))]


def test_a_failed_verification_names_its_checks_and_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(root=tmp_path, cache=tmp_path, work=tmp_path, images=tmp_path / "test-images.tar")
    report = tmp_path / "verify/report.json"
    report.parent.mkdir()
    report.write_text("of an earlier run")
    checks = [
        {"name": "Joined", "ok": False, "outcome": "failed"},
        {"name": "Image", "ok": True, "outcome": "passed"},
    ]

    def says(*_words: object) -> str:
        report.write_text(json.dumps({"verdict": "1 of 2 checks passed, 1 failed", "checks": checks}))
        raise PartError("exit status 5")

    monkeypatch.setattr(steps, "do", says)
    with pytest.raises(PartError, match=r"^1 of 2 checks passed, 1 failed; Joined \(failed\)$"):
        steps.verify(context, "x86", tmp_path)

    def breaks(*_words: object) -> str:
        raise PartError("exit status 3")

    monkeypatch.setattr(steps, "do", breaks)
    with pytest.raises(PartError, match=r"^exit status 3$"):
        steps.verify(context, "x86", tmp_path)
