"""A cluster's secrets, found where they were kept, or made when they never were."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from k3img.cluster import kubeconfig, model, sealed, store
from k3img.cluster.seed import servers
from k3img.errors import UsageError
from k3img.log import line
from k3img.node.names import host_name
from k3img.runtime import lock as locks
from k3img.runtime.lock import Lock

if TYPE_CHECKING:
    from k3img.cluster.store import Kept
    from k3img.node.model import Node
    from k3img.profile.model import Cluster
    from k3img.tree import Tree

CA = "cluster-ca"
"""The lock file's key for the sha256 of a cluster's server CA, by cluster."""


def folder(tree: Tree, cluster: str) -> Path:
    """Where a cluster's secrets are: below `$K3IMG_SECRETS`, else in the project's `secrets/`."""
    named = os.environ.get("K3IMG_SECRETS")
    return (Path(named).absolute() if named else tree.root / "secrets") / cluster


def known(tree: Tree, cluster: Cluster, profile: Path) -> bool:
    """Whether a cluster has secrets, here or elsewhere."""
    lock = locks.read(locks.path_of(profile))
    return folder(tree, cluster.name).exists() or _recorded(lock, cluster.name) is not None


def kept(tree: Tree, cluster: Cluster, profile: Path, *, make: bool) -> Kept:
    """A cluster's secrets; with `make` new ones when it never had any.

    `profile` is the profile's file: the lock beside it names the CA, so that a checkout whose secrets are
    elsewhere does not start a second cluster. Raises `UsageError` then, and for secrets open to others.
    """
    place, path = folder(tree, cluster.name), locks.path_of(profile)
    lock = locks.read(path)
    recorded = _recorded(lock, cluster.name)
    found = store.load(place)
    if found is None and (recorded is not None or not make):
        raise _absent(cluster.name, place, path if recorded else None)
    now = datetime.now(UTC)
    if found is None:
        found = store.create(place, cluster.name, now=now)
        line(f"made the secrets of {cluster.name} in {place}: keep a copy, no node accepts others")
    if recorded not in (None, found.secrets.ca_hash):
        raise UsageError(
            f"the secrets in {place} are another cluster's than {path.name} names",
            details=f"{path.name} has {recorded}\nthe CA there is {found.secrets.ca_hash}",
            hint="Bring back the right ones. To start a new cluster, delete the line from the lock file.",
        )
    if recorded is None:
        old = lock or Lock(made=f"{now:%Y-%m-%d}")
        hashes = {**old.extra.get(CA, {}), cluster.name: found.secrets.ca_hash}
        locks.write(replace(old, extra={**old.extra, CA: hashes}), path)
    if not found.kubeconfig.exists():
        write_kubeconfig(found, cluster, address(cluster, found))
    return found


def write_kubeconfig(kept: Kept, cluster: Cluster, to: str) -> None:
    """Make a kubeconfig for an address, with a certificate of its own."""
    admin = model.admin(kept.secrets, model.lifetime(datetime.now(UTC)))
    ca = kept.secrets.authorities["server-ca"].certificate
    store.write_kubeconfig(kept, kubeconfig.text(cluster.name, ca, admin, address=to))


def address(cluster: Cluster, kept: Kept) -> str:
    """Where the API will probably be: the endpoint, a server's fixed address, or its name by mDNS."""
    if cluster.endpoint:
        return cluster.endpoint
    fixed = fixed_addresses(cluster).values()
    return next(iter(fixed), f"{hostname(servers(cluster)[0], kept)}.local")


def fixed_addresses(cluster: Cluster) -> dict[str, str]:
    """Addresses of servers that the profile gives, by node."""
    return {
        node.name: node.network.address.split("/")[0]
        for node in servers(cluster)
        if node.network.address != "dhcp"
    }


def hostname(node: Node, kept: Kept) -> str:
    """A node's name in its network: with a part of the CA's hash, so that clusters do not meet."""
    return host_name(node.name, kept.secrets.ca_hash)


def datastore_endpoint(cluster: Cluster, root: Path) -> str | None:
    """An external datastore's URL, from the file or the variable that the profile names.

    Raises `UsageError`, which never shows the value.
    """
    reference = cluster.datastore.endpoint
    if not reference:
        return None
    if name := reference.get("env"):
        where, value = f"the variable {name}", os.environ.get(name, "")
    else:
        path = root / reference["file"]
        where = f"the file {path}"
        try:
            value = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{where} with the datastore's URL: {error.strerror}") from error
    value = value.strip()
    scheme = reference["scheme"]
    if not re.match(rf"{re.escape(scheme)}(\+\w+)?://\S+$", value):
        raise UsageError(
            f"{where} has no URL that begins with {scheme}://", hint="It is a secret, so it is not shown."
        )
    return value


def _absent(cluster: str, place: Path, lock: Path | None) -> UsageError:
    """No secrets here: elsewhere, when a lock file names their CA, else nowhere."""
    if lock is None:
        return UsageError(
            f"{cluster} has no secrets yet: there is no {place}",
            hint="`k3img cluster create` or `k3img flash` makes them.",
        )
    return UsageError(
        f"the secrets of {cluster} are elsewhere: {lock.name} names their CA, there is no {place}",
        hint=f"`k3img cluster unseal` opens {sealed.beside(place)}."
        if sealed.beside(place).exists()
        else "Copy the folder from where they were made, or from your backup; K3IMG_SECRETS names its place.",
    )


def _recorded(lock: Lock | None, cluster: str) -> str | None:
    hashes = lock.extra.get(CA, {}) if lock else {}
    return hashes.get(cluster) if isinstance(hashes, dict) else None
