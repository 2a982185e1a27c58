"""A part of ci/full: `k3img lab` as a person uses it, ended by Ctrl-C, and killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ci import limit
from ci.steps import Context, PartError, copy_project, do, empty, expect, kubectl, linked, say

from k3img import scratch
from k3img.vm.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable

PROFILE = """\
extends: x86
cluster:
  name: shop
  nodes:
    a-1: {role: server, initializer: true}
    a-2: {role: agent}
"""
NAMES = ("a-1", "a-2")
READY, QUICK = 1200, 120
"""Seconds, with machines that are emulated on 2 processors."""


def run(ctx: Context) -> None:
    """Both nodes become Ready, kubectl works; nothing is left after Ctrl-C, and after a crash and --clean."""
    empty(ctx.work)
    limit.adopt_orphans()
    project, folder = copy_project(ctx, ctx.work / "project"), linked(ctx)
    (project / "profiles/shop.yaml").write_text(PROFILE, encoding="utf-8")
    argv = ("k3img", "lab", "--tree", str(project), "--profile", "shop", "--out", str(folder))
    before = _state()
    kubeconfig = folder / "lab-kubeconfig.yaml"

    lab = _start(argv, ctx.work / "lab.log")
    _wait(lab, "both nodes Ready", lambda text: all(f"{name} " in _ready(text) for name in NAMES))
    expect(kubeconfig.stat().st_mode & 0o077 == 0, "others may read the kubeconfig")
    listed = json.loads(kubectl(ctx, kubeconfig, "get", "nodes", "-o", "json"))["items"]
    names = {item["metadata"]["name"] for item in listed}
    expect(names == set(NAMES), f"kubectl lists {names}")
    expect(not Path("/sys/class/net/lab0").exists(), "the lab's bridge is in this network")
    os.killpg(lab.pid, signal.SIGINT)  # as a terminal does
    expect(lab.wait_until_ended(QUICK) and not lab.failed, f"Ctrl-C does not end it well: {lab.messages()}")
    expect(not kubeconfig.exists(), "the kubeconfig is still there")
    _nothing_left(before, "Ctrl-C")

    lab = _start(argv, ctx.work / "killed.log")
    _wait(lab, "its machines", lambda text: all(f"  {name} " in text for name in NAMES))
    lab.kill()
    do("k3img", "lab", "--clean")
    _nothing_left(before, "a crash")


def _start(argv: tuple[str, ...], log: Path) -> Child:
    say(f"+ {' '.join(argv)} &")
    return Child(argv, log=log, cwd=log.parent, name="the lab")


def _wait(lab: Child, subject: str, seen: Callable[[str], bool]) -> None:
    """Wait until its output shows something. Raises `PartError` when it ends first, or is too slow."""
    began = time.monotonic()
    while not seen(text := lab.log.read_text(encoding="utf-8", errors="replace")):
        if not lab.running or time.monotonic() - began > READY:
            say(text)
            raise PartError(f"{subject}: not within {READY} s" if lab.running else f"ended before {subject}")
        time.sleep(1)
    say(f"{subject} after {time.monotonic() - began:.0f} s")


def _ready(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "node Ready" in line)


def _state() -> tuple[set[Path], str, tuple[int, ...]]:
    """What a lab might leave: folders, mounts, network devices, processes below us."""
    folders = set(scratch.PLACE.glob(f"{scratch.PREFIX}*"))
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8")
    devices = " ".join(sorted(path.name for path in Path("/sys/class/net").iterdir()))
    return folders, f"{mounts}\n{devices}", limit.descendants(os.getpid())


def _nothing_left(before: object, after_what: str) -> None:
    deadline = time.monotonic() + 10  # the kernel ends a name space's processes a moment later
    while (now := _state()) != before and time.monotonic() < deadline:
        time.sleep(0.5)
    expect(now == before, f"after {after_what}: {now} in the place of {before}")
    say(f"nothing is left after {after_what}")
