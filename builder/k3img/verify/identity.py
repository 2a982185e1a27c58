"""What makes a node this node: it must be the same after every restart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k3img.cluster.api import Api
    from k3img.vm.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a node is, to systemd, to the cluster and to its clients."""

    machine_id: str
    hostname: str
    node_name: str
    node_uid: str
    cluster_uid: str
    ca_sha256: str

    def differences(self, other: Identity) -> tuple[str, ...]:
        """What differs, one line each."""
        mine, theirs = asdict(self), asdict(other)
        return tuple(f"{name}: {mine[name]} -> {theirs[name]}" for name in mine if mine[name] != theirs[name])

    def __str__(self) -> str:
        """All of it, a line each."""
        return "\n".join(f"{name}: {value}" for name, value in asdict(self).items())


def read(machine: Machine, api: Api) -> Identity:
    """Ask a running node who it is."""
    node = api.get("/api/v1/nodes")["items"][0]
    authority = "/var/lib/rancher/k3s/server/tls/server-ca.crt"
    return Identity(
        machine_id=machine.succeed("cat /etc/machine-id").strip(),
        hostname=machine.succeed("cat /proc/sys/kernel/hostname").strip(),
        node_name=str(node["metadata"]["name"]),
        node_uid=str(node["metadata"]["uid"]),
        # The namespace kube-system lives as long as the datastore.
        cluster_uid=str(api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]),
        ca_sha256=machine.succeed(f"sha256sum < {authority}").split()[0],
    )
