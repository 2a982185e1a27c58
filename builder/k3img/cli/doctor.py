"""`k3img doctor`: what this machine has, what it lacks, and how to get it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from k3img import tree as trees
from k3img.errors import UsageError
from k3img.tools import binfmt, host, kvm, toolbox
from k3img.tools.finding import Finding, State, advice
from k3img.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKS = {State.OK: "✓", State.NOTE: "!", State.MISSING: "✗"}


@click.command()
@click.option(
    "--fix", is_flag=True, help="Get what is missing: mkosi and the tools tree, as root also apt packages."
)
@click.option(
    "--target",
    type=click.Choice(tuple(binfmt.MACHINES)),
    default="amd64",
    show_default=True,
    help="Look at what images of this architecture need.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--again", is_flag=True, help="Boot the guest that tests KVM again instead of remembering.")
def doctor(*, fix: bool, target: str, as_json: bool, again: bool) -> int:
    """Say for each tool: found, version, needed for what, and how to get it.

    Exit code 3 when something needed is missing.
    """
    tree = _tree()
    if fix:
        mend(tree, target)
    findings = examine(tree, target, again=again)
    click.echo(as_text(findings) if not as_json else to_json(findings), nl=as_json)
    return 3 if any(finding.state is State.MISSING for finding in findings) else 0


def mend(tree: Tree, target: str = "amd64") -> None:
    """Get what can be got: packages of the host when we are root, then mkosi and the tools tree.

    As root also programs of `target` are made to run.
    """
    if os.geteuid() == 0:
        host.install(f.package for f in host.programs() if f.state is not State.OK and f.package)
    box = toolbox.prepare(tree, target=target)
    if os.geteuid() == 0:
        binfmt.register(target, box.tree)


def examine(tree: Tree, target: str = "amd64", *, again: bool = False) -> tuple[Finding, ...]:
    """Look at everything."""
    seen = toolbox.survey(tree, target=target)
    foreign = binfmt.finding(target if target != "amd64" else "arm64")
    return (*seen.findings, _kvm(seen.toolbox(), tree, again=again), *host.properties(tree), foreign)


def as_text(findings: Sequence[Finding]) -> str:
    """A table for people, and under it what to do."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "found", "needed for"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(MARKS[finding.state], finding.name, finding.found, finding.needed_for)
    out = Console(width=None if Console().is_terminal else 160, highlight=False)
    with out.capture() as text:
        out.print(table)
        for state in (State.NOTE, State.MISSING):
            for line in advice(finding for finding in findings if finding.state is state):
                out.print(f"{MARKS[state]} {line}", markup=False, soft_wrap=True)
        missing = sum(finding.state is State.MISSING for finding in findings)
        out.print(f"{missing} missing" if missing else "nothing is missing")
    return "\n".join(line.rstrip() for line in text.get().splitlines()) + "\n"


def to_json(findings: Sequence[Finding]) -> str:
    """The findings for a program to read; `ok` is whether the exit code is 0."""
    rows = [
        {"name": f.name, "state": f.state, "found": f.found, "needed_for": f.needed_for, "how": f.how}
        for f in findings
    ]
    return json.dumps({"ok": all(f.state is not State.MISSING for f in findings), "findings": rows}, indent=1)


def _tree() -> Tree:
    """The project's folders; outside of a project only the cache matters here."""
    try:
        return trees.find()
    except UsageError:
        return Tree(root=Path.cwd(), cache=trees.cache_dir())


def _kvm(tools: toolbox.Toolbox | None, tree: Tree, *, again: bool) -> Finding:
    name, needed_for = "KVM", "virtual machines at full speed"
    if tools is None:
        return Finding(name=name, state=State.NOTE, found="not tried: no QEMU", needed_for=needed_for)
    answer = kvm.works(tools, tree, again=again)
    return Finding(
        name=name,
        state=State.OK if answer.works else State.NOTE,
        found=f"{'works' if answer.works else 'no'}: {answer.why}",
        needed_for=needed_for,
        how=answer.how,
    )


COMMANDS = (doctor,)
