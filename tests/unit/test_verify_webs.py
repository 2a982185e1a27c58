"""Pods of a cluster under test: their addresses are waited for, however often a busy server is late."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from k3img.cluster.api import ApiError
from k3img.verify.webs import Webs
from k3img.vm.faults import WaitError
from k3img.vm.verbs import Waits

if TYPE_CHECKING:
    from k3img.verify.lab import LabCluster

NAMES = ("a-1", "a-2")


class Cluster(Waits):
    """One list of pods after the other, None for no answer in time; the last one stays."""

    def __init__(self, *lists: list[dict[str, Any]] | None) -> None:
        self.lists, self.clock = list(lists), 0.0
        self.members: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self.members[name]

    def api(self, _name: str) -> Any:
        return SimpleNamespace(get=self._get)

    def _get(self, _path: str) -> Any:
        pods = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if pods is None:
            raise ApiError("GET pods: timed out")
        return {"items": pods}

    def console(self) -> str:
        return ""

    def check(self) -> None:
        """It is always there."""

    def now(self) -> float:
        return self.clock

    def pause(self, seconds: float) -> None:
        self.clock += seconds


def pod(name: str, address: str, *, ready: bool = True) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name}, "status": {"podIP": address, "conditions": conditions}}


BOTH = [pod("web-a-1", "10.42.0.2"), pod("web-a-2", "10.42.1.2"), pod("other", "10.42.1.3")]


def webs(*lists: list[dict[str, Any]] | None) -> Webs:
    return Webs(cast("LabCluster", Cluster(*lists)), NAMES)


def test_addresses_are_those_of_ready_pods() -> None:
    late = [BOTH[0], pod("web-a-2", "10.42.1.2", ready=False)]
    found = webs(None, [], late, BOTH).addresses(seen_by="a-1")
    assert found == {"a-1": "10.42.0.2", "a-2": "10.42.1.2"}


def test_never_an_address_that_is_empty() -> None:
    with pytest.raises(WaitError) as caught:
        webs([BOTH[0]]).addresses(seen_by="a-1")
    assert "{'a-1': '10.42.0.2', 'a-2': ''}" in caught.value.details


def test_a_page_of_each_address_in_one_go() -> None:
    asked = []

    def answer(command: str, **_more: object) -> str:
        asked.append(command)
        return "10.42.0.2 200\n10.42.1.2 503\n"

    cluster = Cluster(BOTH)
    machine = SimpleNamespace(succeed=lambda _: "4711\n", wait_until_succeeds=answer)
    cluster.members = {"a-1": SimpleNamespace(machine=machine)}
    found = Webs(cast("LabCluster", cluster), NAMES).fetch("a-1", "10.42.0.2", "10.42.1.2")
    assert found == {"10.42.0.2": "200", "10.42.1.2": "503"}
    assert [command.rpartition("' ")[2] for command in asked] == ["4711 10.42.0.2 10.42.1.2"]
