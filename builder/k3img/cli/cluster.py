"""`k3img cluster` and `k3img seed`: a cluster's secrets, and what each of its nodes is given."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from k3img.cli.common import load_profile, profile_file, profile_option, shown, tree_option
from k3img.cluster import found, give, sealed, seed, store
from k3img.cluster.store import Given
from k3img.errors import UsageError
from k3img.tree import give_to_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k3img.cluster.give import Gift
    from k3img.cluster.store import Kept
    from k3img.node.model import Node
    from k3img.profile.model import Cluster, Profile
    from k3img.tree import Tree

SHARED = "(agents)"
"""In the ledger: the seed that agents share. No node can have that name."""

FC = TypeVar("FC", bound="Callable[..., Any] | click.Command")
"""A command, before or after click made one of it."""


@click.group()
def cluster() -> None:
    """Make, show and use a cluster's secrets, in secrets/CLUSTER/ or $K3IMG_SECRETS."""


@cluster.command()
@tree_option
@profile_option
def create(tree: Tree, profile: str) -> None:
    """Make the secrets of a profile's cluster, unless it has them."""
    kept = secrets_of(tree, load_profile(tree, profile).profile, profile, make=True)
    click.echo(f"{kept.folder}: CA {kept.secrets.ca_hash}")
    click.echo(f"kubeconfig: {kept.kubeconfig}")


@cluster.command()
@tree_option
@profile_option
def show(tree: Tree, profile: str) -> None:
    """Show a cluster's nodes and which seeds they were given; nothing secret."""
    wanted = load_profile(tree, profile).profile
    kept = secrets_of(tree, wanted, profile, make=False)
    click.echo(f"cluster {wanted.cluster.name}, CA {kept.secrets.ca_hash}")
    for node in seed.members(wanted.cluster):
        given = kept.last(node.name)
        kind = f"{node.role}, initializer" if node.initializer else str(node.role)
        seeded = f"seeded {given.when} ({given.medium})" if given else "not seeded"
        click.echo(f"  {node.name:20} {kind:20} {found.hostname(node, kept)}.local  {seeded}")


@cluster.command()
@tree_option
@profile_option
@click.option("--address", help="Name or address of a server; without it the profile's, or mDNS.")
def kubeconfig(tree: Tree, profile: str, address: str | None) -> None:
    """Write a cluster's kubeconfig, and print its path."""
    wanted = load_profile(tree, profile).profile
    kept = secrets_of(tree, wanted, profile, make=False)
    found.write_kubeconfig(kept, wanted.cluster, address or found.address(wanted.cluster, kept))
    click.echo(kept.kubeconfig)


@cluster.command()
@tree_option
@profile_option
@click.option("--recipient", multiple=True, help="age1... or an ssh public key, instead of a passphrase.")
def seal(tree: Tree, profile: str, recipient: tuple[str, ...]) -> None:
    """Encrypt a cluster's secrets into secrets/CLUSTER.age, which may be committed.

    By a passphrase, asked for or in $K3IMG_PASSPHRASE, or for recipients. The folder stays.
    """
    place = secrets_of(tree, load_profile(tree, profile).profile, profile, make=False).folder
    passphrase = "" if recipient else ask_passphrase(confirm=True)
    click.echo(sealed.seal(place, recipients=recipient, passphrase=passphrase))


@cluster.command()
@tree_option
@profile_option
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file of your age or ssh key, when it was encrypted for you.",
)
def unseal(tree: Tree, profile: str, identity: Path | None) -> None:
    """Make a cluster's secrets again from secrets/CLUSTER.age."""
    wanted = load_profile(tree, profile).profile
    place = found.folder(tree, wanted.cluster.name)
    sealed.unseal(place, identity=identity, passphrase="" if identity else ask_passphrase(confirm=False))
    click.echo(secrets_of(tree, wanted, profile, make=False).folder)


def ask_passphrase(*, confirm: bool) -> str:
    """From the environment, for scripts, else typed. Never from the command line: others see that."""
    if given := os.environ.get("K3IMG_PASSPHRASE"):
        return given
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def node_options(command: FC) -> FC:
    """`--node`, `--shared`, `--yes`, `--replace`, `--new-datastore`: whose seed, and what was agreed to."""
    options = (
        click.option("--node", metavar="NAME", help="Which node; a profile with one node needs no name."),
        click.option("--shared", is_flag=True, help="One for all agents (cluster.match)."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--replace", is_flag=True, help="With --yes: the node may have been seeded before."),
        click.option("--new-datastore", is_flag=True, help="The cluster starts anew, with nothing in it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("seed")
@tree_option
@profile_option
@node_options
@click.option("-o", "--output", "target", required=True, type=click.Path(path_type=Path))
def seed_command(
    tree: Tree,
    profile: str,
    node: str | None,
    shared: bool,
    yes: bool,
    replace: bool,
    new_datastore: bool,
    target: Path,
) -> None:
    """Write a node's seed: a folder for its K3IMG partition, or NAME.tar.gz, a VM's credential k3img.seed.

    It holds secrets: whoever has it can be that node.
    """
    if target.exists():
        raise UsageError(f"{target} is there already", hint="Name another place, or remove it.")
    asked = Asked(node=node, shared=shared, yes=yes, replace=replace, new_datastore=new_datastore)
    given = prepare(tree, load_profile(tree, profile).profile, profile, asked)
    if not yes and given.gift.says:
        click.confirm("\n".join(f"  {text}" for text in given.gift.says) + "\n  Go on?", abort=True, err=True)
    write_seed(given.files, target)
    given.done(str(target))
    click.echo(f"{target}: {given.about}")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line agreed to in advance."""

    node: str | None = None
    shared: bool = False
    yes: bool = False
    replace: bool = False
    new_datastore: bool = False

    def check(self, cluster: Cluster) -> None:
        """Raise `UsageError` unless this is one node's seed, or the agents' own."""
        if not self.shared:
            seed.member(cluster, self.node)
        elif self.node or self.new_datastore:
            raise UsageError("--shared is for the agents, so it goes without --node and --new-datastore")

    @property
    def options(self) -> tuple[str, ...]:
        """The same, as it is typed."""
        named = {"--replace": self.replace, "--new-datastore": self.new_datastore}
        return tuple(name for name, given in named.items() if given)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A node's seed that was not given yet: its files, what it means, what to call with its medium."""

    cluster: str
    gift: Gift
    files: Mapping[str, bytes]
    about: str
    done: Callable[[str], None]


def prepare(tree: Tree, wanted: Profile, profile: str, asked: Asked) -> Prepared:
    """A node's seed; `wanted` is what the profile of that name or file says.

    Raises `UsageError` when a script did not agree to what it replaces.
    """
    asked.check(wanted.cluster)
    if asked.shared:
        return _prepare_shared(tree, wanted, profile)
    member = seed.member(wanted.cluster, asked.node)
    endpoint = found.datastore_endpoint(wanted.cluster, tree.root)
    kept = secrets_of(tree, wanted, profile, make=True)
    gift = give.gift(wanted.cluster, member, kept, new_datastore=asked.new_datastore)
    if asked.yes:
        give.agreed(gift, asked.options)
    files = seed.files(
        wanted.cluster,
        member,
        kept.secrets,
        bootstrap=gift.bootstrap,
        issued=int(time.time()),
        registries=dict(wanted.k3s.registries),
        endpoint=endpoint,
    )
    return Prepared(
        cluster=wanted.cluster.name,
        gift=gift,
        files=files,
        about=about(wanted, member, kept),
        done=lambda medium: _note(kept, member.name, gift, medium),
    )


def _prepare_shared(tree: Tree, wanted: Profile, profile: str) -> Prepared:
    kept = secrets_of(tree, wanted, profile, make=True)
    gift = give.shared(wanted.cluster, kept)
    files = seed.shared(
        wanted.cluster, kept.secrets, issued=int(time.time()), registries=dict(wanted.k3s.registries)
    )
    cluster = wanted.cluster.name
    return Prepared(
        cluster=cluster,
        gift=gift,
        files=files,
        about=f"the seed that the agents of {cluster} share, told apart by {wanted.cluster.match}",
        done=lambda medium: _note(kept, SHARED, gift, medium),
    )


def about(profile: Profile, node: Node, kept: Kept) -> str:
    """A node in words, for the end of a command."""
    where = shown(kept.kubeconfig)
    return f"node {node.name}: {node.role} of cluster {profile.cluster.name}.  kubeconfig: {where}"


def _note(kept: Kept, node: str, gift: Gift, medium: str) -> None:
    kept.note(
        Given(
            node=node,
            seed=str(uuid.uuid4()),
            when=store.stamp(datetime.now(UTC)),
            medium=medium,
            bootstrap=gift.bootstrap,
        )
    )


def secrets_of(tree: Tree, wanted: Profile, profile: str, *, make: bool) -> Kept:
    """The secrets of a profile's cluster."""
    with store.locked(found.folder(tree, wanted.cluster.name)):
        return found.kept(tree, wanted.cluster, profile_file(tree, profile), make=make)


def write_seed(files: Mapping[str, bytes], target: Path) -> None:
    """A seed as a folder, or as a credential when the name ends in .tar.gz. Only its owner may read it."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(mode=0o700)
        packed = target.name.endswith(".tar.gz")
        for name, data in ({"tar": seed.credential(files)} if packed else files).items():
            store.write(part / name, data)
        give_to_caller(part)
        (part / "tar" if packed else part).rename(target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


COMMANDS = (cluster, seed_command)
