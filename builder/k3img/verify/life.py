"""One machine's life while it is verified, and what one check leaves for the next.

Checks share a machine because booting one takes minutes where KVM is missing. What a later check needs
(the API, the identity before the cut, the acknowledged writes) is kept here and nowhere else.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k3img.cluster.api import Api, ApiError, condition
from k3img.errors import K3imgError
from k3img.verify import timeline
from k3img.verify.timeline import Boot, Mark
from k3img.vm.faults import MachineError
from k3img.vm.spec import API_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.image.released import ReleasedImage
    from k3img.verify.identity import Identity
    from k3img.vm.machine import Machine

KUBECONFIG = "/etc/rancher/k3s/k3s.yaml"

# With KVM; stretched without. A first boot makes certificates and a datastore.
API_SECONDS = 120
READY_SECONDS = 90


@dataclass(repr=False)
class Life:
    """A machine and what is known of it. `seeded`: it got a seed, so it is a node of a named cluster."""

    machine: Machine
    image: ReleasedImage
    has_test_images: bool = False
    seeded: bool = False
    boots: list[Boot] = field(default_factory=list)
    numbers: dict[str, str] = field(default_factory=dict)
    identity: Identity | None = None
    acknowledged: dict[str, str] = field(default_factory=dict)
    kubeconfig: str = ""
    _api: Api | None = None

    @property
    def api(self) -> Api:
        """The cluster's API from outside. Raises `MachineError` before `become_ready` found it."""
        if self._api is None:
            raise MachineError("the API was never reached")
        return self._api

    @property
    def ready(self) -> bool:
        """Whether the node became Ready in the present boot."""
        return self._api is not None

    @property
    def node(self) -> dict[str, Any]:
        """The one Node of the cluster."""
        items = self.api.get("/api/v1/nodes")["items"]
        if len(items) != 1:
            raise ApiError(f"the cluster has {len(items)} nodes, not one")
        found: dict[str, Any] = items[0]
        return found

    def power_on(self) -> None:
        """Switch the machine on and wait until its guest answers."""
        self.forget_api()
        self.machine.start()
        self.machine.wait_for_boot()

    def restart(self) -> float:
        """Restart the guest in order; returns when it was reset (`machine.now()`)."""
        self.forget_api()
        self.machine.reboot()
        resets = [event for event in self.machine.qmp.events() if event.name == "RESET"]
        if not resets:
            raise MachineError("the guest restarted, but QEMU reported no reset")
        return self.machine.now() - (time.time() - resets[-1].seconds)

    def become_ready(self, name: str, *, since: float) -> Boot:
        """Wait for the API and for the node to be Ready; remember this boot's times under `name`.

        `since` is when the boot began (`machine.now()`). Raises `WaitError` with k3s' journal.
        """
        marks: list[Mark] = []
        machine = self.machine

        def reached(what: str) -> None:
            marks.append(Mark(name=what, at=machine.now() - since))

        def why() -> str:
            return machine.journal("k3s.service")

        try:
            self.kubeconfig = machine.wait_until_succeeds(
                f"cat {KUBECONFIG}", timeout=API_SECONDS, subject="the kubeconfig"
            )
            api = Api(self.kubeconfig, machine.forwarded(API_PORT))
            machine.wait_until("the API", api.ready, timeout=API_SECONDS, every=0.5, evidence=why)
            reached("API ready")
            machine.wait_until(
                "the node to be Ready",
                lambda: node_is_ready(api, machine.channel.boot),
                timeout=READY_SECONDS,
                every=0.5,
                evidence=why,
            )
            reached("node Ready")
            self._api = api
        finally:
            spans: tuple[timeline.Span, ...] = ()
            with suppress(K3imgError):  # the first error matters, not that there are no times for it
                spans = timeline.measure(machine, since=since)
            boot = Boot(name=name, spans=spans, marks=tuple(marks))
            self.boots.append(boot)
        return boot

    def mark(self, name: str, *, since: float) -> float:
        """Add a moment to the present boot's times; returns its seconds."""
        boot = self.boots[-1]
        at = self.machine.now() - since
        self.boots[-1] = Boot(name=boot.name, spans=boot.spans, marks=(*boot.marks, Mark(name=name, at=at)))
        return at

    def forget_api(self) -> None:
        """The machine goes down: what was connected to it is no more."""
        if self._api is not None:
            self._api.close()
        self._api = None


def node_is_ready(api: Api, boot: str | None) -> bool:
    """Whether the cluster has a node, and all it has are Ready in this boot.

    A datastore remembers that its node was Ready before the power went; only a kubelet that runs now
    writes this boot's id beside it.
    """
    try:
        nodes = api.get("/api/v1/nodes")["items"]
    except ApiError:
        return False
    return bool(nodes) and all(ready_in(node, boot) for node in nodes)


def ready_in(node: Mapping[str, Any], boot: str | None) -> bool:
    """Whether a Node is Ready, and says so of this boot."""
    ready = condition(node, "Ready") == "True"
    return ready and node["status"].get("nodeInfo", {}).get("bootID") == boot


def internal_ip(node: Mapping[str, Any]) -> str:
    """A Node's address in its network; empty when it has none."""
    found = node.get("status", {}).get("addresses", [])
    return next((item["address"] for item in found if item["type"] == "InternalIP"), "")
