"""Take new join tokens while the node runs: `k3img cluster rotate-token` offers them on the Node.

A server keeps its cluster's CAs in the datastore, encrypted with its token: one server, the one that is told
to, makes k3s change that first (facts: k3s joining; `k3s token rotate`). k3s reads its token when it starts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from k3img.device import files, outcome, probe, trust
from k3img.device.kube import Client, KubeError
from k3img.node import names, wrapped
from k3img.node.medium import AGENT_TOKEN, NODE_PASSWORD, TLS, TOKEN

if TYPE_CHECKING:
    from k3img.device.place import Place
    from k3img.device.system import System

TAKEN = "tokens-taken"
"""In `/var/lib/k3img`: the name of the offer that was taken last."""

DIFFERENT = "encrypted with different token"
"""k3s' words for a token that is not the datastore's."""

LIMIT = 60
"""Seconds for k3s to change the token in its datastore."""


def run(place: Place, system: System) -> int:
    """Take what is offered, or turn back to the token that the datastore knows. 0 when all is well."""
    result = outcome.load(place)
    if result is None:
        return 0
    unit = names.unit(result.role)
    if _swapped(place, system, unit):
        return 0
    client = Client(place)
    path = f"/api/v1/nodes/{result.node}"
    said: dict[str, str] = client.json(path)["metadata"].get("annotations") or {}
    wanted = names.untaken(said)
    if not wanted:
        return 0
    fresh = files.read_text(place.state / TAKEN) != wanted
    if fresh:
        _take(place, result.cluster, said[names.TOKENS])
    client.annotate(path, {names.TOKENS_TAKEN: wanted})
    if fresh:
        files.write(place.state / TAKEN, wanted)
        system.log(f"new tokens were taken: {unit} is restarted")
        system.run(["systemctl", "--no-block", "restart", unit])
    return 0


def _take(place: Place, cluster: str, offer: str) -> None:
    """Write the offered tokens where k3s and the next boot find them."""
    password = files.read_text(place.seed / NODE_PASSWORD) or ""
    content: dict[str, Any] = json.loads(wrapped.unseal(password, offer))
    token = str(content[TOKEN])
    old = files.read_text(place.seed / TOKEN) or ""
    if content.get("rotate") and old != token:
        files.write(place.next_token, f"{token}\n", mode=0o600)
        _rotate(place, cluster, old, token)
    _write(place, TOKEN, token)
    files.remove(place.next_token)
    if AGENT_TOKEN in content:
        _write(place, AGENT_TOKEN, str(content[AGENT_TOKEN]))


def _write(place: Place, name: str, token: str) -> None:
    files.write(place.seed / name, f"{token}\n", mode=0o600)
    files.write(place.rancher / "k3s" / name, f"{token}\n", mode=0o600)


def _rotate(place: Place, cluster: str, old: str, new: str) -> None:
    """What `k3s token rotate` does: ask the server on this machine. Raises `KubeError` when it refuses.

    One that has the new token already is content.
    """
    password = new.rpartition(":")[2]
    body = json.dumps({"newToken": password}).encode()
    status = _ask(place, cluster, old, "PUT", "/v1-k3s/token", body)
    if status in {401, 403} and _ask(place, cluster, new, "GET", "/v1-k3s/server-bootstrap") == 200:
        return
    if status != 200:
        raise KubeError(f"k3s does not change its token: status {status}")


def _ask(place: Place, cluster: str, token: str, method: str, path: str, body: bytes = b"") -> int:
    bundle = (files.read(place.seed / TLS / "server-ca.crt") or b"").decode()
    name = names.server_name(cluster)
    return trust.ask("127.0.0.1", name, bundle, token, method, path, body, timeout=LIMIT)


def _swapped(place: Place, system: System, unit: str) -> bool:
    """Use the other token when k3s says that this one is not the datastore's."""
    other = files.read_text(place.next_token)
    if not other or not _stuck(system, unit):
        return False
    present = files.read_text(place.seed / TOKEN) or ""
    files.write(place.next_token, f"{present}\n", mode=0o600)
    _write(place, TOKEN, other)
    system.log(f"the datastore has the other token: {unit} is restarted with it")
    system.run(["systemctl", "--no-block", "restart", unit])
    return True


def _stuck(system: System, unit: str) -> bool:
    """Whether k3s' last start failed because the datastore wants another token."""
    said = probe.journal(system, unit, lines=30)
    last = max((number for number, line in enumerate(said) if line.startswith("Starting ")), default=0)
    return any(DIFFERENT in line for line in said[last:])
