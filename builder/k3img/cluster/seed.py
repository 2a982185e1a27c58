"""What one node of a cluster is given, and nothing more: its node.yaml, its tokens, a server's CA files."""

from __future__ import annotations

import datetime as dt
import io
import tarfile
from typing import TYPE_CHECKING

from k3img.cluster import ca, model
from k3img.errors import UsageError
from k3img.node.load import dump
from k3img.node.medium import (
    ADMIN,
    AGENT_TOKEN,
    AGENTS,
    DATASTORE_ENDPOINT,
    NODE_FILE,
    NODE_PASSWORD,
    SECRETS,
    TLS,
    TOKEN,
)
from k3img.node.model import EMPTY, DatastoreKind, Node, NodeConfig, Role
from k3img.node.names import match_key
from k3img.profile.model import Match

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from k3img.cluster.model import Secrets
    from k3img.profile.model import Cluster


def members(cluster: Cluster) -> tuple[Node, ...]:
    """The nodes of a cluster; a profile without any is one server, named after the cluster."""
    return cluster.nodes or (Node(name=f"{cluster.name}-1", initializer=True),)


def servers(cluster: Cluster) -> tuple[Node, ...]:
    """The nodes of a cluster that are servers."""
    return tuple(node for node in members(cluster) if node.role is Role.SERVER)


def member(cluster: Cluster, name: str | None) -> Node:
    """A node by name; without one the only node. Raises `UsageError` that names them all."""
    nodes = members(cluster)
    known = ", ".join(node.name for node in nodes)
    if name is None:
        if len(nodes) > 1:
            hint = f"Add --node, one of {known}."
            if cluster.match is not None:
                hint += " Or --shared, for all agents."
            raise UsageError(f"{cluster.name} has {len(nodes)} nodes", hint=hint)
        return nodes[0]
    found = next((node for node in nodes if node.name == name), None)
    if found is None:
        raise UsageError(f"{cluster.name} has no node {name}", hint=f"Its nodes are {known}.")
    return found


def files(
    cluster: Cluster,
    node: Node,
    secrets: Secrets,
    *,
    bootstrap: bool,
    issued: int,
    registries: Mapping[str, Any] = EMPTY,
    ssh_keys: tuple[str, ...] = (),
    endpoint: str | None = None,
) -> dict[str, bytes]:
    """The files of a node's seed, by path on its K3IMG partition.

    `bootstrap` is the right to make a datastore, `issued` Unix seconds in UTC, `endpoint` an external
    datastore's URL with its password.
    """
    config = NodeConfig(
        node=node,
        cluster=cluster.name,
        datastore=cluster.datastore.kind,
        bootstrap=bootstrap,
        issued=issued,
        ca_hash=secrets.ca_hash,
        endpoint=cluster.endpoint,
        servers=tuple(item.name for item in servers(cluster)),
        registries=registries,
        ssh_keys=ssh_keys,
    )
    kept = {NODE_PASSWORD: f"{secrets.node_password(node.name)}\n".encode()}
    if node.role is Role.SERVER:
        kept |= _of_server(secrets, etcd=cluster.datastore.kind is DatastoreKind.ETCD, issued=issued)
        if endpoint is not None:
            kept[DATASTORE_ENDPOINT] = f"{endpoint}\n".encode()
    else:
        kept[TOKEN] = f"{secrets.agent_token}\n".encode()
    return {NODE_FILE: dump(config).encode()} | {f"{SECRETS}/{name}": body for name, body in kept.items()}


def shared(
    cluster: Cluster,
    secrets: Secrets,
    *,
    issued: int,
    registries: Mapping[str, Any] = EMPTY,
    ssh_keys: tuple[str, ...] = (),
) -> dict[str, bytes]:
    """The files of the seed that all agents share: each machine takes its own by MAC or serial number.

    Whoever has it can be any of the agents, and no server. Raises `UsageError` when the profile does not say
    by what they are told apart.
    """
    if cluster.match is None:
        raise UsageError(
            f"the agents of {cluster.name} share no seed",
            hint="Say by what they are told apart: `match: mac` or `match: serial`, in `cluster`.",
        )
    made = {f"{SECRETS}/{TOKEN}": f"{secrets.agent_token}\n".encode()}
    for node in members(cluster):
        if node.role is Role.AGENT:
            own = node.network.mac if cluster.match is Match.MAC else node.serial
            key = match_key(own or "")
            content = files(
                cluster, node, secrets,
                bootstrap=False, issued=issued, registries=registries, ssh_keys=ssh_keys,
            )  # fmt: skip
            made[f"{AGENTS}/{key}/{NODE_FILE}"] = content[NODE_FILE]
            made[f"{SECRETS}/{AGENTS}/{key}/{NODE_PASSWORD}"] = content[f"{SECRETS}/{NODE_PASSWORD}"]
    return made


def _of_server(secrets: Secrets, *, etcd: bool, issued: int) -> dict[str, bytes]:
    """Tokens and CA files, as k3s names them in `server/tls/` (facts: k3s, pre-seeding)."""
    found = {
        TOKEN: f"{secrets.server_token}\n".encode(),
        AGENT_TOKEN: f"{secrets.agent_token}\n".encode(),
        f"{TLS}/{ca.SERVICE_KEY}": secrets.service_key,
    }
    for name, pair in secrets.authorities.items():
        if etcd or not name.startswith("etcd/"):
            found[f"{TLS}/{name}.crt"], found[f"{TLS}/{name}.key"] = pair.certificate, pair.key
    if etcd:
        pair = model.admin(secrets, model.lifetime(dt.datetime.fromtimestamp(issued, dt.UTC)))
        found[f"{ADMIN}.crt"], found[f"{ADMIN}.key"] = pair.certificate, pair.key
    return found


def credential(content: Mapping[str, bytes]) -> bytes:
    """A seed's files as a virtual machine takes them, in the credential k3img.seed: a packed tar."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, body in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o600
            archive.addfile(entry, io.BytesIO(body))
    return packed.getvalue()
