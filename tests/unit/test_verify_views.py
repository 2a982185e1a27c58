"""Questions to a busy server: one that may be repeated is, and only a real answer counts."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from k3img.cluster.api import Answer, Api, ApiError
from k3img.verify.views import ANSWER, Views
from k3img.vm.faults import WaitError

SILENT = None
"""A server that gives no answer in time."""


class Server:
    """Answers a scripted row, then as it did last."""

    def __init__(self, *row: Answer | None) -> None:
        self.row = list(row)
        self.asked: list[str] = []
        self.open = 0

    def request(self, method: str, path: str, _body: object = None) -> Answer:
        self.asked.append(method)
        self.open += 1
        answer = self.row.pop(0) if len(self.row) > 1 else self.row[0]
        if answer is SILENT:
            raise ApiError(f"{method} {path}: timed out")
        return answer

    def get(self, path: str) -> Any:
        return Api.get(cast("Api", self), path)

    def close(self) -> None:
        self.open = 0


class Seen(Views):
    """A cluster of one server, and a clock that only waiting moves."""

    def __init__(self, server: Server) -> None:
        self.server, self.clock = server, 0.0

    def api(self, name: str, *, timeout: float = 30) -> Api:
        del name, timeout
        return cast("Api", self.server)

    def console(self) -> str:
        return ""

    def check(self) -> None:
        """It is always there."""

    def now(self) -> float:
        return self.clock

    def pause(self, seconds: float) -> None:
        self.clock += seconds


def said(status: int, content: object = None) -> Answer:
    return Answer(status=status, text=json.dumps(content))


NODES = said(200, {"items": [{"metadata": {"name": "a-1"}}]})
SYSTEM = said(200, {"metadata": {"uid": "4711"}})


def test_nodes_are_asked_again_while_nobody_answers() -> None:
    seen = Seen(Server(SILENT, said(503), NODES))
    assert set(seen.nodes("a-1")) == {"a-1"}
    assert seen.server.open == 0, "a connection stays open"


def test_one_look_at_the_nodes_is_one() -> None:
    seen = Seen(Server(SILENT, NODES))
    assert seen.listed("a-1") == {}
    assert seen.clock == 0


@pytest.mark.parametrize("ask", ["nodes", "uid"])
def test_silence_is_no_answer(ask: str) -> None:
    seen = Seen(Server(SILENT))
    with pytest.raises(WaitError, match=f"waited {ANSWER} s in vain"):
        getattr(seen, ask)("a-1")


def test_uid_waits_for_an_answer_and_gives_up_with_what_was_said() -> None:
    assert Seen(Server(SILENT, said(500), SYSTEM)).uid("a-1") == "4711"
    with pytest.raises(WaitError) as caught:
        Seen(Server(said(403, "no entry"))).uid("a-1")
    assert "HTTP 403" in caught.value.details
    assert "no entry" in caught.value.details


def test_a_write_whose_answer_was_lost_is_there() -> None:
    seen = Seen(Server(SILENT, said(409)))
    seen.keep("before", through="a-1")
    assert seen.server.asked == ["POST", "POST"]


@pytest.mark.parametrize(("status", "there"), [(200, True), (404, False)])
def test_only_the_server_can_say_that_something_is_gone(status: int, there: bool) -> None:
    assert Seen(Server(SILENT, said(503), said(status))).has("before", seen_by="a-1") is there


def test_a_busy_server_answers_no_write() -> None:
    assert not Seen(Server(SILENT)).answers("a-1")
    assert not Seen(Server(said(201), said(404))).answers("a-1"), "taken, and not there afterwards"
    assert Seen(Server(said(201), said(200))).answers("a-1")


def test_reported() -> None:
    lease = said(200, {"spec": {"renewTime": "2026-11-28T10:00:00.000000Z"}})
    found = Seen(Server(lease)).reported("a-2", seen_by="a-1")
    assert found is not None
    assert found.isoformat() == "2026-11-28T10:00:00+00:00"
    assert Seen(Server(SILENT)).reported("a-2", seen_by="a-1") is None
