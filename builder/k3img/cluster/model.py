"""A cluster's secrets in memory, and what follows from them: tokens, node passwords, the CA's hash."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k3img.cluster import ca
from k3img.cluster.ca import Pair, Validity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BEGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
"""From when our certificates count: before any image's build time, which a node without a clock starts at."""
YEARS = 30


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Everything that a cluster's nodes are given, and nobody else may see.

    `authorities` goes by `ca.NAMES`. `server` and `agent` are the passwords in the join tokens; `nodes_key`
    makes each node's own password.
    """

    authorities: Mapping[str, Pair] = field(repr=False)
    service_key: bytes = field(repr=False)
    server: str = field(repr=False)
    agent: str = field(repr=False)
    nodes_key: bytes = field(repr=False)

    @property
    def ca_hash(self) -> str:
        """sha256 of the server CA's file, hex: k3s hashes the file as it is when it holds one certificate."""
        return hashlib.sha256(self.authorities["server-ca"].certificate).hexdigest()

    @property
    def server_token(self) -> str:
        """What servers join by, and what encrypts the datastore's bootstrap data."""
        return f"K10{self.ca_hash}::server:{self.server}"

    @property
    def agent_token(self) -> str:
        """What agents join by; no server can be made of it."""
        return f"K10{self.ca_hash}::node:{self.agent}"

    def node_password(self, node: str) -> str:
        """What a node proves to be itself by: the same again when it is flashed again (32 hex digits)."""
        return hmac.new(self.nodes_key, node.encode(), hashlib.sha256).hexdigest()[:32]

    def values(self, nodes: Iterable[str]) -> dict[str, str]:
        """Each string that nobody may see, by what it is; a private key is known by one of its lines."""
        found = {
            "the server password": self.server,
            "the agents' password": self.agent,
            "the nodes' key": self.nodes_key.hex(),
        }
        found |= {f"the password of {name}": self.node_password(name) for name in nodes}
        keys = {name: pair.key for name, pair in self.authorities.items()} | {"service": self.service_key}
        return found | {
            f"the key of {name}": max(key.decode().split(), key=len) for name, key in keys.items()
        }


def lifetime(now: dt.datetime) -> Validity:
    """How long a cluster's certificates count that are made now."""
    return Validity(begin=BEGIN, end=max(now, BEGIN) + dt.timedelta(days=365 * YEARS))


def create(cluster: str, valid: Validity) -> Secrets:
    """New secrets of a cluster."""
    return Secrets(
        authorities={name: ca.authority(f"{cluster}-{name.replace('/', '-')}", valid) for name in ca.NAMES},
        service_key=ca.new_key(),
        server=secrets.token_hex(16),
        agent=secrets.token_hex(16),
        nodes_key=secrets.token_bytes(32),
    )


def admin(secrets: Secrets, valid: Validity) -> Pair:
    """A certificate that may do everything in the cluster, as that of k3s' own kubeconfig."""
    return ca.client(secrets.authorities["client-ca"], "system:admin", "system:masters", valid)
