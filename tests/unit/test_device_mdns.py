"""A node's own name: claimed again when nobody answers for it, and not for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.nodes import FakeSystem

from k3img.device import mdns, resolve
from k3img.device.place import Place

if TYPE_CHECKING:
    from pathlib import Path

RESTART = "systemctl try-restart systemd-resolved.service"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that are asked for; the first of them is known from then on when it ends in `known`."""
    found: list[str] = []

    def addresses(_place: Place, name: str) -> tuple[str, ...]:
        found.append(name)
        return ("10.0.0.7",) if name.startswith("known") else ()

    monkeypatch.setattr(resolve, "addresses", addresses)
    return found


def test_a_name_that_is_answered_is_left_alone(tmp_path: Path, asked: list[str]) -> None:
    place = Place(root=tmp_path)
    system = FakeSystem(place=place)
    mdns.claim(place, system, "known-abcdef")
    assert asked == ["known-abcdef.local"]
    assert not system.calls


def test_a_lost_name_is_claimed_a_few_times_in_a_boot(tmp_path: Path, asked: list[str]) -> None:
    place = Place(root=tmp_path)
    system = FakeSystem(place=place)
    for _ in range(mdns.LIMIT + 3):
        mdns.claim(place, system, "pi-2-abcdef")
    assert system.calls == [RESTART] * mdns.LIMIT
    assert "pi-2-abcdef.local" in system.logged[0]
    assert len(asked) == mdns.LIMIT, "and then nobody asks any more"
