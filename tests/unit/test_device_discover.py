"""A node looks for its server: only the pinned CA's is believed, whoever answers first."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.nodes import FakeSystem
from tests.unit.test_cluster import NOW
from tests.unit.test_reach import certificate

from k3img.cluster import model
from k3img.device import discover, links, outcome, rejoin, resolve, trust
from k3img.device.discover import Search
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.cluster.model import Secrets

OURS, THEIRS = (model.create("lab", model.lifetime(NOW)) for _ in range(2))
NAME = "k3s.lab.internal"
SEARCH = Search(
    name=NAME, node="a", role="agent", ca_hash=OURS.ca_hash, servers=("b-abc.local", "c-abc.local")
)
JOINING = Outcome(go=Go.JOIN, node="a", role="agent", cluster="lab", what="a server of cluster lab")


@dataclass
class Cluster:
    """What a server says: the CA that it shows, the token it takes, its nodes."""

    shows: Secrets = OURS
    token: str = OURS.agent
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    removes: bool = True
    instead: bytes | None = None
    """What the API answers with status 503 while it does not run."""


def handler(cluster: Cluster) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes = b"{}") -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            cluster.asked.append(f"GET {self.path}")
            if self.path == "/cacerts":
                return self.answer(200, cluster.shows.authorities["server-ca"].certificate)
            if self.path.startswith("/api/"):
                if cluster.instead is not None:
                    return self.answer(503, cluster.instead)
                node = cluster.nodes.get(self.path.rsplit("/", 1)[1])
                return self.answer(404) if node is None else self.answer(200, json.dumps(node).encode())
            told = base64.b64decode(self.headers["Authorization"].split()[1]).decode().partition(":")[2]
            return self.answer(200 if told == cluster.token else 401)

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cluster.asked.append(f"PATCH {self.path}")
            notes = cluster.nodes[self.path.rsplit("/", 1)[1]]["metadata"]["annotations"]
            notes |= body["metadata"]["annotations"]
            if cluster.removes:
                notes["etcd.k3s.cattle.io/removed-node-name"] = notes["etcd.k3s.cattle.io/node-name"]
            self.answer(200)

        def do_DELETE(self) -> None:
            cluster.asked.append(f"DELETE {self.path}")
            del cluster.nodes[self.path.rsplit("/", 1)[1]]
            self.answer(200)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


@contextmanager
def server(
    monkeypatch: pytest.MonkeyPatch, folder: Path, cluster: Cluster, *, key: Secrets = OURS, name: str = NAME
) -> Iterator[None]:
    """A server at 127.0.0.1, whose certificate is of `key`'s CA and for `name`."""
    pem = folder / "server.pem"
    pem.write_bytes(certificate(key, name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up because of our certificate is what is tested."""

    served = Server(("127.0.0.1", 0), handler(cluster))
    served.socket = context.wrap_socket(served.socket, server_side=True, do_handshake_on_connect=False)
    for module in (trust, rejoin):
        monkeypatch.setattr(module, "PORT", served.server_port)
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A node that joins, and has an address."""
    place = Place(root=tmp_path / "root")
    for folder in (place.run, place.seed, place.root / "etc", place.sys / "class/net"):
        folder.mkdir(parents=True)
    (place.root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (place.seed / "token").write_text(f"{OURS.agent_token}\n")
    outcome.save(place, JOINING)
    discover.save(place, SEARCH)
    monkeypatch.setattr(links, "addresses", lambda *_: ("10.0.0.2",))
    monkeypatch.setattr(resolve, "addresses", lambda _place, name: ("127.0.0.1",) if name[0] == "c" else ())
    return place


@pytest.fixture
def system(place: Place) -> FakeSystem:
    return FakeSystem(place=place)


def hosts(place: Place) -> str:
    return (place.root / "etc/hosts").read_text()


def test_a_server_that_proves_itself_is_kept_and_k3s_starts(
    place: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with server(monkeypatch, tmp_path, Cluster()):
        assert discover.run(place, system) == 0
    assert f"127.0.0.1 {NAME} " in hosts(place)
    assert "localhost" in hosts(place), "other lines stay"
    assert (place.run / "run-agent").exists()
    assert system.calls == ["systemctl --no-block start k3s-agent.service"]
    assert discover.report(place) is None


def test_nobody_answers_for_as_long_as_the_run_lasts(
    place: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(trust, "PORT", closed.getsockname()[1])
        assert discover.run(place, system) == 0
    told = discover.report(place)
    assert told is not None
    assert "asks b-abc.local, c-abc.local" in told.what
    assert "127.0.0.1 does not answer" in told.what
    assert not system.calls
    assert system.boot > 10 + 30, "it looked again and again"
    assert len(system.logged) == 1, "and said it once"


@pytest.mark.parametrize(("cluster", "key", "name", "words"), [
    (Cluster(shows=THEIRS), THEIRS, NAME, "belongs to another cluster"),
    (Cluster(shows=OURS), THEIRS, NAME, "cannot prove to be"),
    (Cluster(shows=OURS), OURS, "k3s.other.internal", "cannot prove to be"),
    (Cluster(token="another"), OURS, NAME, "refuses this node's token"),
])  # fmt: skip
def test_a_server_that_is_not_ours_is_named_and_asked_slowly(
    place: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    cluster: Cluster, key: Secrets, name: str, words: str,
) -> None:  # fmt: skip
    cluster.asked.clear()
    with server(monkeypatch, tmp_path, cluster, key=key, name=name):
        assert discover.run(place, system) == 0
    told = discover.report(place)
    assert told is not None
    assert words in told.what
    assert told.todo
    assert not (place.run / "run-agent").exists()
    assert NAME not in hosts(place)
    assert cluster.asked.count("GET /cacerts") == 1, "what only a person can change is not asked for at once"
    if key is not OURS or name != NAME:
        assert cluster.asked == ["GET /cacerts"], "the token was shown to nobody else"


def test_a_server_that_moved_is_followed_without_a_restart(
    place: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (place.run / "run-agent").write_text("")
    discover.keep_address(place, NAME, "127.0.0.9")
    with server(monkeypatch, tmp_path, Cluster()):
        assert discover.run(place, system) == 0
    assert f"127.0.0.1 {NAME} " in hosts(place)
    assert hosts(place).count(NAME) == 1
    assert not system.calls
    with server(monkeypatch, tmp_path, Cluster(token="rotated since")):
        (place.k3s / "agent").mkdir(parents=True)
        (place.k3s / "agent/client-kubelet.crt").write_text("x")
        assert discover.run(place, system) == 0
    assert discover.report(place) is None, "a node that has joined needs no token"


def test_an_endpoint_is_asked_in_the_place_of_mdns(place: Place) -> None:
    asked: list[str] = []

    def check(_place: Place, _search: Search, address: str) -> trust.Verdict:
        asked.append(address)
        return trust.Verdict(text="no", weight=1)

    discover.look(place, replace(SEARCH, endpoint="192.168.7.10"), check)
    assert asked == ["192.168.7.10"]


ETCD = replace(SEARCH, role="server", etcd=True)


def member(*, ready: bool, **notes: str) -> dict[str, Any]:
    state = {"type": "Ready", "status": "True" if ready else "Unknown", "message": ""}
    return {
        "metadata": {"name": "a", "annotations": {f"etcd.k3s.cattle.io/{k}": v for k, v in notes.items()}},
        "status": {"conditions": [state], "nodeInfo": {}},
    }


@pytest.fixture
def etcd(place: Place) -> Place:
    """An etcd server whose disk is new."""
    pair = model.admin(OURS, model.lifetime(NOW))
    (place.seed / "admin.crt").write_bytes(pair.certificate)
    (place.seed / "admin.key").write_bytes(pair.key)
    (place.seed / "token").write_text(f"{OURS.server_token}\n")
    outcome.save(place, replace(JOINING, role="server"))
    discover.save(place, ETCD)
    return place


def test_a_new_server_joins_at_once(
    etcd: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster(token=OURS.server)
    with server(monkeypatch, tmp_path, cluster):
        discover.run(etcd, system)
    assert system.calls == ["systemctl --no-block start k3s.service"]
    assert "GET /v1-k3s/server-bootstrap" in cluster.asked


def test_the_old_member_of_a_server_with_a_new_disk_is_taken_out(
    etcd: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster(token=OURS.server, nodes={"a": member(ready=False, **{"node-name": "a-1234"})})
    with server(monkeypatch, tmp_path, cluster):
        discover.run(etcd, system)
    asked = [line for line in cluster.asked if not line.startswith("GET")]
    assert asked == ["PATCH /api/v1/nodes/a", "DELETE /api/v1/nodes/a"]
    assert system.calls == ["systemctl --no-block start k3s.service"]


@pytest.mark.parametrize(("ready", "removes", "words"), [
    (True, True, "the other machine that runs as a"),
    (False, False, "take the old etcd member a-1234 out"),
])  # fmt: skip
def test_a_server_does_not_join_over_one_that_runs_or_without_a_quorum(
    etcd: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    ready: bool, removes: bool, words: str,
) -> None:  # fmt: skip
    cluster = Cluster(token=OURS.server, removes=removes)
    cluster.nodes = {"a": member(ready=ready, **{"node-name": "a-1234"})}
    with server(monkeypatch, tmp_path, cluster):
        discover.run(etcd, system)
    told = discover.report(etcd)
    assert told is not None
    assert words in told.what
    assert "a" in cluster.nodes, "the Node is not deleted"
    assert not system.calls


@pytest.mark.parametrize(("instead", "words"), [
    (b"apiserver not ready\n", "not ready, status 503: apiserver not ready"),
    (b"", "not ready, status 503"),
])  # fmt: skip
def test_an_api_that_does_not_run_yet_is_told_in_its_own_words(
    etcd: Place, system: FakeSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    instead: bytes, words: str,
) -> None:  # fmt: skip
    with server(monkeypatch, tmp_path, Cluster(token=OURS.server, instead=instead)):
        discover.run(etcd, system)
    told = discover.report(etcd)
    assert told is not None
    assert told.what == f"the cluster's API at 127.0.0.1: {words}"
    assert not system.calls


def test_names_are_asked_of_resolved(tmp_path: Path) -> None:
    place = Place(root=tmp_path)
    path = tmp_path / resolve.SOCKET
    path.parent.mkdir(parents=True)
    asked: list[dict[str, Any]] = []
    answers = [
        {
            "parameters": {
                "addresses": [{"family": 2, "address": [10, 0, 0, 7]}, {"family": 10, "address": [0] * 16}]
            }
        },
        {"error": "io.systemd.Resolve.NoSuchResourceRecord", "parameters": {}},
    ]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                link, _ = listener.accept()
                with link:
                    asked.append(json.loads(link.recv(4096).rstrip(b"\0")))
                    link.sendall(json.dumps(answer).encode() + b"\0")

        thread = threading.Thread(target=serve)
        thread.start()
        assert resolve.addresses(place, "b-abc.local") == ("10.0.0.7",)
        assert resolve.addresses(place, "nobody.local") == ()
        thread.join()
    assert asked[0]["parameters"]["name"] == "b-abc.local"
    path.unlink()
    assert resolve.addresses(place, "b-abc.local") == (), "resolved is not there yet"
