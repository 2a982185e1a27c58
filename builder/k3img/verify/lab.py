"""Clusters in the lab: each node a machine with a medium that was flashed for it, all on one network.

The secrets are made for the run and go with it. Nothing is injected into a node's configuration: what a node
knows, it knows from its K3IMG partition, as on a shop floor.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k3img.cluster import kubeconfig, model, seed
from k3img.cluster.api import Api, ApiError
from k3img.flash import device
from k3img.flash import run as flashing
from k3img.node import names
from k3img.node.model import DatastoreKind, Node, Role
from k3img.profile.model import Cluster, Datastore
from k3img.verify import boot as boots
from k3img.verify import timeline
from k3img.verify.life import Life, ready_in
from k3img.verify.timeline import Boot, Mark
from k3img.vm import spec
from k3img.vm.lab import Lab
from k3img.vm.machine import BOOT_SECONDS
from k3img.vm.verbs import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import ExitStack

    from k3img.image.released import ReleasedImage
    from k3img.tools.toolbox import Toolbox
    from k3img.vm.lab import Lease
    from k3img.vm.machine import Machine
    from k3img.vm.spec import Accel

    Change = Callable[[dict[str, bytes]], dict[str, bytes]]

MEMORY = {Role.SERVER: 2560, Role.AGENT: 1280}
"""MiB. An idle server with a pod was seen to take 560 to 750; an agent's was never measured."""

CPUS = 1

READY_SECONDS = 150
"""From power on of the last machine, with KVM and a processor for each."""


def server(name: str, *, initializer: bool = False) -> Node:
    """A server of a cluster under test."""
    return Node(name=name, role=Role.SERVER, initializer=initializer)


def agent(name: str) -> Node:
    """An agent of a cluster under test."""
    return Node(name=name, role=Role.AGENT)


@dataclass(repr=False)
class Member:
    """One node: its machine, its medium, its place in the network."""

    node: Node
    lease: Lease
    medium: Path
    life: Life

    @property
    def machine(self) -> Machine:
        """The machine."""
        return self.life.machine

    @property
    def unit(self) -> str:
        """k3s' unit on it."""
        return names.unit(self.node.role)

    def status(self) -> str:
        """The last line that the node told programs on its console."""
        lines = [line for line in self.machine.console().splitlines() if line.startswith("k3img: ")]
        return lines[-1] if lines else ""


class Bed:
    """The network and what its machines are made of."""

    def __init__(
        self,
        stack: ExitStack,
        image: ReleasedImage,
        toolbox: Toolbox,
        *,
        accel: Accel,
        images: Path | None,
        keep: Path | None,
        opened: Callable[[Life], None],
    ) -> None:
        # /var/tmp is on a disk where /tmp may be in memory, and its path is short enough for sockets.
        temporary = tempfile.TemporaryDirectory(prefix="k3img-lab-", dir="/var/tmp")
        self.folder = Path(stack.enter_context(temporary))
        self.network = Lab(stack, self.folder)
        self._stack, self._image, self._toolbox = stack, image, toolbox
        self._accel, self._images, self._keep, self._opened = accel, images, keep, opened

    def cluster(self, name: str, *nodes: Node, datastore: DatastoreKind = DatastoreKind.SQLITE) -> LabCluster:
        """A cluster of nodes, with secrets of its own; nothing is written or powered on yet."""
        made = Cluster(name=name, datastore=Datastore(kind=datastore), nodes=nodes)
        return LabCluster(self, made)

    def flash(self, medium: Path, content: Mapping[str, bytes]) -> None:
        """Write the image and a seed to a new, empty medium, with the code of `k3img flash`."""
        medium.unlink(missing_ok=True)
        with medium.open("wb") as file:
            file.truncate(boots.DISK)
        flashing.flash(self._image, device.find(medium), content=content, argv=self._toolbox.argv)

    def member(self, cluster: str, node: Node) -> Member:
        """A machine for a node, off, on a medium that is not written yet."""
        label = f"{cluster}-{node.name}"
        lease = self.network.join(label)
        medium = self.folder / f"{label}.raw"
        machine = self._stack.enter_context(
            boots.machine(
                self._image,
                self._toolbox,
                accel=self._accel,
                hardware=boots.Hardware(
                    network=spec.Network(mac=lease.mac, tap=lease.tap, forward=()),
                    memory=MEMORY[node.role],
                    cpus=CPUS,
                ),
                medium=medium,
                images=self._images,
                folder=self._keep,
                label=label,
            )
        )
        life = Life(machine=machine, image=self._image, has_test_images=self._images is not None, seeded=True)
        self._opened(life)
        return Member(node=node, lease=lease, medium=medium, life=life)


class LabCluster(Waits):
    """A cluster under test."""

    def __init__(self, bed: Bed, cluster: Cluster) -> None:
        now = dt.datetime.now(dt.UTC)
        self.bed, self.cluster = bed, cluster
        self.secrets = model.create(cluster.name, model.lifetime(now))
        self.admin = model.admin(self.secrets, model.lifetime(now))
        self.members = {node.name: bed.member(cluster.name, node) for node in cluster.nodes}
        machines = [member.machine for member in self.members.values()]
        self.stretch = machines[0].stretch * crowding(len(machines))
        self._bootstrapped = False

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    # Media

    def seed(self, name: str) -> dict[str, bytes]:
        """The files of a node's seed. The right to make a datastore is given once."""
        node = self.members[name].node
        first = node.initializer and not self._bootstrapped
        self._bootstrapped = self._bootstrapped or node.initializer
        return seed.files(
            self.cluster,
            node,
            self.secrets,
            bootstrap=first,
            issued=int(time.time()),
        )

    def flash(self, *nodes: str, change: Change | None = None) -> None:
        """Write the media of nodes (of all, when none is named) anew. Their machines must be off."""
        for name in nodes or self.members:
            content = self.seed(name)
            self.bed.flash(self.members[name].medium, change(content) if change else content)

    # Power

    def power_on(self, *nodes: str) -> None:
        """Switch machines on and wait until their guests answer."""
        for name in nodes:
            self.members[name].machine.start()
        for name in nodes:
            self.members[name].machine.wait_for_boot(timeout=BOOT_SECONDS * crowding(len(nodes)))

    def power_off(self, *nodes: str) -> None:
        """Cut machines' power."""
        for name in nodes:
            self.members[name].machine.crash()

    # What is seen

    def api(self, name: str, *, timeout: float = 30) -> Api:
        """A server's API as a laptop on the network sees it, by the kubeconfig that the builder made."""
        member = self.members[name]
        ca = self.secrets.authorities["server-ca"].certificate
        text = kubeconfig.text(self.cluster.name, ca, self.admin, address=member.lease.address)
        return Api(text, names.PORT, address=member.lease.address, timeout=timeout)

    def nodes(self, name: str) -> dict[str, Any]:
        """The Nodes that a server lists, by name; empty when it does not answer."""
        api = self.api(name, timeout=10)
        try:
            return {item["metadata"]["name"]: item for item in api.get("/api/v1/nodes")["items"]}
        except ApiError:
            return {}
        finally:
            api.close()

    def ready(self, wanted: Iterable[str], *, seen_by: str) -> bool:
        """Whether nodes are Ready in the boots that run now: a datastore remembers older ones."""
        listed = self.nodes(seen_by)
        return all(ready_in(listed.get(name, {}), self.members[name].machine.channel.boot) for name in wanted)

    def wait_ready(self, *nodes: str, seen_by: str, timeout: float = READY_SECONDS) -> float:
        """Wait until nodes are Ready; returns the seconds since the last of them was powered on."""
        self.wait_until(
            f"{', '.join(nodes)} to be Ready",
            lambda: self.ready(nodes, seen_by=seen_by),
            timeout=timeout,
            evidence=lambda: self.told(*nodes),
        )
        last = max(self.members[name].machine.powered_on for name in nodes)
        for name in nodes:
            self._draw(self.members[name])
        return self.now() - last

    def _draw(self, member: Member) -> None:
        """Keep a machine's boot for the report's timeline."""
        since = member.machine.powered_on
        mark = Mark(name="node Ready", at=self.now() - since)
        spans: tuple[timeline.Span, ...] = ()
        with suppress(Exception):  # a busy machine may not answer; the times are not what is checked
            spans = timeline.measure(member.machine, since=since)
        number = sum(boot.name.startswith(member.node.name) for boot in member.life.boots) + 1
        member.life.boots.append(Boot(name=f"{member.node.name}, boot {number}", spans=spans, marks=(mark,)))

    def told(self, *nodes: str) -> str:
        """What machines say of themselves: the status line and the end of k3s' journal."""
        parts = []
        for name in nodes or self.members:
            member = self.members[name]
            if not member.machine.on:
                parts.append(f"--- {name}: off")
                continue
            parts.append(f"--- {name}: {member.status()}")
            with suppress(Exception):  # evidence never fails
                units = (member.unit, "k3img-discover.service")
                parts += [member.machine.journal(unit, lines=12) for unit in units]
        return "\n".join(parts)

    # Waits

    def console(self) -> str:
        """The consoles, one after the other."""
        return "\n".join(
            f"=== {name}\n{member.machine.console()[-3000:]}" for name, member in self.members.items()
        )

    def check(self) -> None:
        """Raise `MachineError` when a machine that is on, or the DHCP server, has ended."""
        self.bed.network.check()
        for member in self.members.values():
            if member.machine.on:
                member.machine.check()


def crowding(machines: int) -> float:
    """How much longer everything takes when so many machines share the host's processors."""
    return max(1.0, machines * CPUS / (os.cpu_count() or 1))
