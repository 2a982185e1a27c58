"""Clusters in the lab: each node a machine with a medium that was flashed for it, all on one network.

The secrets are made for the run and go with it. Nothing is injected into a node's configuration: what a node
knows, it knows from its K3IMG partition, as on a shop floor.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from k3img import scratch
from k3img.cluster import give, kubeconfig, model, seed, store
from k3img.cluster.api import Api
from k3img.cluster.store import Given
from k3img.flash import device
from k3img.flash import run as flashing
from k3img.node import names
from k3img.node.model import DatastoreKind, Node, Role
from k3img.profile.model import Cluster, Datastore
from k3img.reach import find
from k3img.reach import wait as reach
from k3img.runtime.config import slow_storage
from k3img.verify import boot as boots
from k3img.verify import timeline
from k3img.verify.card import Card
from k3img.verify.life import Life, ready_in
from k3img.verify.timeline import Boot, Mark
from k3img.verify.views import Views
from k3img.vm import spec
from k3img.vm.lab import ROUTER, Lab
from k3img.vm.machine import BOOT_SECONDS
from k3img.vm.spec import Accel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import ExitStack
    from pathlib import Path

    from k3img.cluster.give import Gift
    from k3img.image.released import ReleasedImage
    from k3img.reach.wait import Look
    from k3img.tools.toolbox import Toolbox
    from k3img.vm.lab import Lease
    from k3img.vm.machine import Machine

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
    label: str
    lease: Lease
    medium: Path
    card: Card
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
        """The last line that the node told programs on its console since its power was last switched on."""
        said = [line.text for line in self.machine.console_lines() if line.text.startswith("k3img: ")]
        return said[-1] if said else ""


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
        self.folder = stack.enter_context(scratch.folder())
        self.network = Lab(stack, self.folder)
        self._stack, self._image, self._toolbox = stack, image, toolbox
        self._accel, self._images, self._keep, self._opened = accel, images, keep, opened
        self.secrets: dict[str, str] = {}

    @property
    def host(self) -> str:
        """The address of this host, on the network."""
        return ROUTER

    def cluster(
        self,
        name: str,
        *nodes: Node,
        datastore: DatastoreKind = DatastoreKind.SQLITE,
        label: str = "",
        rtc: str | None = None,
        endpoint: str | None = None,
    ) -> LabCluster:
        """A cluster of nodes, with secrets of its own; nothing is written or powered on yet.

        `label` tells clusters of one name apart, `rtc` is what the machines' clocks begin with, `endpoint` an
        external datastore's URL.
        """
        made = Cluster(name=name, datastore=Datastore(kind=datastore), nodes=nodes)
        return self.open(made, label=label, rtc=rtc, endpoint=endpoint)

    def open(
        self, cluster: Cluster, *, label: str = "", rtc: str | None = None, endpoint: str | None = None
    ) -> LabCluster:
        """The same for a cluster as a profile describes it."""
        if self._accel is Accel.TCG:
            # Emulated machines stall as slow disks do.
            options = slow_storage(cluster.datastore.kind)
            nodes = tuple(
                replace(node, options={**options, **node.options}) if node.role is Role.SERVER else node
                for node in cluster.nodes
            )
            cluster = replace(cluster, nodes=nodes)
        made = LabCluster(self, cluster, label or cluster.name, rtc, endpoint)
        self.secrets |= made.secrets()
        return made

    def flash(self, medium: Path, content: Mapping[str, bytes]) -> None:
        """Write the image and a seed to a new, empty medium, with the code of `k3img flash`."""
        medium.unlink(missing_ok=True)
        with medium.open("wb") as file:
            file.truncate(boots.DISK)
        flashing.flash(self._image, device.find(medium), content=content, argv=self._toolbox.argv)

    def member(self, label: str, node: Node, *, rtc: str | None = None) -> Member:
        """A machine for a node, off, on a medium that is not written yet."""
        net = node.network
        lease = self.network.join(label, mac=net.mac or "", address=net.address.partition("/")[0])
        if net.address != "dhcp":
            own = ipaddress.ip_interface(net.address)
            router = net.gateway or str(next(own.network.hosts()))
            self.network.answer(f"{router}/{own.network.prefixlen}")
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
                    rtc=rtc,
                ),
                medium=medium,
                images=self._images,
                folder=self._keep,
                label=label,
            )
        )
        life = Life(machine=machine, image=self._image, has_test_images=self._images is not None, seeded=True)
        self._opened(life)
        card = Card(medium, self._toolbox.argv)
        return Member(node=node, label=label, lease=lease, medium=medium, card=card, life=life)


class LabCluster(Views):
    """A cluster under test."""

    def __init__(self, bed: Bed, cluster: Cluster, label: str, rtc: str | None, endpoint: str | None) -> None:
        now = dt.datetime.now(dt.UTC)
        self.bed, self.cluster, self._label, self._endpoint = bed, cluster, label, endpoint
        self._rtc = rtc
        self.kept = store.create(bed.folder / "secrets" / label / cluster.name, cluster.name, now=now)
        self.admin = model.admin(self.kept.secrets, model.lifetime(now))
        self.members: dict[str, Member] = {}
        for node in cluster.nodes:
            self._member(node.name, node)
        self._drawn: set[str | None] = set()

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def twin(self, name: str) -> Member:
        """Another machine, off, for the node of that name, on a medium that is not written yet."""
        return self._member(f"{name}b", self.members[name].node)

    def add(self, name: str) -> Member:
        """One more agent, as if the profile had it now: its machine is off, its medium not written yet."""
        self.cluster = replace(self.cluster, nodes=(*self.cluster.nodes, agent(name)))
        self.bed.secrets |= self.secrets()
        return self._member(name, agent(name))

    def _member(self, name: str, node: Node) -> Member:
        made = self.members[name] = self.bed.member(f"{self._label}-{name}", node, rtc=self._rtc)
        self.stretch = made.machine.stretch * crowding(len(self.members))
        return made

    # Media

    def give(self, node: Node, *, new_datastore: bool = False) -> tuple[Gift, dict[str, bytes]]:
        """What `k3img flash` says of giving a node its seed now, and the seed; it is in the ledger then."""
        gift = give.gift(self.cluster, node, self.kept, new_datastore=new_datastore)
        now = dt.datetime.now(dt.UTC)
        content = seed.files(
            self.cluster,
            node,
            self.kept.secrets,
            bootstrap=gift.bootstrap,
            issued=int(now.timestamp()),
            endpoint=self._endpoint,
        )
        when = store.stamp(now)
        given = Given(node=node.name, seed=when, when=when, medium="lab", bootstrap=gift.bootstrap)
        self.kept.note(given)
        return gift, content

    def flash(self, *nodes: str, change: Change | None = None, new_datastore: bool = False) -> list[Gift]:
        """Write the media of nodes (of all, when none is named) anew. Their machines must be off."""
        gifts = []
        for name in nodes or self.members:
            member = self.members[name]
            gift, content = self.give(member.node, new_datastore=new_datastore)
            self.bed.flash(member.medium, change(content) if change else content)
            gifts.append(gift)
        return gifts

    def secrets(self) -> dict[str, str]:
        """Each string that nobody may see, by what it is."""
        values = self.kept.secrets.values(node.name for node in self.cluster.nodes)
        if self._endpoint and (password := urlsplit(self._endpoint).password):
            values["the datastore's password"] = password
        return {f"{name} ({self._label})": value for name, value in values.items()}

    # Power

    def power_on(self, *nodes: str) -> None:
        """Switch machines on and wait until their guests answer."""
        self.switch_on(*nodes)
        self.wait_for_boot(*nodes)

    def switch_on(self, *nodes: str) -> None:
        """Switch machines on, without waiting."""
        for name in nodes:
            self.members[name].machine.start()

    def wait_for_boot(self, *nodes: str) -> None:
        """Wait until the guests of machines that were switched on answer."""
        for name in nodes:
            self.members[name].machine.wait_for_boot(timeout=BOOT_SECONDS * crowding(len(nodes)))

    def power_off(self, *nodes: str) -> None:
        """Cut machines' power."""
        for name in nodes:
            self.members[name].machine.crash()

    def move(self, name: str, address: str) -> None:
        """Give a node another address: it comes with the next renewal of its lease."""
        member = self.members[name]
        member.lease = self.bed.network.move(member.label, address)

    # What is seen

    def api(self, name: str, *, timeout: float = 30) -> Api:
        """A server's API as a laptop on the network sees it, by the kubeconfig that the builder made."""
        member = self.members[name]
        ca = self.kept.secrets.authorities["server-ca"].certificate
        text = kubeconfig.text(self.cluster.name, ca, self.admin, address=member.lease.address)
        return Api(text, names.PORT, address=member.lease.address, timeout=timeout)

    def look(self) -> Look:
        """What `k3img nodes` sees from this network."""
        ca = self.kept.secrets.authorities["server-ca"].certificate
        text = kubeconfig.text(self.cluster.name, ca, self.admin, address="k3s.invalid")
        return reach.look(self.cluster, text, find.by_mdns(find.host_names(self.cluster, self.kept)))

    def ready(self, wanted: Iterable[str], *, seen_by: str) -> bool:
        """Whether nodes are Ready in the boots that run now: a datastore remembers older ones."""
        listed = self.listed(seen_by)
        members = [self.members[name] for name in wanted]
        return all(ready_in(listed.get(one.node.name, {}), one.machine.channel.boot) for one in members)

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
        """Keep a machine's boot for the report's timeline, unless it is there already."""
        if (boot := member.machine.channel.boot) in self._drawn:
            return
        self._drawn.add(boot)
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
