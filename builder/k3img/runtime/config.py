"""The k3s configuration that an image brings, one file per role. Pure.

k3s strips options that it does not know from a server's configuration and warns; an agent dies on them
(k3s pkg/configfilearg, v1.36.3). So a node only ever reads the file of its own role.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k3img.node.model import DatastoreKind, Role

if TYPE_CHECKING:
    from k3img.profile.model import Profile

KUBELET_CONFIG = "/usr/share/k3img/k3s/kubelet.yaml"

SLOW_LEASES = (
    "leader-elect-lease-duration=60s",
    "leader-elect-renew-deadline=45s",
    "leader-elect-retry-period=10s",
)
"""Longer leases than Kubernetes' 15 s: an SD card that stalls for some seconds must not end the leader."""

SLOW_ETCD = ("heartbeat-interval=500", "election-timeout=5000")
"""Milliseconds; etcd's own advice for slow disks is ten heartbeats an election."""


def image_config(profile: Profile, role: Role) -> dict[str, Any]:
    """Options of a role that are the same on every node of the image; a node adds its own in a later file."""
    k3s = profile.k3s
    options: dict[str, Any] = {**k3s.agent}
    if role is Role.SERVER:
        options |= k3s.server
        if k3s.disable:
            options["disable"] = list(k3s.disable)
        options.setdefault("write-kubeconfig-mode", "0600")
        if profile.cluster.storage == "slow":
            for name, values in slow_storage(profile.cluster.datastore.kind).items():
                options[name] = [*values, *_listed(options.get(name))]
    # The profile's own kubelet arguments stay behind ours, so that they win.
    options["kubelet-arg"] = [f"config={KUBELET_CONFIG}", *_listed(options.get("kubelet-arg"))]
    return dict(sorted(options.items()))


def slow_storage(datastore: DatastoreKind) -> dict[str, tuple[str, ...]]:
    """Options of servers whose disks are slow: leases and elections have patience."""
    leases = {f"kube-{name}-arg": SLOW_LEASES for name in ("controller-manager", "scheduler")}
    return leases | ({"etcd-arg": SLOW_ETCD} if datastore is DatastoreKind.ETCD else {})


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
