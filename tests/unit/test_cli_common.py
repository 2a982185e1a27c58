"""What commands share: a signal ends them once, and in order."""

from __future__ import annotations

import signal

import pytest

from k3img.cli.common import ends_in_order


def test_a_second_signal_does_not_interrupt_the_tidying_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    tidied = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            tidied.append("all")

    with pytest.raises(SystemExit) as end, ends_in_order():
        work()
    assert (end.value.code, tidied) == (128 + signal.SIGTERM, ["all"])
    assert signal.getsignal(signal.SIGTERM) is before
