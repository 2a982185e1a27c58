"""The rules of a cluster (design: cluster.md): datastore, who may be a server, addresses, names."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from k3img.node import check as node_check
from k3img.node.model import DatastoreKind, Role
from k3img.profile.model import Match

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k3img.node.model import Node
    from k3img.profile.model import Cluster, Profile
    from k3img.profile.sink import Sink

PODS, SERVICES = "10.42.0.0/16", "10.43.0.0/16"
"""k3s' own networks unless cluster-cidr and service-cidr say otherwise."""


def check(profile: Profile, sink: Sink) -> None:
    """Report what is wrong with the cluster and its nodes."""
    cluster = profile.cluster
    _datastore(cluster, sink)
    _names(profile, sink)
    for node in cluster.nodes:
        for key, fault in node_check.node(node):
            _report(_path(node) if key == "name" else f"{_path(node)}.{key}", fault, sink)
    if cluster.nodes and _clean(cluster.nodes, "role", sink):
        _servers(cluster, sink)
    _duplicates(cluster, sink)
    _overlaps(profile, sink)
    _match(cluster, sink)


def _path(node: Node) -> str:
    return f"cluster.nodes.{node.name}"


def _report(path: str, fault: node_check.Fault, sink: Sink) -> None:
    if sink.clean(path):
        sink.fault(path, fault)


def _clean(nodes: Sequence[Node], key: str, sink: Sink) -> bool:
    return all(sink.clean(f"{_path(node)}.{key}") for node in nodes)


def _datastore(cluster: Cluster, sink: Sink) -> None:
    if cluster.datastore.kind is not DatastoreKind.EXTERNAL or not sink.clean("cluster.datastore"):
        return
    given = cluster.datastore.endpoint.keys() & {"file", "env"}
    if len(given) != 1:
        what = "needs file or env" if not given else "has both file and env"
        hint = "Name one: where `k3img seed` finds the URL with its password."
        sink.problem("cluster.datastore.endpoint", what, hint)


def _names(profile: Profile, sink: Sink) -> None:
    """A profile without nodes is one node, which is called after it."""
    cluster = profile.cluster
    if not sink.clean("name", "cluster.name"):
        return
    for name in [node.name for node in cluster.nodes] or [f"{profile.name}-1"]:
        path = f"cluster.nodes.{name}" if cluster.nodes else "cluster.name"
        if fault := node_check.cluster_and_node(cluster.name, name):
            _report(path, fault, sink)


def _servers(cluster: Cluster, sink: Sink) -> None:
    servers = [node for node in cluster.nodes if node.role is Role.SERVER]
    first = [node for node in servers if node.initializer]
    kind = cluster.datastore.kind
    if not servers:
        sink.problem("cluster.nodes", "has no server", "Write role: server at one node.")
        return
    if _clean(servers, "initializer", sink):
        if len(first) > 1:
            hint = "Exactly one server makes the datastore; the others join it."
            what = f"is a second initializer beside {first[0].name}"
            for node in first[1:]:
                sink.problem(f"{_path(node)}.initializer", what, hint)
        elif not first and len(servers) > 1:
            hint = "Write initializer: true at the server that makes the datastore."
            sink.problem("cluster.nodes", "has no initializer among its servers", hint)
    if not sink.clean("cluster.datastore"):
        return
    if kind is DatastoreKind.SQLITE and len(servers) > 1:
        hint = "Use datastore: etcd with three servers, or an external one."
        what = f"is sqlite, which only one server can use; there are {len(servers)}"
        sink.problem("cluster.datastore", what, hint)
    if kind is DatastoreKind.ETCD:
        _etcd(servers, sink)


def _etcd(servers: Sequence[Node], sink: Sink) -> None:
    if len(servers) % 2 == 0:
        hint = f"They survive no more losses than {len(servers) - 1} would."
        what = f"has {len(servers)} etcd servers, an even number"
        sink.problem("cluster.nodes", what, hint, warning=True)
    for node in servers:
        if node.network.address == "dhcp" and not node.network.dhcp_reserved:
            what = "is dhcp, but an etcd member cannot change its address"
            hint = "Write a fixed address, or dhcp-reserved: true if the DHCP server keeps it."
            if _clean([node], "address", sink):
                sink.problem(f"{_path(node)}.address", what, hint)


def _duplicates(cluster: Cluster, sink: Sink) -> None:
    def ip(node: Node) -> str | None:
        return None if node.network.address == "dhcp" else node.network.address.partition("/")[0]

    keys: dict[str, Callable[[Node], str | None]] = {
        "address": ip,
        "mac": lambda node: node.network.mac,
        "serial": lambda node: node.serial,
    }
    for key, value_of in keys.items():
        seen: dict[str, Node] = {}
        for node in cluster.nodes:
            value = value_of(node)
            if value is None or not _clean([node], key, sink):
                continue
            if value in seen:
                what = f"{value} is that of {seen[value].name} as well"
                sink.problem(f"{_path(node)}.{key}", what, "Each node needs its own.")
            seen.setdefault(value, node)
    if cluster.endpoint is not None and sink.clean("cluster.endpoint"):
        taken = [node for node in cluster.nodes if ip(node) == cluster.endpoint and node.role is Role.AGENT]
        for node in taken:
            what = f"{cluster.endpoint} is the address of {node.name}, an agent"
            sink.problem("cluster.endpoint", what, "Name a server, or an address that follows the servers.")


def _overlaps(profile: Profile, sink: Sink) -> None:
    """A node inside the pods' or services' network cannot be reached from pods."""
    if not sink.clean("k3s.server"):
        return
    for option, default in (("cluster-cidr", PODS), ("service-cidr", SERVICES)):
        given = profile.k3s.server.get(option, default)
        for text in given if isinstance(given, list | tuple) else given.split(","):
            try:
                network = ipaddress.ip_network(text.strip() if "/" in text else "")
            except ValueError:
                hint = f"Write one such as {default}."
                sink.problem(f"k3s.server.{option}", f"{text!r} is no network", hint)
                continue
            for node in profile.cluster.nodes:
                if node.network.address == "dhcp" or not _clean([node], "address", sink):
                    continue
                own = ipaddress.ip_interface(node.network.address)
                if own.version == network.version and own.ip in network:
                    hint = f"Use another address, or set k3s.server.{option}."
                    sink.problem(f"{_path(node)}.address", f"lies in k3s' own network {network}", hint)


def _match(cluster: Cluster, sink: Sink) -> None:
    if cluster.match is None or not sink.clean("cluster.match"):
        return
    agents = [node for node in cluster.nodes if node.role is Role.AGENT]
    if not agents:
        what = "is for agents that share a seed, and there are none"
        sink.problem("cluster.match", what, "Remove it: a server always has a seed of its own.")
    for node in agents:
        value = node.network.mac if cluster.match is Match.MAC else node.serial
        if value is None and _clean([node], str(cluster.match), sink):
            what = f"is missing: cluster.match is {cluster.match}"
            sink.problem(f"{_path(node)}.{cluster.match}", what, "Agents with one seed are told apart by it.")
