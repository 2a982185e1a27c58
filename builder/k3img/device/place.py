"""Where things are on a node. Everything is below `root`, so that tests run on a scratch folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """A node's folders; `root` is `/` on a node."""

    root: Path = Path("/")

    @property
    def image(self) -> Path:
        """What the build says about this image."""
        return self.root / "usr/lib/k3img/image.json"

    @property
    def share(self) -> Path:
        """Static files of the image: k3s' configuration per role, the kubelet's."""
        return self.root / "usr/share/k3img"

    @property
    def state(self) -> Path:
        """What k3img remembers, on the root partition."""
        return self.root / "var/lib/k3img"

    @property
    def seed(self) -> Path:
        """The secrets of the seed, on the root partition."""
        return self.state / "seed"

    @property
    def next_token(self) -> Path:
        """While k3s changes the token in its datastore: the next one. After a power cut that may be it."""
        return self.state / "token-next"

    @property
    def run(self) -> Path:
        """What the services tell each other, gone at the next boot."""
        return self.root / "run/k3img"

    @property
    def rancher(self) -> Path:
        """k3s' configuration."""
        return self.root / "etc/rancher"

    @property
    def k3s(self) -> Path:
        """k3s' data."""
        return self.root / "var/lib/rancher/k3s"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig that a server writes."""
        return self.rancher / "k3s/k3s.yaml"

    def api_access(self) -> Path:
        """The kubeconfig to ask the API with: an agent has its kubelet's only."""
        agents = self.k3s / "agent/kubelet.kubeconfig"
        return self.kubeconfig if self.kubeconfig.exists() or not agents.exists() else agents

    @property
    def network(self) -> Path:
        """networkd's files of this node."""
        return self.root / "etc/systemd/network"

    @property
    def sys(self) -> Path:
        """The kernel's view of the devices."""
        return self.root / "sys"

    def has_datastore(self) -> bool:
        """A cluster's state lies on this root: sqlite's file, or etcd's log."""
        db = self.k3s / "server/db"
        return (db / "state.db").exists() or (db / "etcd/member/wal").exists()

    def has_joined(self) -> bool:
        """A kubelet on this root has been given its certificate: the Node is registered."""
        return (self.k3s / "agent/client-kubelet.crt").exists()
