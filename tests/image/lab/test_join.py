"""Join."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from k3img.verify import secrecy
from k3img.verify.webs import Webs

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import LabCluster

NAMES = ("a-1", "a-2", "a-3")


@pytest.fixture(scope="module")
def shop(one_server: LabCluster) -> LabCluster:
    """A server and two agents."""
    for name in NAMES[1:]:
        one_server.add(name)
    return one_server


@pytest.fixture(scope="module")
def webs(shop: LabCluster) -> Webs:
    """A pod on each node."""
    return Webs(shop, NAMES)


def test_ready(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A server and two agents, powered on together, become Ready; nobody types anything."""
    shop.flash()
    shop.power_on(*NAMES)
    seconds = shop.wait_ready(*NAMES, seen_by="a-1")
    shop["a-1"].life.numbers["all Ready after power on"] = f"{seconds:.0f} s"
    evidence(shop.told())


def test_roles(shop: LabCluster) -> None:
    """Agents are agents: no control plane, no CA key, no server's token on them."""
    labels = {name: node["metadata"]["labels"] for name, node in shop.nodes("a-1").items()}
    role = "node-role.kubernetes.io/control-plane"
    assert [name for name in NAMES if role in labels[name]] == ["a-1"]
    for name in NAMES[1:]:
        files = shop[name].machine.succeed("find /var/lib/k3img/seed /var/lib/rancher/k3s -name '*-ca.key'")
        assert not files, f"{name} holds a CA's key: {files}"
        secrets = shop[name].machine.succeed("cat /var/lib/k3img/seed/* /etc/rancher/k3s/token")
        assert shop.kept.secrets.server not in secrets


def test_pods(webs: Webs, evidence: Callable[[object], None]) -> None:
    """A pod runs on each node."""
    webs.start(seen_by="a-1")
    evidence(json.dumps(webs.addresses(seen_by="a-1")))


def test_traffic(shop: LabCluster, webs: Webs, evidence: Callable[[object], None]) -> None:
    """Each pod reaches the pods of the other nodes, through a vxlan device of the image's own modules."""
    addresses = webs.addresses(seen_by="a-1")
    for name in NAMES:
        assert "vxlan" in shop[name].machine.succeed("ip -d link show flannel.1")
        seen = webs.fetch(name, *addresses.values())
        assert seen == dict.fromkeys(addresses.values(), "200"), f"from {name}"
    evidence(shop["a-2"].machine.succeed("ip route; bridge fdb show dev flannel.1 2>/dev/null || true"))


def test_nothing_secret(shop: LabCluster) -> None:
    """No secret of the cluster is in a node's journal, nor among a program's arguments."""
    secrets = shop.secrets()
    for name in NAMES:
        seen = secrecy.visible(shop[name].machine)
        assert "k3s" in seen
        assert [what for what, value in secrets.items() if value in seen] == [], name


def test_an_agent_keeps_its_pods(shop: LabCluster, webs: Webs) -> None:
    """While the server is away the agents' pods keep running and answer; afterwards all are Ready again."""
    before = webs.process("a-2")
    shop.power_off("a-1")
    shop.pause(60)
    assert webs.process("a-2") == before
    shop.power_on("a-1")
    shop.wait_ready(*NAMES, seen_by="a-1")
    assert webs.process("a-2") == before


def test_an_agent_comes_back(shop: LabCluster) -> None:
    """An agent that lost power finds the server again by itself."""
    shop.power_off("a-3")
    shop.power_on("a-3")
    shop.wait_ready("a-3", seen_by="a-1")
    assert shop["a-3"].machine.succeed("systemctl --failed --no-legend --plain").strip() == ""
