"""A verification's outputs are kept and shared: a secret in one of them is found, and not told again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import secrecy
from k3img.verify.report import Check, ConsoleLine, Outcome

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = {"the server password": "0123456789abcdef", "the agents' password": "fedcba9876543210"}
CHECKS = (Check(name="a pod", group="Join", outcome=Outcome.PASSED, evidence="it runs"),)


def look(checks: tuple[Check, ...], console: str, keep: Path | None) -> Check:
    seen = secrecy.outputs(checks, [ConsoleLine(life=0, at=1.0, text=console)], keep)
    return secrecy.check(SECRETS, seen, group="Image")


def test_outputs_without_a_secret(tmp_path: Path) -> None:
    (tmp_path / "a-1.qemu.log").write_bytes(b"+ qemu \xff\n")
    found = look(CHECKS, "login:", tmp_path)
    assert found.outcome is Outcome.PASSED
    assert found.evidence == "2 secrets, looked for in 3 texts"


@pytest.mark.parametrize("where", ["evidence", "console", "log"])
def test_a_secret_is_found_wherever_it_is(tmp_path: Path, where: str) -> None:
    value = SECRETS["the agents' password"]
    text = {"evidence": "", "console": "", "log": "", where: f"K10abc::node:{value}"}
    (tmp_path / "a-1.qemu.log").write_text(text["log"])
    checks = (Check(name="a pod", group="Join", outcome=Outcome.PASSED, evidence=text["evidence"]),)
    found = look(checks, text["console"], tmp_path)
    assert found.outcome is Outcome.FAILED
    assert "the agents' password is in " in found.evidence
    assert value not in found.evidence


def test_a_run_that_keeps_no_logs() -> None:
    assert look(CHECKS, "", None).outcome is Outcome.PASSED
