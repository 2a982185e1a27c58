"""What was found out about the builder's machine: one finding per program or property."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from k3img.errors import MissingToolError

if TYPE_CHECKING:
    from collections.abc import Iterable


class State(StrEnum):
    """`NOTE` is worth knowing but stops nobody; `MISSING` makes `k3img doctor` exit with 3."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`name`: program or property; `found`: what there is; `how`: what to type when it is not enough.

    `package` is the Debian package of the host that would mend it, empty when apt cannot.
    """

    name: str
    state: State
    found: str
    needed_for: str
    how: str = ""
    package: str = ""


def advice(findings: Iterable[Finding]) -> list[str]:
    """What to type, one line for all findings that the same command mends."""
    by_how: dict[str, list[str]] = {}
    for finding in findings:
        if finding.how:
            by_how.setdefault(finding.how, []).append(finding.name)
    return [f"{', '.join(names)}: {how}" for how, names in by_how.items()]


def require(findings: Iterable[Finding]) -> None:
    """Raise one `MissingToolError` that names everything missing and how to get it; or return."""
    missing = [finding for finding in findings if finding.state is State.MISSING]
    if not missing:
        return
    lines = (f"{f.name} ({f.found}; for {f.needed_for})" for f in missing)
    raise MissingToolError(
        f"missing on this machine: {', '.join(finding.name for finding in missing)}",
        details="\n".join((*lines, *advice(missing))),
        hint="`ci/setup` does it all; `k3img doctor` shows what there is.",
    )
