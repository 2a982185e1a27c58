"""The seed of a profile's initializer for one verification: it must satisfy the node's own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.device import seed as device_seed
from k3img.device.decide import Facts, decide
from k3img.device.outcome import Go
from k3img.node.load import load
from k3img.node.model import DatastoreKind, Network, Node, Role
from k3img.profile.model import Cluster, Datastore
from k3img.verify import throwaway

if TYPE_CHECKING:
    from pathlib import Path

NODES = (
    Node(name="agent-1", role=Role.AGENT),
    Node(name="a", role=Role.SERVER),
    Node(
        name="b",
        role=Role.SERVER,
        initializer=True,
        network=Network(address="192.168.7.10/24", gateway="192.168.7.1"),
        labels={"zone": "x"},
    ),
)


def test_profile_without_nodes() -> None:
    assert throwaway.seed(Cluster(name="x"), registries={}) is None
    assert throwaway.seed(Cluster(name="x", nodes=NODES[:1]), registries={}) is None


@pytest.mark.parametrize("kind", DatastoreKind)
def test_node_accepts_it(kind: DatastoreKind, tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = Cluster(name="shop-42", datastore=Datastore(kind=kind), nodes=NODES)
    made = throwaway.seed(cluster, registries={})
    assert made is not None
    folder = tmp_path_factory.mktemp("credentials")
    for name, content in made.credentials.items():
        (folder / name).write_bytes(content)
    seed = device_seed.from_credential(str(folder))
    assert seed is not None
    assert seed.node is not None
    config = load(seed.node, "node.yaml")
    assert (config.node.name, config.cluster, config.bootstrap) == ("b", "shop-42", True)
    assert config.node.network == Network()
    assert config.node.labels == {"zone": "x"}
    decision = decide(Facts(seed=seed))
    assert (decision.go, decision.problems) == (Go.RUN, ())
    external = kind is DatastoreKind.EXTERNAL
    assert config.datastore is (DatastoreKind.SQLITE if external else kind)
    assert ("the external datastore was replaced by sqlite" in made.notes) is external


def test_the_only_server_makes_the_datastore_also_when_nobody_says_so(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID/rteo9clEB1UC3ZC3PMqOlLBFcMQEBKe8d65MQh2Px"
    made = throwaway.seed(Cluster(name="x", nodes=(Node(name="only"),)), registries={}, ssh_keys=(key,))
    assert made is not None
    for name, content in made.credentials.items():
        (tmp_path / name).write_bytes(content)
    seed = device_seed.from_credential(str(tmp_path))
    assert seed is not None
    decision = decide(Facts(seed=seed))
    assert (decision.go, decision.problems) == (Go.RUN, ())
    assert decision.config is not None
    assert decision.config.ssh_keys == (key,)


def test_secrets_are_new_each_time() -> None:
    cluster = Cluster(name="x", nodes=NODES)
    one, two = (throwaway.seed(cluster, registries={}) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.credentials != two.credentials


def test_first_server_when_none_is_named() -> None:
    made = throwaway.seed(Cluster(name="x", nodes=NODES[:2]), registries={})
    assert made is not None
    assert made.notes == ("verified as the node a, with secrets made for this run only",)
