"""Reboot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify import identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.life import Life


def test_reboot(ready: Life) -> None:
    """The node restarts in order, once, and becomes Ready again."""
    ready.identity = ready.identity or identity.read(ready.machine, ready.api)
    resets = ready.machine.qmp.count("RESET")
    since = ready.restart()
    ready.become_ready("after a reboot", since=since)
    assert ready.machine.qmp.count("RESET") == resets + 1


def test_identity(ready: Life, evidence: Callable[[object], None]) -> None:
    """It is still the same node of the same cluster."""
    if ready.identity is None:
        pytest.skip("nothing to compare with")
    now = identity.read(ready.machine, ready.api)
    evidence(now)
    assert ready.identity.differences(now) == ()
