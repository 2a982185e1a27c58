"""k3s' configuration of this node, beside the image's own (facts: k3s configuration files).

Files in `/etc/rancher/k3s/config.yaml.d` are read in order, a later one replaces a key unless it is
written `key+:`. `10-image.yaml` is the image's file of the node's role: an agent dies of a server's option.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3img.node.medium import AGENT_TOKEN, DATASTORE_ENDPOINT, NODE_PASSWORD, TLS, TOKEN
from k3img.node.model import DatastoreKind, NodeConfig, Role
from k3img.node.names import server_name

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOLV = "/run/systemd/resolve/resolv.conf"
"""The real name servers. k3s would take 8.8.8.8 when it starts before there is one, unless told a file."""


SQLITE = (
    "sqlite:///var/lib/rancher/k3s/server/db/state.db?_journal_mode=WAL&_busy_timeout=30000"
    "&_synchronous=FULL&_txlock=immediate&_stmt_cache_size=20&cache=shared"
)
"""kine's own default but for `_synchronous`: with its NORMAL a power cut loses writes already acknowledged
(seen: 12 of 40). See docs/decisions/0005-sqlite-synchronous-full.md."""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file's content and mode."""

    content: bytes
    mode: int = 0o644


def render(
    config: NodeConfig | None,
    *,
    name: str,
    hostname: str,
    cluster: str,
    alone_on_etcd: bool,
    joins: bool,
    image: bytes | None,
    image_registries: bytes | None,
    secrets: Mapping[str, bytes],
) -> Mapping[str, File | None]:
    """k3s' files by path below `/etc/rancher`; None where there must be no file.

    A node without a `config` is a cluster of its own, on sqlite or, if the image says so, on etcd. `joins`
    says that it is to join a server: the name in its configuration is the one that k3img-discover proves.
    """
    node = config.node if config else None
    role = node.role if node else Role.SERVER
    options: dict[str, Any] = {"node-name": name, "resolv-conf": RESOLV}
    if role is Role.SERVER:
        sans = [server_name(cluster), hostname, f"{hostname}.local"]
        if config and config.endpoint:
            sans.append(config.endpoint)
        options["tls-san+"] = list(dict.fromkeys(sans))
        alone = DatastoreKind.ETCD if alone_on_etcd else DatastoreKind.SQLITE
        makes = not joins and (not node or node.initializer)
        options |= _datastore(config.datastore if config else alone, makes=makes)
    if joins:
        options["server"] = f"https://{server_name(cluster)}:6443"
    if config and node:
        options |= _seeded(config, secrets)
        for key, value in node.options.items():
            # A list extends the image's; without the plus it would silently replace it.
            options[key if not isinstance(value, list) or key.endswith("+") else f"{key}+"] = value
    token, agent_token = secrets.get(TOKEN), secrets.get(AGENT_TOKEN)
    endpoint = secrets.get(DATASTORE_ENDPOINT) if config and _is_external(config) else None
    registries = image_registries
    if config and config.registries:
        registries = (json.dumps(dict(config.registries), indent=1) + "\n").encode()
    password = secrets.get(NODE_PASSWORD)
    return {
        "k3s/config.yaml.d/10-image.yaml": File(content=image, mode=0o600) if image else None,
        "k3s/config.yaml.d/20-node.yaml": File(content=_yaml(options), mode=0o600),
        "k3s/config.yaml.d/25-datastore.yaml": _secret_option("datastore-endpoint", endpoint),
        "k3s/token": _secret(token if config else None),
        "k3s/agent-token": _secret(agent_token if config and role is Role.SERVER else None),
        "k3s/registries.yaml": File(content=registries, mode=0o600) if registries else None,
        # k3s makes its own when it was not given one: that one must stay.
        **({"node/password": _secret(password)} if config and password else {}),
    }


def _seeded(config: NodeConfig, secrets: Mapping[str, bytes]) -> dict[str, Any]:
    node = config.node
    options: dict[str, Any] = {}
    if secrets.get(TOKEN):
        options["token-file"] = "/etc/rancher/k3s/token"
    if node.role is Role.SERVER and secrets.get(AGENT_TOKEN):
        options["agent-token-file"] = "/etc/rancher/k3s/agent-token"
    if node.network.address != "dhcp":
        options["node-ip"] = node.network.address.split("/")[0]
    if node.labels:
        options["node-label+"] = [f"{key}={value}" for key, value in node.labels.items()]
    if node.taints:
        options["node-taint+"] = list(node.taints)
    return options


def _datastore(kind: DatastoreKind, *, makes: bool) -> dict[str, Any]:
    if kind is DatastoreKind.SQLITE:
        return {"datastore-endpoint": SQLITE}
    return {"cluster-init": True} if kind is DatastoreKind.ETCD and makes else {}


def _is_external(config: NodeConfig) -> bool:
    return config.datastore is DatastoreKind.EXTERNAL and config.node.role is Role.SERVER


def _yaml(options: Mapping[str, Any]) -> bytes:
    """One key a line, values as JSON: YAML reads them all as what they are."""
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in options.items()]
    return ("# written at boot by k3img-firstboot\n" + "\n".join(lines) + "\n").encode()


def _secret(content: bytes | None) -> File | None:
    return File(content=content.strip() + b"\n", mode=0o600) if content and content.strip() else None


def _secret_option(key: str, content: bytes | None) -> File | None:
    if not content:
        return None
    return File(content=_yaml({key: content.decode(errors="replace").strip()}), mode=0o600)


def ca_files(secrets: Mapping[str, bytes]) -> Mapping[str, File]:
    """The cluster's CA files by path below k3s' `server/tls`."""
    return {
        name.removeprefix(f"{TLS}/"): File(content=body, mode=0o600 if name.endswith(".key") else 0o644)
        for name, body in secrets.items()
        if name.startswith(f"{TLS}/")
    }
