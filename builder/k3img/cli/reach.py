"""`k3img wait` and `k3img nodes`: from this machine to a cluster's nodes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from k3img.cli.cluster import cluster as cluster_group
from k3img.cli.cluster import secrets_of
from k3img.cli.common import load_profile, profile_option, tree_option
from k3img.cluster import found
from k3img.cluster.api import with_server
from k3img.cluster.kubeconfig import url
from k3img.cluster.seed import members
from k3img.cluster.store import stamp, write_kubeconfig
from k3img.errors import ProfileError, UsageError, VerifyError
from k3img.log import line
from k3img.profile.load import names
from k3img.reach import find, tokens
from k3img.reach import wait as reach

if TYPE_CHECKING:
    from k3img.cluster.store import Kept
    from k3img.profile.model import Profile
    from k3img.reach.find import Place
    from k3img.reach.wait import Look
    from k3img.tree import Tree

address_option = click.option(
    "--address", "addresses", multiple=True, metavar="IP[:PORT]", help="Where a server is; may be repeated."
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A cluster that is looked at: its profile, its secrets, where else to look."""

    profile: Profile
    kept: Kept
    places: tuple[Place, ...]

    def look(self) -> Look:
        """Look once. Given addresses are enough: then nobody else is asked."""
        cluster = self.profile.cluster
        places = self.places or (
            *find.of_profile(cluster),
            *find.by_mdns(find.host_names(cluster, self.kept)),
        )
        return reach.look(cluster, self.kept.kubeconfig.read_text(encoding="utf-8"), places)

    def follow(self, place: Place | None) -> None:
        """Write the address where the API answered into the kubeconfig."""
        if place is None:
            return
        text = self.kept.kubeconfig.read_text(encoding="utf-8")
        if (new := with_server(text, url(place.address, place.port))) != text:
            write_kubeconfig(self.kept, new)
            line(f"{self.kept.kubeconfig} leads to {place.address} now")


@click.command("wait")
@tree_option
@address_option
@click.option("--timeout", type=float, default=900, show_default=True, help="Seconds.")
@click.argument("name", metavar="CLUSTER")
def wait_command(tree: Tree, addresses: tuple[str, ...], timeout: float, name: str) -> None:
    """Wait until all nodes of a cluster are Ready; names where the kubeconfig is then."""
    target = targeted(tree, name, addresses)
    last, seconds = reach.wait(target.look, lambda text: click.echo(f"  {text}"), timeout=timeout)
    target.follow(last.api)
    if not last.complete:
        missing = ", ".join(node.name for node in last.nodes if not node.ready)
        raise VerifyError(f"not Ready after {seconds:.0f} s: {missing}", hint=reach.WHERE_TO_LOOK)
    click.echo(f"  all Ready after {seconds:.0f} s")
    click.echo(f"  kubectl --kubeconfig {target.kept.kubeconfig} get nodes")


@click.command("nodes")
@tree_option
@address_option
@click.argument("name", metavar="CLUSTER")
def nodes_command(tree: Tree, addresses: tuple[str, ...], name: str) -> None:
    """Look once at the nodes of a cluster; the kubeconfig follows a server that has moved."""
    target = targeted(tree, name, addresses)
    seen = target.look()
    target.follow(seen.api)
    for node in seen.nodes:
        click.echo(f"  {node}")


@cluster_group.command("rotate-token")
@tree_option
@profile_option
@address_option
@click.option("--without", multiple=True, metavar="NODE", help="A node that is lost; may be repeated.")
@click.option("--timeout", type=float, default=900, show_default=True, help="Seconds for each node.")
def rotate_token(
    tree: Tree, profile: str, addresses: tuple[str, ...], without: tuple[str, ...], timeout: float
) -> None:
    """Give a running cluster new join tokens, after which lost cards and old seeds open nothing.

    All of its nodes must be Ready: one after the other takes the new tokens and restarts k3s.
    """
    target = of_profile(tree, profile, addresses)
    cluster = target.profile.cluster
    if unknown := set(without) - {node.name for node in members(cluster)}:
        raise UsageError(f"{cluster.name} has no node {', '.join(sorted(unknown))}")
    change = tokens.Change(
        cluster=cluster,
        kept=target.kept,
        look=target.look,
        tell=lambda text: click.echo(f"  {text}"),
        timeout=timeout,
    )
    change.run(without, now=stamp(datetime.now(UTC)))
    click.echo(f"  all have them; seeds written from now on, too. Keep a copy of {target.kept.folder}")
    for node in without:
        click.echo(f"  {node} is out: `kubectl delete node {node}`, or write its card anew")


def targeted(tree: Tree, name: str, addresses: tuple[str, ...]) -> Target:
    """A cluster by its name, or its profile's."""
    return of_profile(tree, profile_of(tree, name), addresses)


def of_profile(tree: Tree, profile: str, addresses: tuple[str, ...]) -> Target:
    """A profile's cluster, which must have secrets."""
    wanted = load_profile(tree, profile).profile
    return Target(
        profile=wanted,
        kept=secrets_of(tree, wanted, profile, make=False),
        places=tuple(find.named(text) for text in addresses),
    )


def profile_of(tree: Tree, name: str) -> str:
    """The profile whose cluster has that name. Raises `UsageError` when there is none, or several."""
    fits = []
    for profile in names(tree.profiles):
        try:
            if load_profile(tree, profile).profile.cluster.name == name:
                fits.append(profile)
        except ProfileError:
            continue  # a base, or one that is being written
    if name in fits or len(fits) == 1:
        return name if name in fits else fits[0]
    if fits:
        raise UsageError(f"several profiles have a cluster {name}: {', '.join(fits)}")
    raise UsageError(f"no profile has a cluster {name}", hint=f"Secrets are below {found.folder(tree, '')}.")


COMMANDS = (wait_command, nodes_command)
