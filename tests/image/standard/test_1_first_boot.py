"""First boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.life import Life


def test_boots(life: Life, evidence: Callable[[object], None]) -> None:
    """The unmodified image boots from power on, without internet and without a default route."""
    life.power_on()
    evidence(f"a guest answered {life.machine.seconds():.0f} s after power on")


def test_becomes_ready(life: Life, evidence: Callable[[object], None]) -> None:
    """Kubernetes starts and its node becomes Ready."""
    boot = life.become_ready("first boot", since=life.machine.powered_on)
    for mark in boot.marks:
        evidence(f"{mark.name}: {mark.at:.1f} s after power on")


def test_no_way_out(host: Any) -> None:
    """The machine has an address but no default route, so nothing can come from outside."""
    assert "10.0.2." in host.check_output("ip -4 -o address show scope global")
    assert host.check_output("ip -4 route show default") == ""
    assert host.check_output("ip -6 route show default") == ""


def test_settles(life: Life, host: Any) -> None:
    """Everything that was to start has started, and no unit failed."""
    state = life.machine.execute("systemctl is-system-running --wait", timeout=120)
    failed = host.check_output("systemctl --failed --plain --no-legend")
    jobs = host.check_output("systemctl list-jobs --no-legend")
    assert (state.stdout.strip(), failed) == ("running", ""), f"jobs: {jobs}"


def test_did_not_restart(life: Life) -> None:
    """The machine did not restart by itself on the way."""
    assert life.machine.qmp.count("RESET") == 0
