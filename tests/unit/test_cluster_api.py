"""The API's client and the writer, without an API: what goes wrong is told."""

from __future__ import annotations

import base64
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import yaml

from k3img.cluster import ca
from k3img.cluster.api import Answer, Api, ApiError, condition, with_server
from k3img.verify import writes
from k3img.verify.life import node_is_ready


def kubeconfig(**changes: str) -> str:
    now = datetime.now(UTC)
    pair = ca.authority("test", ca.Validity(begin=now, end=now + timedelta(days=1)))
    certificate, key = pair.certificate, pair.key
    fields = {
        "certificate-authority-data": base64.b64encode(certificate).decode(),
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
        **changes,
    }
    return yaml.safe_dump(
        {
            "clusters": [
                {
                    "name": "default",
                    "cluster": {
                        "server": "https://127.0.0.1:6443",
                        "certificate-authority-data": fields["certificate-authority-data"],
                    },
                }
            ],
            "users": [
                {
                    "name": "default",
                    "user": {name: fields[name] for name in ("client-certificate-data", "client-key-data")},
                }
            ],
        }
    )


def closed_port() -> int:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_nobody_listens() -> None:
    api = Api(kubeconfig(), closed_port())
    assert api.ready() is False
    with pytest.raises(ApiError, match=r"GET /version: .*refused"):
        api.get("/version")
    assert node_is_ready(api, None) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "clusters: []",
        "{",
        "[1]",
        kubeconfig(**{"client-key-data": "!!"}),
        kubeconfig(**{"client-key-data": base64.b64encode(b"no key").decode()}),
        kubeconfig(**{"certificate-authority-data": base64.b64encode(b"no CA").decode()}),
    ],
)
def test_unusable_kubeconfig(text: str) -> None:
    with pytest.raises(ApiError, match="kubeconfig cannot be used"):
        Api(text, 1)


def test_with_server() -> None:
    changed = yaml.safe_load(with_server(kubeconfig(), "https://127.0.0.1:40123"))
    assert changed["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:40123"


def test_answer() -> None:
    assert Answer(status=201, text="{}").ok
    assert not Answer(status=404, text="").ok
    with pytest.raises(ApiError, match="not JSON"):
        Answer(status=200, text="<html>").json()


def test_condition() -> None:
    node = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert condition(node, "Ready") == "True"
    assert condition(node, "DiskPressure") == ""
    assert condition({}, "Ready") == ""
    assert condition({"status": {"conditions": None}}, "Ready") == ""


class FakeApi:
    """Answers `good` writes, refuses one, then is gone."""

    def __init__(self, good: int) -> None:
        self.good = good
        self.seen: list[str] = []

    def request(self, method: str, path: str, body: Any) -> Answer:
        self.seen.append(body["metadata"]["name"])
        if len(self.seen) == 2:
            return Answer(status=500, text="database is locked")
        if len(self.seen) > self.good + 1:
            raise ApiError("connection reset")
        return Answer(status=201, text="{}")

    def close(self) -> None:
        pass


def test_writer_remembers_what_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeApi(3)
    monkeypatch.setattr(writes, "Api", lambda *_, **__: fake)
    with writes.Writer("", 1) as writer:
        writer.wait_for(3, timeout=5)
        with pytest.raises(ApiError, match="3 of 9 writes"):
            writer.wait_for(9, timeout=5)
    # The second was refused and the fifth got no answer: nobody promised them.
    assert sorted(writer.acknowledged) == ["k3img-write-00001", "k3img-write-00003", "k3img-write-00004"]


def test_lost_writes() -> None:
    acknowledged = {"a": "1", "b": "2", "c": "3"}
    assert writes.lost(acknowledged, {"a": "1", "b": "2", "c": "3", "d": "unanswered"}) == ()
    assert writes.lost(acknowledged, {"a": "1", "b": "x"}) == ("b", "c")


def test_stored() -> None:
    class Listing:
        def get(self, path: str) -> Any:
            assert path.endswith("?labelSelector=k3img-test%3Dwrites")
            return {"items": [writes.configmap("a", "1")]}

    assert writes.stored(cast("Api", Listing())) == {"a": "1"}


@pytest.mark.parametrize(
    ("ready", "boot", "wanted"),
    [("True", "boot-2", True), ("False", "boot-2", False), ("True", "boot-1", False)],
)
def test_ready_before_the_power_cut_does_not_count(ready: str, boot: str, wanted: bool) -> None:
    status = {"conditions": [{"type": "Ready", "status": ready}], "nodeInfo": {"bootID": boot}}

    class Listing:
        def get(self, path: str) -> Any:
            return {"items": [{"status": status}]}

    assert node_is_ready(cast("Api", Listing()), "boot-2") is wanted
