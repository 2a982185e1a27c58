"""A seed for a machine that lives for one verification: a node of the profile, with secrets nobody keeps.

Never the cluster's own secrets (`secrets/`): an image is verified on machines that must not have them.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from k3img.cluster.ca import Validity
from k3img.cluster.model import create
from k3img.cluster.seed import credential, files
from k3img.node.medium import CREDENTIAL
from k3img.node.model import DatastoreKind, Network, Node, Role
from k3img.profile.model import Datastore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.profile.model import Cluster

DAYS = 2


@dataclass(frozen=True, kw_only=True)
class Throwaway:
    """Credentials for the machine, and what the report has to say about them."""

    credentials: Mapping[str, bytes]
    notes: tuple[str, ...]


def seed(
    cluster: Cluster, *, registries: Mapping[str, object], ssh_keys: tuple[str, ...] = ()
) -> Throwaway | None:
    """The seed of the cluster's initializer, for a machine on its own; None for a profile without nodes.

    `ssh_keys` are public keys that get in, where the image has an ssh server.
    """
    initializer = _initializer(cluster.nodes)
    if initializer is None:
        return None
    notes = [f"verified as the node {initializer.name}, with secrets made for this run only"]
    kind = cluster.datastore.kind
    if kind is DatastoreKind.EXTERNAL:
        kind = DatastoreKind.SQLITE
        notes.append("the external datastore was replaced by sqlite")
    if initializer.network != Network():
        notes.append("the node's own network settings were replaced by DHCP")
    now = dt.datetime.now(dt.UTC)
    # Backdated: a machine whose clock is behind must still accept them.
    valid = Validity(begin=now - dt.timedelta(days=DAYS), end=now + dt.timedelta(days=DAYS))
    node = replace(initializer, initializer=True, network=Network(), serial=None)
    content = files(
        replace(cluster, datastore=Datastore(kind=kind), endpoint=None, nodes=(node,)),
        node,
        create("k3img-verify", valid),
        bootstrap=True,
        issued=int(time.time()),
        registries=registries,
        ssh_keys=ssh_keys,
    )
    return Throwaway(credentials={CREDENTIAL: credential(content)}, notes=tuple(notes))


def _initializer(nodes: tuple[Node, ...]) -> Node | None:
    """The node that makes the datastore: the one named so, else the first server."""
    servers = [node for node in nodes if node.role is Role.SERVER]
    return next((node for node in servers if node.initializer), servers[0] if servers else None)
