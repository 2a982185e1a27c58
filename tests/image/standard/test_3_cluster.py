"""Cluster."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from k3img.cluster.api import Api, condition
from k3img.verify import testimages
from k3img.vm.spec import API_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.life import Life
    from k3img.vm.machine import Machine

SEED = "/dev/disk/by-partlabel/K3IMG"
LOOK = f"mkdir -p /run/seed && mount -o ro {SEED} /run/seed"


def from_seed(machine: Machine, name: str) -> str:
    """A file of the seed partition, once it is there. The node has it mounted now and then: then we wait."""
    command = f"{LOOK} && {{ cat /run/seed/{name}; rc=$?; umount /run/seed; exit $rc; }}"
    return machine.wait_until_succeeds(command, timeout=60, subject=f"{name} on the seed partition")


def test_runtime(ready: Life, host: Any) -> None:
    """k3s is active, in the version that the manifest names, from /usr."""
    assert host.service("k3s").is_running
    assert ready.node["status"]["nodeInfo"]["kubeletVersion"] == ready.image.runtime
    pid = host.check_output("systemctl show -p MainPID --value k3s")
    assert host.check_output("readlink /proc/%s/exe", pid).startswith("/usr/lib/k3s/")


def test_pulls_are_flushed(host: Any, ready: Life) -> None:
    """containerd flushes an image before it calls it whole (docs/decisions/0007-unflushed-layers.md)."""
    config = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"
    said = host.check_output("/usr/lib/k3s/bin/containerd --config %s config dump", config)
    assert "image_pull_with_sync_fs = true" in said


def test_readyz(ready: Life, evidence: Callable[[object], None]) -> None:
    """/readyz says ok in every point, asked from outside."""
    answer = ready.api.request("GET", "/readyz?verbose")
    evidence(answer.text)
    assert answer.status == 200
    assert "[-]" not in answer.text


def test_node(ready: Life, evidence: Callable[[object], None]) -> None:
    """The one node is Ready, has no pressure, and its address is the machine's."""
    node = ready.node
    evidence(json.dumps(node["status"]["conditions"], indent=1))
    assert condition(node, "Ready") == "True"
    for pressure in ("MemoryPressure", "DiskPressure", "PIDPressure"):
        assert condition(node, pressure) == "False"
    addresses = {item["type"]: item["address"] for item in node["status"]["addresses"]}
    assert addresses["InternalIP"] == "10.0.2.15"


def test_strangers(ready: Life) -> None:
    """Whoever has no certificate is refused."""
    answer = ready.machine.execute(
        "python3 -c 'import ssl, urllib.request as u; "
        'print(u.urlopen("https://127.0.0.1:6443/api/v1/nodes", '
        "context=ssl._create_unverified_context()).status)'"
    )
    assert not answer.ok
    assert "HTTP Error 401" in answer.stderr or "HTTP Error 403" in answer.stderr, str(answer)


def test_kubectl(ready: Life, host: Any) -> None:
    """`k3s kubectl` works on the node itself."""
    assert " Ready " in host.check_output("/usr/lib/k3s/bin/k3s kubectl get nodes --no-headers")


def test_kubeconfig_on_medium(ready: Life, evidence: Callable[[object], None]) -> None:
    """An unseeded node leaves a kubeconfig on its seed partition, and it works from outside."""
    if ready.seeded:
        pytest.skip("this node was seeded: its kubeconfig is on the builder, and never on a medium")
    text = from_seed(ready.machine, "kubeconfig.yaml")
    assert "https://10.0.2.15:6443" in text
    api = Api(text, ready.machine.forwarded(API_PORT))
    assert api.get("/api/v1/nodes")["items"][0]["metadata"]["uid"] == ready.node["metadata"]["uid"]
    api.close()


def test_status_on_medium(ready: Life, evidence: Callable[[object], None]) -> None:
    """status.txt on the seed partition says the node's name, its address and that it is Ready."""
    text = from_seed(ready.machine, "status.txt")
    evidence(text.strip())
    assert "Ready since" in text
    assert "10.0.2.15" in text
    assert ready.node["metadata"]["name"] in text


def test_no_secret_on_medium(ready: Life, host: Any) -> None:
    """No secret lies on the seed partition, but the kubeconfig if nobody seeded the node."""
    listing = ready.machine.wait_until_succeeds(
        f"{LOOK} && {{ cd /run/seed; find . -type f; cd /; umount /run/seed; }}", timeout=60
    )
    secret = ("/secrets", "token", "kubeconfig") if ready.seeded else ("/secrets", "token")
    assert not [line for line in listing.splitlines() if any(word in line for word in secret)]


@pytest.fixture(scope="module")
def since(life: Life) -> float:
    return life.machine.powered_on


def test_pod(ready: Life, since: float, evidence: Callable[[object], None]) -> None:
    """A pod is scheduled, runs, and answers over the pod network."""
    machine, api = ready.machine, ready.api
    if not ready.has_test_images:
        pytest.skip("no archive of test images was given")
    evidence(machine.succeed(testimages.IMPORT, timeout=600))
    pod = testimages.web("web")
    pods = "/api/v1/namespaces/default/pods"
    # The API refuses pods until the default service account exists, a little after the node is Ready.
    machine.wait_until(
        "the pod to be accepted", lambda: api.request("POST", pods, pod).status in (201, 409), timeout=60
    )

    def running() -> dict[str, Any] | None:
        found: dict[str, Any] = api.get(f"{pods}/web")
        return found if condition(found, "Ready") == "True" else None

    found = machine.wait_until(
        "the pod to run",
        running,
        timeout=60,
        every=0.5,
        evidence=lambda: json.dumps(api.get(f"{pods}/web"), indent=1),
    )
    ready.mark("pod Running", since=since)
    address = shlex.quote(f"http://{found['status']['podIP']}:{web_port(found)}/")
    script = (
        "import sys, urllib.request as u; a = u.urlopen(sys.argv[1], timeout=20); print(a.status, a.read())"
    )
    answer = machine.wait_until_succeeds(f"python3 -c '{script}' {address}", timeout=30)
    evidence(answer)
    assert answer.startswith("200 ")


def web_port(pod: dict[str, Any]) -> int:
    """The port that the test image serves."""
    ports = pod["spec"]["containers"][0].get("ports") or [{"containerPort": 8080}]
    return int(ports[0]["containerPort"])
