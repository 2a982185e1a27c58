"""Clusters of three servers on etcd, and what etcd says of itself, over its own API on the node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from k3img.node.model import DatastoreKind
from k3img.verify.lab import server

if TYPE_CHECKING:
    from k3img.node.model import Node
    from k3img.verify.lab import Bed, LabCluster, Member

SERVERS = ("s-1", "s-2", "s-3")
"""The first makes the datastore."""

READY_SECONDS = 240
"""From power on of all: the two that join wait for the first, and etcd takes them in one by one."""

TLS = "/var/lib/rancher/k3s/server/tls/etcd"

# k3s serves HTTP beside gRPC, on a port of its own (listen-client-http-urls).
ASK = f"""
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="{TLS}/server-ca.crt")
context.load_cert_chain("{TLS}/client.crt", "{TLS}/client.key")
url = "https://127.0.0.1:2382/v3/" + sys.argv[1]
answer = urllib.request.urlopen(urllib.request.Request(url, b"{{}}"), timeout=20, context=context)
print(answer.read().decode())
"""


def trio(bed: Bed, *others: Node) -> LabCluster:
    """Three servers on etcd, and other nodes, all Ready. The first has power first: it is waited for anyway,
    and machines that wait take processors away."""
    nodes = (server(SERVERS[0], initializer=True), *map(server, SERVERS[1:]), *others)
    made = bed.cluster("shop", *nodes, datastore=DatastoreKind.ETCD)
    made.flash()
    first, *rest = made.members
    made.power_on(first)
    made.wait_ready(first, seen_by=first, timeout=READY_SECONDS)
    made.power_on(*rest)
    made.wait_ready(*made.members, seen_by=first, timeout=READY_SECONDS)
    return made


def members(server: Member) -> dict[str, str]:
    """The id of each member by the name of its node. k3s calls a member NODE-xxxxxxxx (facts: k3s, 9)."""
    listed = _ask(server, "cluster/member/list")["members"]
    return {str(item.get("name", "")).rpartition("-")[0]: str(item["ID"]) for item in listed}


def term(server: Member) -> int:
    """Raft's term: one more with each election."""
    return int(_ask(server, "maintenance/status")["raftTerm"])


def _ask(server: Member, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.machine.succeed(f"python3 -c '{ASK}' {path}"))
    return found
