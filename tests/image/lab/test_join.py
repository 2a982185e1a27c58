"""Join."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from k3img.cluster.api import condition
from k3img.verify import testimages
from k3img.verify.lab import agent, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import Bed, LabCluster, Member

PODS = "/api/v1/namespaces/default/pods"
NAMES = ("a-1", "a-2", "a-3")

# In the network of a pod: fetch a page of another one.
FETCH = """
import os, sys, urllib.request
os.setns(os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY), os.CLONE_NEWNET)
print(urllib.request.urlopen(sys.argv[2], timeout=20).status)
"""


@pytest.fixture(scope="module")
def shop(bed: Bed) -> LabCluster:
    """A server and two agents."""
    return bed.cluster("shop", server("a-1", initializer=True), agent("a-2"), agent("a-3"))


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
        assert shop.secrets.server not in secrets


def test_pods(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """A pod runs on each node."""
    api = shop.api("a-1")
    for name in NAMES:
        pod = testimages.web(f"web-{name}", nodeName=name)
        shop[name].machine.succeed(testimages.IMPORT, timeout=600)
        shop.wait_until(
            f"the pod of {name} to be accepted",
            lambda pod=pod: api.request("POST", PODS, pod).status in (201, 409),  # type: ignore[misc]
            timeout=60,
        )
    shop.wait_until("the pods to run", lambda: all(running(shop).values()), timeout=90)
    evidence(json.dumps(running(shop)))


def test_traffic(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Each pod reaches the pods of the other nodes, through a vxlan device of the image's own modules."""
    addresses = running(shop)
    for name in NAMES:
        machine = shop[name].machine
        assert "vxlan" in machine.succeed("ip -d link show flannel.1")
        pid = pod_pid(shop[name])
        for other in NAMES:
            command = f"python3 -c '{FETCH}' {pid} http://{addresses[other]}:8080/"
            assert machine.wait_until_succeeds(command, timeout=20).strip() == "200", f"{name} -> {other}"
    evidence(shop["a-2"].machine.succeed("ip route; bridge fdb show dev flannel.1 2>/dev/null || true"))


def test_an_agent_keeps_its_pods(shop: LabCluster) -> None:
    """While the server is away the agents' pods keep running and answer; afterwards all are Ready again."""
    before = pod_pid(shop["a-2"])
    shop.power_off("a-1")
    shop.pause(60)
    assert pod_pid(shop["a-2"]) == before
    shop.power_on("a-1")
    shop.wait_ready(*NAMES, seen_by="a-1")
    assert pod_pid(shop["a-2"]) == before


def test_an_agent_comes_back(shop: LabCluster) -> None:
    """An agent that lost power finds the server again by itself."""
    shop.power_off("a-3")
    shop.power_on("a-3")
    shop.wait_ready("a-3", seen_by="a-1")
    assert shop["a-3"].machine.succeed("systemctl --failed --no-legend --plain").strip() == ""


def running(shop: LabCluster) -> dict[str, str]:
    """The address of each node's pod once it is Ready, '' before."""
    found = {item["metadata"]["name"]: item for item in shop.api("a-1").get(PODS)["items"]}
    pods = {name: found.get(f"web-{name}", {}) for name in NAMES}
    return {
        name: item["status"].get("podIP", "") if condition(item, "Ready") == "True" else ""
        for name, item in pods.items()
    }


def pod_pid(member: Member) -> str:
    """The process of the node's pod."""
    name = f"web-{member.node.name}"
    ctr = "/usr/lib/k3s/bin/k3s ctr -n k8s.io"
    found = member.machine.succeed(
        f"""{ctr} tasks ls | grep -F "$({ctr} containers ls -q 'labels."io.kubernetes.pod.name"=={name},"""
        """labels."io.kubernetes.container.name"==web')" | head -n 1"""
    )
    return found.split()[1]
