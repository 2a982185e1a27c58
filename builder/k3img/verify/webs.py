"""Pods that serve a page, one on each of some nodes of a cluster under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.cluster.api import ApiError, condition
from k3img.verify import testimages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.verify.lab import LabCluster

PODS = "/api/v1/namespaces/default/pods"

# The process of a pod's container, where containerd's shim keeps it: `k3s ctr` tells the same, but takes
# half a minute for it on an emulated machine.
PROCESS = """
import json, pathlib, sys
for file in pathlib.Path("/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io").glob("*/config.json"):
    notes = json.loads(file.read_text())["annotations"]
    named = notes.get("io.kubernetes.cri.sandbox-name"), notes.get("io.kubernetes.cri.container-name")
    if named == (sys.argv[1], "web"):
        print(int(file.with_name("init.pid").read_text()))
        break
else:
    sys.exit("no container web of pod " + sys.argv[1])
"""

# In the network of a pod: fetch other ones' pages.
FETCH = """
import os, sys, urllib.request
os.setns(os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY), os.CLONE_NEWNET)
for address in sys.argv[2:]:
    print(address, urllib.request.urlopen(f"http://{address}:8080/", timeout=20).status)
"""


class Webs:
    """The pods; the one of node N is called web-N."""

    def __init__(self, cluster: LabCluster, nodes: Sequence[str]) -> None:
        self._cluster = cluster
        self._nodes = tuple(nodes)

    def start(self, *, seen_by: str) -> None:
        """Bring the pods' image to each node and wait until the pods run."""
        for name in self._nodes:
            self._cluster[name].machine.succeed(testimages.IMPORT, timeout=600)
            self._cluster.wait_until(
                f"the pod of {name} to be accepted",
                lambda name=name: self._post(name, seen_by),  # type: ignore[misc]
                timeout=60,
            )
        self.addresses(seen_by=seen_by)

    def _post(self, name: str, seen_by: str) -> bool:
        pod = testimages.web(f"web-{name}", nodeName=name)
        try:
            return self._cluster.api(seen_by).request("POST", PODS, pod).status in (201, 409)
        except ApiError:
            return False  # a busy server may not answer in time

    def addresses(self, *, seen_by: str) -> dict[str, str]:
        """The address of each node's pod, once all are Ready: on a busy host one may just miss a probe."""
        seen: dict[str, str] = {}

        def look() -> bool:
            seen.update(self._look(seen_by))
            return all(seen.values())

        self._cluster.wait_until("the pods to run", look, timeout=90, evidence=lambda: str(seen))
        return seen

    def _look(self, seen_by: str) -> dict[str, str]:
        """The address of each node's pod that is Ready now, '' of the others."""
        try:
            listed = self._cluster.api(seen_by).get(PODS)["items"]
        except ApiError:
            listed = []
        found = {item["metadata"]["name"]: item for item in listed}
        pods = {name: found.get(f"web-{name}", {}) for name in self._nodes}
        return {
            name: item["status"].get("podIP", "") if condition(item, "Ready") == "True" else ""
            for name, item in pods.items()
        }

    def process(self, name: str) -> str:
        """The process of a node's pod on that node; another one after a restart."""
        return self._cluster[name].machine.succeed(f"python3 -c '{PROCESS}' web-{name}").strip()

    def fetch(self, name: str, *addresses: str) -> dict[str, str]:
        """Fetch a page of each address from a node's pod; returns the HTTP statuses by address."""
        command = f"python3 -c '{FETCH}' {self.process(name)} {' '.join(addresses)}"
        lines = self._cluster[name].machine.wait_until_succeeds(
            command, timeout=20 * len(addresses), subject=f"the pages that {name} fetches"
        )
        return dict(line.split() for line in lines.splitlines())
