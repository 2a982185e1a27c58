"""A node of the profile, as a file on its seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.errors import UsageError
from k3img.flash import personalise
from k3img.node import load as node
from k3img.node.medium import NODE_FILE
from k3img.node.model import DatastoreKind, Role
from k3img.profile.load import load

if TYPE_CHECKING:
    from k3img.profile.model import Profile
    from k3img.tree import Tree

LAB = """\
target: {arch: x86-64}
k3s: {version: v1.36.3+k3s1, registries: {mirrors: {docker.io: {endpoint: ["https://r.example.org"]}}}}
cluster:
  name: lab
  nodes:
    one: {address: 10.0.0.1/24, labels: {place: mast}}
    two: {role: agent}
"""


@pytest.fixture
def lab(tree: Tree) -> Profile:
    (tree.profiles / "lab.yaml").write_text(LAB)
    return load(tree.profiles / "lab.yaml", tree).profile


def test_the_server_makes_the_datastore(lab: Profile) -> None:
    files = personalise.files(lab, "one")
    assert set(files) == {NODE_FILE}
    config = node.load(files[NODE_FILE], NODE_FILE)
    assert (config.cluster, config.datastore, config.servers) == ("lab", DatastoreKind.SQLITE, ("one",))
    assert config.bootstrap
    assert config.node.labels == {"place": "mast"}
    assert config.node.network.address == "10.0.0.1/24"
    assert config.registries["mirrors"]["docker.io"] == {"endpoint": ["https://r.example.org"]}


def test_an_agent_does_not(lab: Profile) -> None:
    config = node.load(personalise.files(lab, "two")[NODE_FILE], NODE_FILE)
    assert config.node.role is Role.AGENT
    assert not config.bootstrap
    assert config.servers == ("one",)


def test_a_node_that_is_not_there(lab: Profile) -> None:
    with pytest.raises(UsageError, match="lab has no node three") as caught:
        personalise.files(lab, "three")
    assert caught.value.hint == "Its nodes are one, two."
