"""What is known of one node, in a profile's `cluster.nodes` and in the `node.yaml` of its seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class _Empty(Mapping[str, Any]):
    """No entries. Hashable, which Python 3.11 wants of a dataclass's default and a mapping proxy is not."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


EMPTY: Mapping[str, Any] = _Empty()


class Role(StrEnum):
    """What k3s runs as on a node."""

    SERVER = "server"
    AGENT = "agent"


class DatastoreKind(StrEnum):
    """Where a server keeps the cluster's state (facts: k3s docs/datastore)."""

    SQLITE = "sqlite"
    ETCD = "etcd"
    EXTERNAL = "external"


@dataclass(frozen=True, kw_only=True)
class Network:
    """How a node's wired interfaces are addressed: `address` is `dhcp` or one such as `10.0.0.2/24`."""

    address: str = "dhcp"
    gateway: str | None = None
    dns: tuple[str, ...] = ()
    ntp: tuple[str, ...] = ()
    dhcp_reserved: bool = False
    mac: str | None = None
    vlan: int | None = None
    bond: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node of a cluster. `options` are further k3s options of its role, by their names."""

    name: str
    role: Role = Role.SERVER
    initializer: bool = False
    network: Network = field(default_factory=Network)
    serial: str | None = None
    labels: Mapping[str, str] = EMPTY
    taints: tuple[str, ...] = ()
    options: Mapping[str, Any] = EMPTY


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """A whole `node.yaml`: the node, and what it must know of its cluster.

    `bootstrap` is the right to make a datastore. `issued` is when the seed was made (Unix seconds, UTC).
    `ca_hash` is the sha256 of the cluster's server CA file, in hex. `servers` are the names of all servers.
    """

    node: Node
    cluster: str
    datastore: DatastoreKind = DatastoreKind.SQLITE
    bootstrap: bool = False
    issued: int = 0
    ca_hash: str | None = None
    endpoint: str | None = None
    servers: tuple[str, ...] = ()
    registries: Mapping[str, Any] = EMPTY
    ssh_keys: tuple[str, ...] = ()
