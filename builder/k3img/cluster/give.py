"""What giving a node its seed means: a first one, one in place of another, one for a new datastore.

The right to make a datastore is given once. Whoever gives it again must know what is lost by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.cluster.seed import members, servers
from k3img.cluster.store import ROTATION
from k3img.errors import UsageError
from k3img.node.model import DatastoreKind

if TYPE_CHECKING:
    from k3img.cluster.store import Given, Kept
    from k3img.node.model import Node
    from k3img.profile.model import Cluster


@dataclass(frozen=True, kw_only=True)
class Gift:
    """A seed that is about to be given: with the right to make a datastore or not, and what to say of it.

    `asks` are the options that scripts have to give, because something is replaced or lost.
    """

    bootstrap: bool
    says: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()


def gift(cluster: Cluster, node: Node, kept: Kept, *, new_datastore: bool) -> Gift:
    """What it means to seed a node now.

    Raises `UsageError` when a datastore is asked of another node, or the tokens are being changed.
    """
    _settled(cluster, kept)
    says: list[str] = []
    asks: list[str] = []
    before = kept.last(node.name)
    if before is not None:
        says.append(
            f"{node.name} was seeded on {before.when} ({before.medium}): this replaces it. "
            "Another machine needs a node of its own."
        )
        asks.append("--replace")
    if not node.initializer:
        if new_datastore:
            raise UsageError(
                f"{node.name} is not the node that makes the datastore",
                hint=f"That is {_initializer(cluster)}.",
            )
        return Gift(bootstrap=False, says=tuple(says), asks=tuple(asks))
    first = kept.bootstrapped
    if first is None:
        return Gift(bootstrap=True, says=tuple(says), asks=tuple(asks))
    if new_datastore or _goes_with_the_card(cluster):
        says.append(_lost(cluster, first))
        asks.append("--new-datastore")
        return Gift(bootstrap=True, says=tuple(says), asks=tuple(asks))
    says.append(f"{node.name} comes back as one that joins: the datastore is of {first.when}.")
    return Gift(bootstrap=False, says=tuple(says), asks=tuple(asks))


def shared(cluster: Cluster, kept: Kept) -> Gift:
    """What it means to give the agents the seed that they share. Raises `UsageError` as `gift` does."""
    _settled(cluster, kept)
    return Gift(bootstrap=False)


def _settled(cluster: Cluster, kept: Kept) -> None:
    """Raise `UsageError` while the tokens are being changed: a seed would have the old ones."""
    if (kept.folder / ROTATION).exists():
        raise UsageError(
            f"the tokens of {cluster.name} are being changed, and some nodes have the new ones",
            hint="First let `k3img cluster rotate-token` come to its end: run it again.",
        )


def agreed(gift: Gift, given: tuple[str, ...]) -> None:
    """Raise `UsageError` unless all that a gift asks for was given on the command line."""
    missing = [option for option in gift.asks if option not in given]
    if missing:
        raise UsageError(
            "what this replaces was not agreed to",
            details="\n".join(gift.says),
            hint=f"Add {' '.join(missing)}.",
        )


def _goes_with_the_card(cluster: Cluster) -> bool:
    """Whether the datastore lies on one card alone: nobody else could give it back."""
    return len(servers(cluster)) == 1 and cluster.datastore.kind is not DatastoreKind.EXTERNAL


def _lost(cluster: Cluster, first: Given) -> str:
    return (
        f"The datastore of {cluster.name}, made by the seed of {first.when}, goes with the old card: every "
        "object in the cluster is lost. Certificates and tokens stay: agents and the kubeconfig work again."
    )


def _initializer(cluster: Cluster) -> str:
    return next((item.name for item in members(cluster) if item.initializer), "none of its nodes")
