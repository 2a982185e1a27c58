"""Whether a verification's own outputs hold a secret of a cluster under test: they are kept and shared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from k3img.log import line
from k3img.verify.report import Check, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from k3img.verify.report import ConsoleLine
    from k3img.vm.verbs import Verbs

NAME = "No secret of a cluster is in the evidence, in a console's or in QEMU's log"


def outputs(checks: Iterable[Check], console: Iterable[ConsoleLine], keep: Path | None) -> dict[str, str]:
    """What is saved and shown, by where it is: reports are made of the first two, logs lie in `keep`."""
    found = {f"evidence of {check.name!r}": check.evidence for check in checks}
    found["the report's console"] = "\n".join(entry.text for entry in console)
    for path in sorted(keep.glob("*.log")) if keep else ():
        found[path.name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def visible(machine: Verbs) -> str:
    """What anybody on a node may see of its programs: this boot's journal, and their arguments."""
    show = "journalctl -b -o cat --no-pager; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    return machine.succeed(show, timeout=180)


def check(secrets: Mapping[str, str], seen: Mapping[str, str], *, group: str) -> Check:
    """One check over all of them. It says which secret is where, never the secret. `secrets` go by name."""
    began = time.monotonic()
    found = [
        f"{name} is in {place}"
        for place, text in seen.items()
        for name, value in secrets.items()
        if value in text
    ]
    if found:
        line(f"  ✗ {NAME}")
    return Check(
        name=NAME,
        group=group,
        outcome=Outcome.FAILED if found else Outcome.PASSED,
        evidence="\n".join(found) or f"{len(secrets)} secrets, looked for in {len(seen)} texts",
        seconds=time.monotonic() - began,
    )
