"""Flipped bytes in /usr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.image import erofs, gpt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.verify.life import Life

STEP = 1 << 20
"""One byte is flipped in each MiB: some of it is read early, whatever the boot reads."""

RESTARTS = 2


def flips(raw: Path) -> list[tuple[int, int]]:
    """Offsets of bytes in slot A that hold data, with other values for them."""
    data, _ = gpt.usr(gpt.read(raw))
    used = erofs.used_bytes(raw, data.start)
    changes = []
    with raw.open("rb") as image:
        # Not the first block: without its superblock there would be no file system to start from.
        for offset in range(data.start + STEP // 2, data.start + used, STEP):
            image.seek(offset)
            changes.append((offset, image.read(1)[0] ^ 0xFF))
    return changes


@pytest.fixture(scope="module")
def console_before(life: Life) -> int:
    """How long the console's log is before the damaged machine starts."""
    return len(life.machine.console())


def test_is_caught(life: Life, console_before: int, evidence: Callable[[object], None]) -> None:
    """The machine notices that bytes of /usr were flipped, and restarts by itself instead of hanging."""
    machine = life.machine
    if not machine.on:
        pytest.skip("the machine is off: it did not come back from an earlier check")
    life.forget_api()
    machine.power_cut()
    changes = flips(life.image.raw)
    machine.damage(changes)
    evidence(f"{len(changes)} bytes flipped, one in each MiB of /usr")
    machine.start()
    machine.wait_until(
        "the machine to restart by itself", lambda: machine.qmp.count("RESET") >= RESTARTS, timeout=90
    )
    evidence(f"restarted {RESTARTS} times in {machine.seconds():.0f} s")


def test_says_why(life: Life, console_before: int, evidence: Callable[[object], None]) -> None:
    """The console names the corrupted block."""
    said = life.machine.console()[console_before:]
    lines = [line for line in said.splitlines() if "verity" in line and "corrupt" in line]
    evidence("\n".join(lines[:8]))
    assert lines


def test_no_shell(life: Life, console_before: int) -> None:
    """Nobody is offered an emergency shell."""
    said = life.machine.console()[console_before:]
    assert "emergency mode" not in said.lower()
    assert "Press Enter for maintenance" not in said
