"""A laptop on the network of a cluster under test: k3img's own commands, as a person types them."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from k3img import proc
from k3img.cluster.api import Api, ApiError
from k3img.node.model import DatastoreKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.node.model import Node
    from k3img.verify.lab import LabCluster


class Laptop:
    """A folder with a profile of the cluster and its secrets. `where` is what starts programs elsewhere."""

    def __init__(self, cluster: LabCluster, where: Sequence[str] = ()) -> None:
        self._kept, self._where = cluster.kept, tuple(where)
        self._root = self._kept.folder.parent / "project"
        self._name = cluster.cluster.name
        for name in ("profiles", "overlays"):
            (self._root / name).mkdir(parents=True, exist_ok=True)
        made = {
            "target": {"arch": "x86-64"},
            "k3s": {"version": "v1.36.3+k3s1"},  # these commands do not look at it
            "cluster": {
                "name": self._name,
                "datastore": str(cluster.cluster.datastore.kind),
                "nodes": {
                    node.name: _node(node, cluster.cluster.datastore.kind) for node in cluster.cluster.nodes
                },
            },
        }
        # JSON is YAML.
        (self._root / f"profiles/{self._name}.yaml").write_text(json.dumps(made))

    def k3img(self, command: str, *words: str, timeout: float = 300) -> str:
        """Run `k3img COMMAND --tree . ...` for the cluster; returns what it prints. Raises `ProgramError`."""
        whose = ("--profile", self._name) if command.startswith("cluster ") else (self._name,)
        argv = (*self._where, sys.executable, "-m", "k3img", *command.split(), "--tree", str(self._root))
        return proc.run(
            [*argv, *words, *whose], env={"K3IMG_SECRETS": str(self._kept.folder.parent)}, timeout=timeout
        )

    @property
    def server(self) -> tuple[str, int]:
        """The address and port that the kubeconfig leads to."""
        text = self._kept.kubeconfig.read_text()
        found = re.search(r"server: https://\[?([^\s\]]+)\]?:(\d+)", text)
        return (found[1], int(found[2])) if found else ("", 0)

    def get(self, path: str) -> Any:
        """Ask the API by the kubeconfig as it is; None when that leads nowhere."""
        address, port = self.server
        api = Api(self._kept.kubeconfig.read_text(), port, address=address, timeout=10)
        try:
            return api.get(path)
        except ApiError:
            return None
        finally:
            api.close()


def _node(node: Node, datastore: DatastoreKind) -> dict[str, Any]:
    """A node as a profile says it."""
    found: dict[str, Any] = {"role": str(node.role), "initializer": node.initializer}
    if datastore is DatastoreKind.ETCD and found["role"] == "server":
        found["dhcp-reserved"] = True
    return {name: value for name, value in found.items() if value is not False}
