"""New join tokens: sealed for each node, taken once, by the datastore first; nothing is lost on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.nodes import FakeSystem
from tests.unit.test_cluster import HA, kept, profile

from k3img.cli.reach import rotate_token
from k3img.cluster import give, rotate, store
from k3img.cluster.api import Answer, ApiError
from k3img.cluster.seed import members
from k3img.device import outcome
from k3img.device import tokens as device
from k3img.device.kube import KubeError
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place
from k3img.device.system import Ended
from k3img.errors import UsageError, VerifyError
from k3img.node import names, wrapped
from k3img.reach import tokens as reach
from k3img.reach.find import Place as Where
from k3img.reach.wait import Look, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.cluster.store import Kept
    from k3img.profile.model import Cluster
    from k3img.tree import Tree

NONCE = bytes(range(16))
NOW = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 64, 400])
def test_only_the_same_password_unseals(size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    text = wrapped.seal("password", NONCE, content)
    assert wrapped.unseal("password", text) == content
    assert names.offer_name(text) == NONCE.hex()
    assert size < 8 or content.hex() not in text
    with pytest.raises(ValueError, match="this node's password"):
        wrapped.unseal("another", text)


def test_what_was_changed_on_the_way_does_not_unseal() -> None:
    text = wrapped.seal("password", NONCE, b"content")
    for place, char in enumerate(text):
        if char == ".":
            continue
        changed = f"{text[:place]}{'0' if char != '0' else '1'}{text[place + 1 :]}"
        with pytest.raises(ValueError, match="this node's password"):
            wrapped.unseal("password", changed)
    for broken in ("", "a.b", "zz.zz.zz", f"{text}.00"):
        with pytest.raises(ValueError):  # noqa: PT011 - any will do
            wrapped.unseal("password", broken)


@pytest.fixture
def shop(tree: Tree) -> Cluster:
    return profile(tree, HA).cluster


@pytest.fixture
def secrets(tree: Tree, shop: Cluster) -> Kept:
    return kept(tree, shop)


def content(secrets: Kept, rotation: rotate.Rotation, shop: Cluster, name: str) -> dict[str, Any]:
    """What a node reads in its offer."""
    node = next(node for node in members(shop) if node.name == name)
    text = rotation.offer(secrets.secrets, node)
    found: dict[str, Any] = json.loads(wrapped.unseal(secrets.secrets.node_password(name), text))
    return found


def test_a_node_is_offered_what_its_role_may_know(secrets: Kept, shop: Cluster) -> None:
    rotation = rotate.begin(secrets, "a")
    after = rotation.of(secrets.secrets)
    assert content(secrets, rotation, shop, "a") == {
        "token": after.server_token,
        "agent-token": after.agent_token,
        "rotate": True,
    }
    assert "rotate" not in content(secrets, rotation, shop, "b")
    assert content(secrets, rotation, shop, "d") == {"token": after.agent_token}
    assert after.ca_hash == secrets.secrets.ca_hash
    assert {after.server, after.agent}.isdisjoint({secrets.secrets.server, secrets.secrets.agent})


def test_a_rotation_goes_on_where_it_ended(secrets: Kept) -> None:
    first = rotate.begin(secrets, "a")
    again = store.load(secrets.folder)
    assert again is not None
    assert rotate.begin(again, "b") == first
    (secrets.folder / store.ROTATION).write_text("server: x\n")
    with pytest.raises(UsageError, match="not complete"):
        rotate.begin(again, "a")


def test_no_seed_is_given_while_tokens_are_changed(secrets: Kept, shop: Cluster) -> None:
    node = members(shop)[-1]
    give.gift(shop, node, secrets, new_datastore=False)
    rotation = rotate.begin(secrets, "a")
    with pytest.raises(UsageError, match="are being changed"):
        give.gift(shop, node, secrets, new_datastore=False)
    with pytest.raises(UsageError, match="are being changed"):
        give.shared(shop, secrets)
    rotate.finish(secrets, rotation, now=NOW)
    give.gift(shop, node, secrets, new_datastore=False)


def test_the_old_passwords_stay_whenever_it_was_interrupted(
    secrets: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = secrets.secrets
    rotation = rotate.begin(secrets, "a")
    real = store.write
    written: list[Path] = []

    def cut(path: Path, data: bytes) -> None:
        if path.name == store.SERVER and not written:
            written.append(path)
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(store, "write", cut)
    with pytest.raises(KeyboardInterrupt):
        rotate.finish(secrets, rotation, now=NOW)
    again = store.load(secrets.folder)
    assert again is not None
    rotate.finish(again, rotate.begin(again, "b"), now="later")
    last = store.load(secrets.folder)
    assert last is not None
    assert (last.secrets.server, last.secrets.agent) == (rotation.server, rotation.agent)
    assert yaml.safe_load((secrets.folder / rotate.OLD).read_text()) == [
        {"until": NOW, "server": old.server, "agent": old.agent}
    ]
    assert not (secrets.folder / store.ROTATION).exists()


@dataclass
class FakeApi:
    """The Node of the device, as its own client sees it."""

    annotations: dict[str, str]
    busy: int = 0

    def __call__(self, _place: Place) -> FakeApi:
        return self

    def json(self, path: str) -> Any:
        assert path == "/api/v1/nodes/a"
        return {"metadata": {"annotations": self.annotations}}

    def annotate(self, _path: str, annotations: Mapping[str, str]) -> None:
        if self.busy:
            self.busy -= 1
            raise KubeError("busy")
        self.annotations.update(annotations)


@dataclass
class Device:
    """A running node of the cluster, its k3s and the datastore's token."""

    place: Place
    system: FakeSystem
    api: FakeApi
    datastore: str
    asked: list[str] = field(default_factory=list)

    def ask(self, _place: Place, _name: str, token: str, method: str, path: str, body: bytes = b"") -> int:
        self.asked.append(f"{method} {path}")
        if token.rpartition(":")[2] != self.datastore:
            return 401
        if method == "PUT":
            self.datastore = json.loads(body)["newToken"]
        return 200

    @property
    def token(self) -> str:
        own = (self.place.seed / "token").read_text()
        assert (self.place.rancher / "k3s/token").read_text() == own, "k3s has another than the next boot"
        return own.strip().rpartition(":")[2]

    @property
    def restarts(self) -> int:
        return sum("restart k3s" in call for call in self.system.calls)


def running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, name: str, offer: str, *, agent: bool
) -> Device:
    place = Place(root=tmp_path / "root")
    values = secrets.secrets
    made = Device(
        place, FakeSystem(place=place), FakeApi({names.TOKENS: offer} if offer else {}), values.server
    )
    for folder in (place.seed, place.rancher / "k3s"):
        folder.mkdir(parents=True)
        (folder / "token").write_text(f"{values.agent_token if agent else values.server_token}\n")
    (place.seed / "node-password").write_text(f"{values.node_password(name)}\n")
    outcome.save(place, Outcome(go=Go.RUN, node="a", role="agent" if agent else "server", cluster="lab"))
    monkeypatch.setattr(device, "Client", made.api)
    monkeypatch.setattr(device, "_ask", made.ask)
    return made


@pytest.fixture
def rotation(secrets: Kept) -> rotate.Rotation:
    return rotate.begin(secrets, "a")


def offered(secrets: Kept, rotation: rotate.Rotation, shop: Cluster, name: str) -> str:
    return rotation.offer(secrets.secrets, next(node for node in members(shop) if node.name == name))


def test_the_first_server_changes_the_datastore_then_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", offered(secrets, rotation, shop, "a"), agent=False)
    for _ in range(3):
        assert device.run(node.place, node.system) == 0
    assert node.asked == ["PUT /v1-k3s/token"]
    assert node.datastore == node.token == rotation.server
    assert (node.place.rancher / "k3s/agent-token").read_text().strip().endswith(rotation.agent)
    assert ((node.place.seed / "agent-token").stat().st_mode & 0o777) == 0o600
    assert node.api.annotations[names.TOKENS_TAKEN] == rotation.nonce
    assert node.restarts == 1
    assert not node.place.next_token.exists()


def test_an_api_that_is_busy_when_the_tokens_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", offered(secrets, rotation, shop, "a"), agent=False)
    node.api.busy = 1
    with pytest.raises(KubeError, match="busy"):
        device.run(node.place, node.system)
    for _ in range(3):
        device.run(node.place, node.system)
    assert node.asked == ["PUT /v1-k3s/token"]
    assert node.restarts == 1
    del node.api.annotations[names.TOKENS_TAKEN]
    device.run(node.place, node.system)
    assert node.api.annotations[names.TOKENS_TAKEN] == rotation.nonce
    assert node.restarts == 1, "what was taken long ago restarts nothing"


def test_another_servers_and_an_agents_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "d", offered(secrets, rotation, shop, "d"), agent=True)
    device.run(node.place, node.system)
    assert not node.asked
    assert node.token == rotation.agent
    assert "systemctl --no-block restart k3s-agent.service" in node.system.calls


def test_an_offer_for_another_node_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", offered(secrets, rotation, shop, "b"), agent=False)
    with pytest.raises(ValueError, match="this node's password"):
        device.run(node.place, node.system)
    assert node.token == secrets.secrets.server
    assert not node.restarts
    assert names.TOKENS_TAKEN not in node.api.annotations


def test_a_server_that_refuses_keeps_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", offered(secrets, rotation, shop, "a"), agent=False)
    node.datastore = "a third one"
    with pytest.raises(KubeError, match="401"):
        device.run(node.place, node.system)
    assert node.token == secrets.secrets.server
    assert not node.restarts


def test_power_is_cut_between_the_datastore_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept, shop: Cluster, rotation: rotate.Rotation
) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", offered(secrets, rotation, shop, "a"), agent=False)

    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(device, "_write", cut)
        with pytest.raises(PowerCut):
            device.run(node.place, node.system)
    assert (node.datastore, node.token) == (rotation.server, secrets.secrets.server)
    said = f"Starting k3s...\nfatal: bootstrap data already found and {device.DIFFERENT}\n"
    node.system.answers["journalctl"] = Ended(status=0, output=said)
    device.run(node.place, node.system)
    assert node.token == rotation.server
    assert node.restarts == 1
    node.system.answers["journalctl"] = Ended(status=0, output=f"{said}Starting k3s...\nup and running\n")
    device.run(node.place, node.system)
    assert node.api.annotations[names.TOKENS_TAKEN] == rotation.nonce
    assert node.datastore == node.token == rotation.server
    assert not node.place.next_token.exists()


def test_nothing_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: Kept) -> None:
    node = running(tmp_path, monkeypatch, secrets, "a", "", agent=False)
    assert device.run(node.place, node.system) == 0
    assert not node.restarts
    assert names.TOKENS_TAKEN not in node.api.annotations


@dataclass
class FakeCluster:
    """Nodes that take what they are offered at the next look but one; `deaf` ones never do."""

    secrets: Kept
    nodes: dict[str, dict[str, str]]
    deaf: set[str] = field(default_factory=set)
    order: list[str] = field(default_factory=list)
    away: int = 0

    def __call__(self, _text: str, _port: int, **_: object) -> FakeCluster:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        if self.away:
            self.away -= 1
            raise ApiError("it restarts")
        name = path.rpartition("/")[2]
        notes = self.nodes[name]
        if method == "PATCH":
            notes.update(body["metadata"]["annotations"])
            self.order.append(name)
        elif names.TOKENS in notes and name not in self.deaf:
            notes[names.TOKENS_TAKEN] = names.offer_name(notes[names.TOKENS])
            self.away = 1
        return Answer(status=200, text=json.dumps(self.node(name)))

    def node(self, name: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "annotations": self.nodes[name]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }


@pytest.fixture
def cluster(secrets: Kept, shop: Cluster, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    found = FakeCluster(secrets, {node.name: {} for node in members(shop)})
    monkeypatch.setattr(reach, "Api", found)
    monkeypatch.setattr(reach, "takes_in", lambda *_, token, **__: token != secrets.secrets.agent_token)
    monkeypatch.setattr(reach, "PAUSE", 0)
    secrets.kubeconfig.write_text("")
    return found


def change(
    shop: Cluster, secrets: Kept, told: list[str], *, absent: tuple[str, ...] = (), timeout: float = 5
) -> reach.Change:
    def look() -> Look:
        nodes = tuple(Seen(name=node.name, ready=node.name not in absent) for node in members(shop))
        return Look(nodes=nodes, api=Where(address="10.0.0.1", how="profile"))

    return reach.Change(cluster=shop, kept=secrets, look=look, tell=told.append, timeout=timeout)


def test_all_nodes_in_turn_the_first_server_first(shop: Cluster, secrets: Kept, cluster: FakeCluster) -> None:
    told: list[str] = []
    before = secrets.secrets
    change(shop, secrets, told).run((), now=NOW)
    assert cluster.order == ["a", "b", "c", "d"]
    assert [line for line in told if "has the new tokens" in line] == [
        f"{name} has the new tokens" for name in "abcd"
    ]
    assert secrets.secrets.server != before.server
    everything = " ".join(told)
    assert not [value for value in vars(secrets.secrets).values() if str(value) in everything]


def test_a_server_is_done_when_it_takes_nodes_in_by_the_new_token(
    shop: Cluster, secrets: Kept, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False, False]
    monkeypatch.setattr(reach, "takes_in", lambda *_, **__: answers.pop() if answers else True)
    told: list[str] = []
    change(shop, secrets, told).run((), now=NOW)
    assert told.index("a: restarts k3s with the new tokens") < told.index("b: is offered the new tokens")
    assert not answers


def test_nothing_changes_while_a_node_is_away(shop: Cluster, secrets: Kept, cluster: FakeCluster) -> None:
    with pytest.raises(UsageError, match="not Ready: c") as said:
        change(shop, secrets, [], absent=("c",)).run((), now=NOW)
    assert "--without" in str(said.value.hint)
    assert not cluster.order
    assert not (secrets.folder / store.ROTATION).exists()
    change(shop, secrets, [], absent=("c",)).run(("c",), now=NOW)
    assert cluster.order == ["a", "b", "d"]


def test_a_node_that_does_not_take_them_is_named_and_the_next_call_goes_on(
    shop: Cluster, secrets: Kept, cluster: FakeCluster
) -> None:
    cluster.deaf = {"b"}
    before = secrets.secrets.server
    with pytest.raises(VerifyError, match="b has not got so far"):
        change(shop, secrets, [], timeout=0.05).run((), now=NOW)
    assert secrets.secrets.server == before
    cluster.deaf = set()
    change(shop, secrets, []).run((), now=NOW)
    assert cluster.order == ["a", "b", "c", "d"], "nobody is offered anything twice"
    with pytest.raises(UsageError, match="a server is needed"):
        change(shop, secrets, []).run("abc", now=NOW)


def test_the_command_asks_for_nodes_that_there_are(
    tree: Tree, shop: Cluster, secrets: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out: list[str] = []
    monkeypatch.setattr(reach.Change, "run", lambda _self, without, **_: left_out.extend(without))

    def run(*words: str) -> str:
        place = ["--tree", str(tree.root), "--profile", "lab"]
        return CliRunner().invoke(rotate_token, [*place, *words], catch_exceptions=False).output

    with pytest.raises(UsageError, match="lab has no node x, z"):
        run("--without", "z", "--without", "x", "--without", "d")
    assert not left_out
    said = run("--without", "d")
    assert left_out == ["d"]
    assert "kubectl delete node d" in said
    assert str(secrets.folder) in said
