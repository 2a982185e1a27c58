"""`k3img lab`: a profile's whole cluster, each node a machine, in a network of its own, for a person.

The machines live in a name space that nothing leaves. What is outside reaches the API through a door: a
socket in the file system, with a program on either side that hands connections on.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc, scratch
from k3img.cluster import kubeconfig
from k3img.cluster.seed import members, servers
from k3img.errors import MissingToolError, UsageError
from k3img.log import line
from k3img.node import names
from k3img.node.model import DatastoreKind
from k3img.tree import give_to_caller
from k3img.verify.lab import MEMORY
from k3img.vm.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.profile.model import Cluster
    from k3img.verify.lab import Bed, LabCluster

DOOR = "K3IMG_LAB_DOOR"
"""In the environment of the process inside: PORT:SOCKET, the port on 127.0.0.1 outside."""

EVERY = 2.0
"""Seconds between two looks at the machines."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where the API is reached from outside."""

    port: int
    socket: Path

    @classmethod
    def known(cls) -> Door:
        """The door that the process outside has made."""
        port, _, path = os.environ[DOOR].partition(":")
        return cls(port=int(port), socket=Path(path))


def check(cluster: Cluster, available: int) -> None:
    """Refuse what a lab cannot hold. `available` is the host's free memory in MiB. Raises `UsageError`."""
    if cluster.datastore.kind is DatastoreKind.EXTERNAL:
        raise UsageError("a lab has no database", hint="Try it with --set cluster.datastore=etcd.")
    special = [node.name for node in cluster.nodes if node.network.vlan or node.network.bond]
    if special:
        raise UsageError(f"a lab has no VLANs and bonds: {', '.join(special)}")
    needed = sum(MEMORY[node.role] for node in members(cluster))
    if needed > available:
        raise UsageError(
            f"{len(members(cluster))} machines need {needed} MiB of memory, {available} MiB are available",
            hint="End other programs, or name fewer nodes.",
        )


@contextmanager
def door() -> Iterator[None]:
    """Open the outer side of the door, for the process that is about to enter the name space."""
    with scratch.folder() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port, path = probe.getsockname()[1], folder / "api"
        probe.close()
        outer = Child(
            (_socat(), f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"UNIX-CONNECT:{path}"),
            log=folder / "door.log",
            cwd=folder,
            name="socat",
        )
        os.environ[DOOR] = f"{port}:{path}"
        try:
            yield
        finally:
            outer.stop()


def _socat() -> str:
    found = proc.which("socat")
    if found is None:
        raise MissingToolError("a lab needs socat", hint="apt-get install socat")
    return str(found)


def run(bed: Bed, cluster: Cluster, config: Path) -> None:
    """Flash every node's medium, switch all on, write a kubeconfig when the API answers, and stay.

    Ends by an exception only: Ctrl-C, or a machine that broke (`MachineError`).
    """
    made = bed.open(replace(cluster, nodes=members(cluster)))
    for gift in made.flash():
        for text in gift.says:
            line(f"  {text}")
    made.power_on(*made.members)
    for member in made.members.values():
        line(f"  {member.node.name:16}  {member.lease.address:15}  {member.node.role}")
    inner = Door.known()
    server = made[servers(made.cluster)[0].name]
    relay = Child(
        (_socat(), f"UNIX-LISTEN:{inner.socket},fork", f"TCP:{server.lease.address}:{names.PORT}"),
        log=bed.folder / "door.log",
        cwd=bed.folder,
        name="socat",
    )
    try:
        _stay(made, config, inner.port)
    finally:
        relay.stop()
        config.unlink(missing_ok=True)


def _stay(made: LabCluster, config: Path, port: int) -> None:
    known: dict[str, str] = {}
    while True:
        made.check()
        now = made.look()
        if now.api is not None and not config.exists():
            _write(made, config, port)
            line(f"  kubectl --kubeconfig {os.path.relpath(config)} get nodes")
        for node in now.nodes:
            if known.get(node.name) != (text := str(node)):
                line(f"  {text}")
                known[node.name] = text
        made.pause(EVERY)


def _write(made: LabCluster, config: Path, port: int) -> None:
    ca = made.kept.secrets.authorities["server-ca"].certificate
    config.touch(mode=0o600)
    text = kubeconfig.text(made.cluster.name, ca, made.admin, address="127.0.0.1", port=port)
    config.write_text(text, encoding="utf-8")
    give_to_caller(config)
