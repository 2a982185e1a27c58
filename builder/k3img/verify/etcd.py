"""What etcd says of itself on a server under test, over its own API on the node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from k3img.verify.lab import Member

TLS = "/var/lib/rancher/k3s/server/tls/etcd"

ASK = f"""
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile="{TLS}/server-ca.crt")
context.load_cert_chain("{TLS}/client.crt", "{TLS}/client.key")
url = "https://127.0.0.1:2379/v3/" + sys.argv[1]
answer = urllib.request.urlopen(urllib.request.Request(url, b"{{}}"), timeout=20, context=context)
print(answer.read().decode())
"""


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
