"""A report for programs, CI systems, terminals, and as a page (see also tests/browser)."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from k3img.verify import page
from k3img.verify.page import chart, duration, to_html
from k3img.verify.report import Check, ConsoleLine, Outcome, Report, save, to_json, to_junit
from k3img.verify.timeline import Boot, Kind, Mark, Span, as_text

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = 'a <b> & "c" \x00\x1b[31m\ud800 ]]> </script><script>alert(1)</script>'

BOOT = Boot(
    name="first boot",
    spans=(
        Span(name="firmware", kind=Kind.FIRMWARE, start=0, end=4.25),
        Span(name="kernel", kind=Kind.KERNEL, start=4.25, end=9),
        Span(name="k3s.service", kind=Kind.UNIT, start=20, end=60.5),
    ),
    marks=(Mark(name="API ready", at=70.1), Mark(name="node Ready", at=82)),
)

REPORT = Report(
    profile="x86",
    version="20261125.0037",
    file="x86_20261125.0037.raw",
    sha256="ab" * 32,
    runtime="v1.36.3+standin1",
    standin=True,
    accel="tcg",
    qemu="10.0.13",
    began="2026-11-25T00:51:00+00:00",
    seconds=732.04,
    checks=(
        Check(name="boots", group="First boot", outcome=Outcome.PASSED, seconds=58.123, evidence="$ true"),
        Check(name="no failed unit", group="System", outcome=Outcome.FAILED, seconds=1, evidence=HOSTILE),
        Check(name="a pod", group="System", outcome=Outcome.ERROR, evidence="QEMU ended\nlast words"),
        Check(name="no login", group="System", outcome=Outcome.SKIPPED, evidence="a debug image"),
    ),
    timeline=(BOOT,),
    numbers={"memory used": "641 MiB"},
    notes=("a note",),
    console=(ConsoleLine(life=0, at=1.5, text="hello"),),
)


def outcomes(*wanted: Outcome) -> Report:
    checks = [Check(name="x", group="g", outcome=outcome) for outcome in wanted]
    return replace(REPORT, checks=tuple(checks))


@pytest.mark.parametrize(
    ("wanted", "ok"),
    [
        ((Outcome.PASSED,), True),
        ((Outcome.PASSED, Outcome.SKIPPED), True),
        ((Outcome.PASSED, Outcome.FAILED), False),
        ((Outcome.PASSED, Outcome.ERROR), False),
        ((Outcome.SKIPPED,), False),
        ((), False),
    ],
)
def test_ok_needs_an_answer_and_no_bad_one(wanted: tuple[Outcome, ...], ok: bool) -> None:
    assert outcomes(*wanted).ok is ok


def test_verdict() -> None:
    assert REPORT.verdict == "1 of 3 checks passed, 1 failed, 1 could not run, 1 skipped"
    assert outcomes(Outcome.PASSED).verdict == "1 of 1 checks passed"


def test_json() -> None:
    found = json.loads(to_json(REPORT))
    assert found["image"] == {"raw": "x86_20261125.0037.raw", "sha256": "ab" * 32}
    assert found["runtime"] == {"version": "v1.36.3+standin1", "standin": True}
    assert (found["ok"], found["accel"], found["seconds"]) == (False, "tcg", 732.0)
    assert found["checks"][0] == {
        "name": "boots",
        "group": "First boot",
        "ok": True,
        "outcome": "passed",
        "seconds": 58.12,
        "evidence": "$ true",
    }
    assert [check["ok"] for check in found["checks"]] == [True, False, False, False]
    boot = found["timeline"][0]
    assert boot["boot"] == "first boot"
    assert boot["marks"][1] == {"name": "node Ready", "at": 82}
    assert boot["spans"][0] == {"name": "firmware", "kind": "firmware", "start": 0, "end": 4.25}


def test_junit_is_xml_whatever_the_guest_said() -> None:
    root = ET.fromstring(to_junit(REPORT))
    assert root.tag == "testsuites"
    first, system = root.findall("testsuite")
    assert (first.get("name"), first.get("tests"), first.get("failures")) == ("First boot", "1", "0")
    counts = {name: system.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "1", "skipped": "1"}
    cases = {case.get("name"): case for case in system.findall("testcase")}
    failure = cases["no failed unit"].find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "<script>alert(1)</script>" in failure.text
    assert "\x00" not in failure.text
    error = cases["a pod"].find("error")
    assert error is not None
    assert error.get("message") == "QEMU ended"
    skipped = cases["no login"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "a debug image"
    names = {item.get("name"): item.get("value") for item in first.findall("properties/property")}
    assert names["sha256"] == "ab" * 32


def test_save_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    save(path, "old")
    assert save(path, "new ü").read_text(encoding="utf-8") == "new ü"
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_timeline_for_a_terminal() -> None:
    text = as_text((BOOT, Boot(name="never", spans=(), marks=())))
    assert text.splitlines() == [
        "first boot: firmware 4 s, kernel 5 s, API ready at 70 s, node Ready at 82 s",
        "never: ",
    ]


def test_boot_lasts_until_its_last_moment() -> None:
    assert BOOT.seconds == 82
    assert Boot(name="x").seconds == 0


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Strict(HTMLParser):
    """Collects tags, attributes and text; complains about what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parse(html: str) -> Strict:
    found = Strict()
    found.feed(html)
    found.close()
    assert found.open == []
    return found


def test_hostile_text_stays_text() -> None:
    hostile = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"
    report = replace(
        REPORT,
        profile=hostile,
        notes=(hostile,),
        numbers={hostile: hostile},
        checks=tuple(
            Check(name=hostile, group=hostile, outcome=outcome, evidence=hostile) for outcome in Outcome
        ),
        timeline=(Boot(name=hostile, spans=BOOT.spans, marks=(Mark(name=hostile, at=3),)),),
        console=(ConsoleLine(life=0, at=0, text=hostile),),
    )
    found = parse(to_html(report))
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert found.text.count(hostile) >= 8


def test_nothing_is_fetched() -> None:
    html = to_html(REPORT)
    for _, attributes in parse(html).tags:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "data:,").startswith("data:")
    assert "default-src 'none'" in html
    assert not re.search(r"url\(|@import|https?://", html)


def test_failures_come_first() -> None:
    html = to_html(REPORT)
    assert html.index("What failed") < html.index("Where the seconds went") < html.index("All checks")
    assert html.index("last words") < html.index("Where the seconds went")
    assert "What failed" not in to_html(outcomes(Outcome.PASSED))


def test_without_machines() -> None:
    found = parse(to_html(replace(REPORT, timeline=(), console=(), checks=(), numbers={}, notes=())))
    assert "Where the seconds went" not in found.text


def test_chart_of_boots_shares_one_axis() -> None:
    drawn = chart(BOOT, 82)
    assert [tick.name for tick in drawn.ticks] == ["0 s", "15 s", "30 s", "45 s", "60 s", "75 s", "90 s"]
    assert [bar.name for bar in drawn.phases] == ["firmware", "kernel"]
    (unit,) = drawn.units
    assert (unit.left, unit.width, unit.seconds) == ("22.22", "45.00", "40.5 s")
    # The latest is on top, and its name stands on the left of its line: no line crosses a name.
    assert [(mark.name, mark.row, mark.flip) for mark in drawn.marks] == [
        ("node Ready 82.0 s", 0, True),
        ("API ready 70.1 s", 1, True),
    ]
    assert chart(Boot(name="x", marks=(Mark(name="early", at=1),)), 82).marks[0].flip is False


def test_chart_of_nothing() -> None:
    drawn = chart(Boot(name="x"), 0)
    assert drawn.mark_rows == 0
    assert drawn.ticks[-1].left == "100.00"


def test_long_console_is_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "KEPT_LINES", 10)
    lines = tuple(ConsoleLine(life=number // 50, at=number, text=f"line-{number}.") for number in range(100))
    text = parse(to_html(replace(REPORT, console=lines))).text
    assert "line-4." in text
    assert "line-5." not in text
    assert "[... 90 lines left out ...]" in text
    assert "line-95." in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (732, "12 min 12 s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
