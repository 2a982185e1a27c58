"""What a node publishes: its name, claimed again when nobody answers for it, and what it waits for."""

from __future__ import annotations

import shlex
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


@pytest.fixture
def node(tmp_path: Path) -> FakeSystem:
    place = Place(root=tmp_path)
    mdns.publish(place, node="pi-2", role="agent", digits="abcdef")
    return FakeSystem(place=place)


def txt(system: FakeSystem) -> list[str]:
    """The strings of the TXT record, taken apart as systemd-resolved does (quotes, as a shell has them)."""
    lines = (system.place.root / mdns.SERVICE).read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("TxtText="))
    return shlex.split(line.removeprefix("TxtText="))


def test_what_a_node_waits_for_is_published_and_taken_back(node: FakeSystem) -> None:
    base = ["node=pi-2", "role=agent", "cluster=abcdef"]
    assert txt(node) == base
    for state, what, told in (
        ("starting", "Kubernetes to start", []),
        ("ready", "", []),
        ("waiting", "a server of cluster shop", ["state=waiting", "waits-for=a server of cluster shop"]),
        ("waiting", "a server of cluster shop", ["state=waiting", "waits-for=a server of cluster shop"]),
        ("starting", "Kubernetes to start", ["state=starting", "waits-for=Kubernetes to start"]),
        ("ready", "", []),
    ):
        mdns.tell(node.place, node, state, what)
        assert txt(node) == base + told
    assert node.calls == [RESTART] * 3, "only what changed is worth a restart"


def test_what_cannot_be_published_is_made_to_fit(node: FakeSystem) -> None:
    mdns.tell(node.place, node, "stopped", 'no "key"\\ in\nline 3 ' + "ü" * 300)
    said = txt(node)[-1]
    assert said.startswith("waits-for=no 'key'/ in line 3 üü")
    assert len(said.encode()) < 255
    assert len((node.place.root / mdns.SERVICE).read_text().splitlines()) == 5


def test_a_node_that_publishes_nothing_has_nothing_to_tell(tmp_path: Path) -> None:
    place = Place(root=tmp_path)
    assert not mdns.tell(place, FakeSystem(place=place), "waiting", "x")
    assert not (tmp_path / mdns.SERVICE).exists()
