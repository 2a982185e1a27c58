"""What a verification found: checks with their evidence, and where the seconds went.

One report, four readers: a person at a terminal, a program (JSON), a CI system (JUnit XML), and a person
who was not there (`k3img.verify.page`).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.verify.timeline import Boot

STANDIN_NOTE = (
    "The runtime is the test stand-in, not k3s: real Kubernetes, kine and containerd behind k3s' command "
    "line. Not covered: flannel, coredns, traefik, servicelb, metrics-server, local-path, helm controller."
)

PI_NOTE = (
    "Not provable in QEMU, only on a Raspberry Pi: EEPROM, start4.elf and config.txt, what they do to the "
    "device tree, the network chip, USB 3 and PCIe, the EMMC2 slot, WiFi, the watchdog's reset."
)
EMULATED_NOTE = (
    "Emulated: mitigations=off was added to the kernel's command line, from outside; the image is unchanged."
)

# XML 1.0 has no way at all to write most control characters.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Outcome(StrEnum):
    """How a check ended. `error`: the machine or the harness broke; `skipped`: it could not be asked."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One question and its answer. `evidence` is text: why it failed, or what was seen."""

    name: str
    group: str
    outcome: Outcome
    evidence: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it was asked and held."""
        return self.outcome is Outcome.PASSED


@dataclass(frozen=True, kw_only=True)
class ConsoleLine:
    """A line of the serial console, `at` seconds after the power on number `life` (from 0)."""

    life: int
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything about one verification.

    `sha256` is that of the image file, measured before the first boot and again after the last one.
    `numbers` are measurements (name to value with unit); `notes` say what this report does not prove.
    """

    profile: str
    version: str
    file: str
    sha256: str
    runtime: str
    standin: bool
    accel: str
    qemu: str
    began: str
    seconds: float
    checks: tuple[Check, ...]
    timeline: tuple[Boot, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    console: tuple[ConsoleLine, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check that was asked held, and at least one was asked."""
        asked = [check for check in self.checks if check.outcome is not Outcome.SKIPPED]
        return bool(asked) and all(check.ok for check in asked)

    def count(self, outcome: Outcome) -> int:
        """How many checks ended so."""
        return sum(check.outcome is outcome for check in self.checks)

    @property
    def verdict(self) -> str:
        """One line: `41 of 42 checks passed, 1 failed`."""
        asked = len(self.checks) - self.count(Outcome.SKIPPED)
        text = f"{self.count(Outcome.PASSED)} of {asked} checks passed"
        for outcome, word in (
            (Outcome.FAILED, "failed"),
            (Outcome.ERROR, "could not run"),
            (Outcome.SKIPPED, "skipped"),
        ):
            if number := self.count(outcome):
                text += f", {number} {word}"
        return text


def to_json(report: Report) -> str:
    """The report for a program to read. Keys are only ever added."""
    return json.dumps(_content(report), indent=1, ensure_ascii=False)


def _content(report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "verdict": report.verdict,
        "profile": report.profile,
        "version": report.version,
        "image": {"raw": report.file, "sha256": report.sha256},
        "runtime": {"version": report.runtime, "standin": report.standin},
        "accel": report.accel,
        "qemu": report.qemu,
        "began": report.began,
        "seconds": round(report.seconds, 1),
        "checks": [
            {
                "name": check.name,
                "group": check.group,
                "ok": check.ok,
                "outcome": str(check.outcome),
                "seconds": round(check.seconds, 2),
                "evidence": check.evidence,
            }
            for check in report.checks
        ],
        "timeline": [
            {
                "boot": boot.name,
                "seconds": round(boot.seconds, 1),
                "spans": [
                    {"name": s.name, "kind": str(s.kind), "start": round(s.start, 2), "end": round(s.end, 2)}
                    for s in boot.spans
                ],
                "marks": [{"name": mark.name, "at": round(mark.at, 2)} for mark in boot.marks],
            }
            for boot in report.timeline
        ],
        "numbers": dict(report.numbers),
        "notes": list(report.notes),
    }


def to_junit(report: Report) -> str:
    """JUnit XML: a suite for each group of checks."""
    root = ET.Element("testsuites", {"name": f"k3img verify {_xml(report.profile)}"})
    for group in dict.fromkeys(check.group for check in report.checks):
        checks = [check for check in report.checks if check.group == group]
        suite = ET.SubElement(
            root,
            "testsuite",
            {
                "name": _xml(group),
                "tests": str(len(checks)),
                "failures": str(sum(check.outcome is Outcome.FAILED for check in checks)),
                "errors": str(sum(check.outcome is Outcome.ERROR for check in checks)),
                "skipped": str(sum(check.outcome is Outcome.SKIPPED for check in checks)),
                "time": f"{sum(check.seconds for check in checks):.2f}",
                "timestamp": report.began,
            },
        )
        properties = ET.SubElement(suite, "properties")
        for name in ("file", "sha256", "runtime", "accel", "qemu"):
            value = _xml(str(getattr(report, name)))
            ET.SubElement(properties, "property", {"name": name, "value": value})
        for check in checks:
            _case(suite, check, report.profile)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, check: Check, profile: str) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        {
            "name": _xml(check.name),
            "classname": _xml(f"{profile}.{check.group}"),
            "time": f"{check.seconds:.2f}",
        },
    )
    evidence = _xml(check.evidence)
    first = evidence.strip().partition("\n")[0]
    match check.outcome:
        case Outcome.PASSED:
            ET.SubElement(case, "system-out").text = evidence
        case Outcome.SKIPPED:
            ET.SubElement(case, "skipped", {"message": first})
        case Outcome.FAILED:
            ET.SubElement(case, "failure", {"message": first}).text = evidence
        case Outcome.ERROR:
            ET.SubElement(case, "error", {"message": first}).text = evidence


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def save(path: Path, text: str) -> Path:
    """Write a report's file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    return part.rename(path)
