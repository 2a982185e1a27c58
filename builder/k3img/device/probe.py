"""What can be found out about the node's services, each as a small value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k3img.node import names
from k3img.node.model import EMPTY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.device.kube import Client
    from k3img.device.place import Place
    from k3img.device.system import System

KUBELET_HEALTH = ("127.0.0.1", 10248)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit's state, and how often systemd has restarted it by itself."""

    active: str = ""
    sub: str = ""
    restarts: int = 0
    result: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """The Node in the API: whether it is Ready, kubelet's words when it is not, its labels.

    `offered` says that new join tokens wait for it.
    """

    ready: bool
    reason: str = ""
    labels: Mapping[str, str] = field(default=EMPTY)
    version: str = ""
    offered: bool = False


def unit(system: System, name: str) -> Unit:
    """A unit's state; all empty when systemd does not answer."""
    argv = ["systemctl", "show", name, "--property=ActiveState,SubState,NRestarts,Result"]
    done = system.run(argv, timeout=30)
    pairs = dict(line.partition("=")[::2] for line in done.output.splitlines())
    restarts = pairs.get("NRestarts", "0")
    return Unit(
        active=pairs.get("ActiveState", ""),
        sub=pairs.get("SubState", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        result=pairs.get("Result", ""),
    )


def journal(system: System, unit: str, *, lines: int) -> list[str]:
    """The last lines of a unit's journal in this boot."""
    argv = ["journalctl", "--boot", "--unit", unit, f"--lines={lines}", "--output=cat", "--no-pager"]
    return system.run(argv, timeout=30).output.splitlines()


def target(system: System) -> str:
    """The last of systemd's targets on the way up that was reached; empty when none is."""
    names = ("multi-user.target", "basic.target", "sysinit.target")
    said = system.run(["systemctl", "is-active", *names], timeout=30).output.splitlines()
    return next((name for name, state in zip(names, said, strict=False) if state == "active"), "")


def failed_units(system: System) -> tuple[str, ...]:
    """The units that have failed."""
    argv = ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"]
    done = system.run(argv, timeout=30)
    return (
        tuple(line.split()[0] for line in done.output.splitlines() if line.split())
        if done.status == 0
        else ()
    )


def node(client: Client, name: str) -> NodeState | None:
    """The node's own Node; None when the API does not answer or has no such Node yet."""
    from k3img.device.kube import KubeError  # noqa: PLC0415 - TLS is slow to import

    try:
        return node_state(client.json(f"/api/v1/nodes/{name}"))
    except KubeError:
        return None


def cluster(client: Client) -> str:
    """What tells this cluster from one that a new datastore began; '' when the API does not answer.

    An agent may read services, but not the namespace kube-system.
    """
    from k3img.device.kube import KubeError  # noqa: PLC0415 - TLS is slow to import

    try:
        return str(client.json("/api/v1/namespaces/default/services/kubernetes")["metadata"]["uid"])
    except (KubeError, KeyError, TypeError):
        return ""


def node_state(raw: Any) -> NodeState:
    """What a Node object of the API says. Anything unexpected counts as not ready."""
    try:
        conditions = {item["type"]: item for item in raw["status"]["conditions"]}
        ready = conditions["Ready"]
        return NodeState(
            ready=ready["status"] == "True",
            reason="" if ready["status"] == "True" else str(ready.get("message") or ready.get("reason", "")),
            labels=dict(raw["metadata"].get("labels") or {}),
            version=str(raw["status"].get("nodeInfo", {}).get("kubeletVersion", "")),
            offered=bool(names.untaken(raw["metadata"].get("annotations") or {})),
        )
    except (KeyError, TypeError, AttributeError):
        return NodeState(ready=False, reason="its kubelet has not reported yet")


def kubelet_answers() -> bool:
    """The kubelet of this node says that it is healthy."""
    from k3img.device.kube import KubeError, plain_get  # noqa: PLC0415

    try:
        return plain_get(*KUBELET_HEALTH, "/healthz").strip() == b"ok"
    except KubeError:
        return False


def kubelet_configured(place: Place) -> bool:
    """k3s has given the kubelet all that it needs to run."""
    return place.has_joined() and (place.k3s / "agent/kubelet.kubeconfig").exists()


def sqlite_fault(place: Place) -> str | None:
    """Why the sqlite datastore cannot be read, or None (also when there is none)."""
    path = place.k3s / "server/db/state.db"
    if not path.exists():
        return None
    import sqlite3  # noqa: PLC0415 - only asked when something is wrong

    try:
        link = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            link.execute("SELECT count(*) FROM sqlite_master").fetchone()
            link.execute("SELECT max(id) FROM kine").fetchone()
        finally:
            link.close()
    except sqlite3.OperationalError:
        return None  # busy, not yet filled, or its -shm cannot be made in this unit's view: no proof
    except sqlite3.DatabaseError as error:
        return str(error)
    return None


def etcd_fault(place: Place) -> str | None:
    """Why this node's own etcd member does not serve, or None (also when there is none)."""
    if not (place.k3s / "server/db/etcd/member/wal").exists():
        return None
    import ssl  # noqa: PLC0415

    from k3img.device.kube import KubeError, plain_get  # noqa: PLC0415

    tls = place.k3s / "server/tls/etcd"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=tls / "server-ca.crt")
        context.load_cert_chain(tls / "client.crt", tls / "client.key")
        # Serializable: the member itself, whether or not the cluster has a quorum.
        plain_get("127.0.0.1", 2379, "/health?serializable=true", context=context)
    except (KubeError, OSError) as error:
        return str(error)
    return None
