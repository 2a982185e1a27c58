"""What a node becomes in this boot: a pure function of the seed and of what root remembers.

The rules are those of device.md, "The seed's life": node.yaml stays the truth, but a node that ran once
keeps running on its last good file; what cannot change any more is refused with the reason; only a medium
that was never seeded becomes a cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from k3img.device import seed as seeds
from k3img.device.outcome import Go
from k3img.errors import ProfileError
from k3img.node.medium import BOOTSTRAP_DONE, DATASTORE_ENDPOINT, FACTORY_RESET, NODE_FILE, TLS, TOKEN
from k3img.node.model import EMPTY, DatastoreKind, NodeConfig, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.device.seed import Seed

RESET_HINT = f"To start over, put an empty file named {FACTORY_RESET} on the K3IMG partition and restart."
CA_FILES = tuple(
    f"{TLS}/{name}.{kind}"
    for name in ("server-ca", "client-ca", "request-header-ca")
    for kind in ("crt", "key")
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a decision depends on.

    `last` is the node.yaml that root applied last. `kept` are the secrets on root. `standalone` says that
    root is a cluster of its own already; `readable` that the partition could be read; `mark` that the
    medium was seeded once; `resets` that etcd's other members will be forgotten in this boot.
    """

    seed: Seed
    last: bytes | None = None
    kept: Mapping[str, bytes] = field(default=EMPTY)
    datastore: bool = False
    joined: bool = False
    standalone: bool = False
    bootstrapped: bool = False
    readable: bool = True
    unreadable: str = ""
    mark: bool = False
    twins: tuple[str, ...] = ()
    resets: bool = False
    unseeded: str = "standalone"

    @property
    def first(self) -> bool:
        """This root never ran anything."""
        return self.last is None and not self.standalone


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to become. `config` is None on an unseeded node; `accepted` says that the seed's secrets may move.

    `what`, `todo`, `problems` and `notes` are as in `Outcome`.
    """

    go: Go
    config: NodeConfig | None = None
    accepted: bool = False
    what: str = ""
    todo: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decide(facts: Facts) -> Decision:
    """What this node becomes."""
    notes: list[str] = []
    if facts.twins:
        disks = " and ".join(facts.twins)
        if facts.first:
            return Decision(
                go=Go.STOP,
                what=f"{disks} carry the same image (their ESPs have one PARTUUID)",
                todo="Take one of them out, or write it anew with `k3img flash`, which gives each its own.",
            )
        notes.append(f"{disks} carry the same image; this node runs from the one that holds its root")
    config, problems = _read(facts, notes)
    if problems and facts.first:
        return Decision(
            go=Go.STOP,
            what=f"{facts.seed.file} has {len(problems)} problem{'s' if len(problems) > 1 else ''}",
            todo=f"Correct {facts.seed.file} on the K3IMG partition and restart.",
            problems=problems,
        )
    if problems:
        notes.append(f"{facts.seed.file} is not used: it has problems; the last good one is")
    decision = _unseeded(facts) if config is None else _seeded(facts, config)
    if facts.seed.node is not None and not problems and facts.standalone:
        notes.append(
            f"{facts.seed.file} is not used: this node is a cluster of its own already. {RESET_HINT}"
        )
    return replace(
        decision,
        accepted=decision.config is not None and not problems and facts.seed.node is not None,
        problems=decision.problems or problems,
        notes=(*notes, *decision.notes),
    )


def _read(facts: Facts, notes: list[str]) -> tuple[NodeConfig | None, tuple[str, ...]]:
    """The node.yaml to go by, and the problems of the seed's: then the last good one is taken."""
    problems = facts.seed.faults
    if facts.seed.node is None and facts.last is None:
        return None, problems
    from k3img.node.load import load  # noqa: PLC0415 - PyYAML is slow under emulation

    seeded = None
    if facts.seed.node is not None and not problems:
        try:
            seeded = load(facts.seed.node, facts.seed.file)
        except ProfileError as error:
            problems = tuple(map(str, error.problems))
    if facts.standalone:
        return None, problems
    try:
        last = load(facts.last, "the last good node.yaml") if facts.last is not None else None
    except ProfileError:
        last = None
    if seeded is None:
        if last is not None and not problems:
            why = f"there is no {NODE_FILE}" if facts.readable else facts.unreadable
            notes.append(f"the last good {NODE_FILE} is used: {why}")
        return last, problems
    return (_merge(facts, last, seeded, notes) if last is not None else seeded), problems


def _merge(facts: Facts, last: NodeConfig, new: NodeConfig, notes: list[str]) -> NodeConfig:
    """The new file with what cannot change any more put back as it was, each with a note."""
    if not (facts.datastore or facts.joined):
        return new

    def refuse(what: str, old: object, wanted: object, why: str, todo: str = RESET_HINT) -> None:
        notes.append(f"{what} stays {old}, not {wanted}: {why} {todo}")

    node = new.node
    if new.cluster != last.cluster:
        refuse("cluster", last.cluster, new.cluster, "this node belongs to it.")
    if node.name != last.node.name:
        refuse("name", last.node.name, node.name, "the cluster knows the node by it.")
    if node.role != last.node.role:
        refuse("role", last.node.role, node.role, "it has run as that.")
    if new.datastore != last.datastore:
        refuse("datastore", last.datastore, new.datastore, "the cluster's state lies there.")
    if facts.joined and node.taints != last.node.taints:
        todo = f"Use: kubectl taint node {last.node.name} KEY=VALUE:EFFECT"
        refuse(
            "taints",
            list(last.node.taints),
            list(node.taints),
            "a node sets its own only when it registers.",
            todo,
        )
    node = replace(node, name=last.node.name, role=last.node.role)
    if facts.joined:
        node = replace(node, taints=last.node.taints)
    etcd = last.datastore is DatastoreKind.ETCD and last.node.role is Role.SERVER
    if etcd and not facts.resets and node.network.address != last.node.network.address:
        refuse(
            "address",
            last.node.network.address,
            node.network.address,
            "the other etcd members know it by that.",
        )
        node = replace(node, network=last.node.network)
    return replace(new, node=node, cluster=last.cluster, datastore=last.datastore)


def _unseeded(facts: Facts) -> Decision:
    if facts.standalone:
        return Decision(go=Go.RUN)
    if not facts.readable:
        return Decision(go=Go.STOP, what=facts.unreadable, todo="Write the medium anew.")
    if facts.mark or not facts.seed.empty or facts.last is not None:
        return Decision(
            go=Go.STOP,
            what=f"this medium was seeded, but its {NODE_FILE} is gone",
            todo="Seed it again: `k3img seed --node NAME`.",
        )
    if facts.unseeded == "wait":
        return Decision(
            go=Go.WAIT,
            what="a seed: this image was not told which node it is",
            todo="Seed the medium with `k3img seed --node NAME` and restart.",
        )
    return Decision(go=Go.RUN)


def _seeded(facts: Facts, config: NodeConfig) -> Decision:
    secrets = {**facts.kept, **facts.seed.secrets}
    node = config.node
    joining = Decision(go=Go.JOIN, config=config, what=f"a server of cluster {config.cluster}")
    if node.role is Role.AGENT and facts.joined:
        return joining
    if facts.datastore:
        return Decision(go=Go.RUN, config=config)
    if (fault := _missing(config, secrets)) is not None:
        return Decision(
            go=Go.WAIT,
            config=config,
            what=f"its secrets: {fault}",
            todo=f"Seed it again: `k3img seed --node {node.name}`.",
        )
    if node.role is Role.AGENT:
        return joining
    if config.datastore is DatastoreKind.EXTERNAL:
        return Decision(go=Go.RUN, config=config)
    if config.bootstrap and not facts.bootstrapped:
        return Decision(go=Go.RUN, config=config)
    if config.datastore is DatastoreKind.ETCD:
        return joining
    why = f"{BOOTSTRAP_DONE} says that it was made" if facts.bootstrapped else "bootstrap is not true"
    return Decision(
        go=Go.WAIT,
        config=config,
        what=f"leave to make a new datastore ({why}, and this card has none)",
        todo=f"Seed it with `k3img seed --node {node.name} --new-datastore` to begin an empty cluster.",
    )


def _missing(config: NodeConfig, secrets: Mapping[str, bytes]) -> str | None:
    """What a node that must join, or make a datastore, lacks; in words."""
    if config.node.role is Role.AGENT:
        lacks_hash = "node.yaml names no ca-hash" if config.ca_hash is None else None
        return lacks_hash if secrets.get(TOKEN, b"").strip() else f"secrets/{TOKEN} is missing"
    needed = [TOKEN, *CA_FILES]
    if config.datastore is DatastoreKind.ETCD:
        needed += [f"{TLS}/etcd/{name}-ca.{kind}" for name in ("peer", "server") for kind in ("crt", "key")]
    if config.datastore is DatastoreKind.EXTERNAL:
        needed.append(DATASTORE_ENDPOINT)
    lacking = [name for name in needed if not secrets.get(name, b"").strip()]
    if lacking:
        return f"secrets/{lacking[0]} is missing" + (
            f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        )
    if config.ca_hash is not None and seeds.ca_hash(secrets) != config.ca_hash:
        return f"secrets/{TLS}/server-ca.crt is another cluster's than ca-hash names"
    return None
