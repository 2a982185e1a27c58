"""A linter for finished images: applies the rules, and tells what they found as text, JSON or SARIF."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3img.image.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.image.opened import Opened
    from k3img.image.rules.model import Rule


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one rule said of an image; no evidence is good."""

    rule: Rule
    evidence: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.evidence


def inspect(image: Opened) -> tuple[Result, ...]:
    """Apply every rule that fits: about disks to a whole image, about /usr where it can be read."""
    return tuple(
        Result(rule=rule, evidence=tuple(rule.check(image)))
        for rule in RULES
        if (image.raw is not None if rule.disk else not image.unreadable)
    )


def as_text(results: Sequence[Result], name: str) -> str:
    """A line for each rule, and under it what is wrong and why that matters."""
    lines = []
    for result in results:
        lines.append(f"{'✓' if result.ok else '✗'} {result.rule.name}")
        if not result.ok:
            lines += [f"    {text}" for text in result.evidence]
            lines.append(f"    why: {result.rule.reason}")
    bad = sum(not result.ok for result in results)
    lines.append(f"{name}: {len(results) - bad} of {len(results)} rules hold")
    return "\n".join(lines)


def as_json(results: Sequence[Result], name: str) -> str:
    """For programs; `ok` is whether the exit code is 0."""
    rows = [{"rule": r.rule.name, "ok": r.ok, "evidence": list(r.evidence)} for r in results]
    return json.dumps({"image": name, "ok": all(r.ok for r in results), "rules": rows}, indent=1)


def as_sarif(results: Sequence[Result], name: str, version: str) -> str:
    """SARIF 2.1.0 (OASIS), which code hosts show beside a change."""
    rules: list[dict[str, Any]] = [
        {"id": r.rule.name, "shortDescription": {"text": r.rule.reason}} for r in results
    ]
    found = [
        {
            "ruleId": result.rule.name,
            "level": "error",
            "message": {"text": text},
            "locations": [{"physicalLocation": {"artifactLocation": {"uri": name}}}],
        }
        for result in results
        for text in result.evidence
    ]
    driver = {"name": "k3img", "version": version, "rules": rules}
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": found}],
    }
    return json.dumps(log, indent=1)
