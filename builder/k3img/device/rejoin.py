"""A server whose disk is new meets its own etcd member, which the cluster still counts (facts: k3s, 9).

The seed of a server holds an administrator's certificate. By it the old member is taken out the way k3s
itself does: an annotation on the Node. Never while the old machine still runs.
"""

from __future__ import annotations

import json
import socket
import ssl
from typing import TYPE_CHECKING, Any

from k3img.device import trust
from k3img.device.discover import Report
from k3img.device.kube import MERGE, KubeError, request, trusting
from k3img.device.probe import node_state
from k3img.node.medium import ADMIN
from k3img.node.names import PORT

if TYPE_CHECKING:
    from k3img.device.discover import Search
    from k3img.device.place import Place
    from k3img.device.system import System

ANNOTATION = "etcd.k3s.cattle.io/"
LIMIT, PAUSE = 20, 3.0
"""Looks at the Node until its member is out, and seconds between them."""


class Api:
    """The cluster's API, as the administrator whose certificate the seed holds."""

    def __init__(self, place: Place, search: Search, address: str) -> None:
        self._name, self._address = search.name, address
        self._context = trusting(trust.pinned(search, address))
        self._context.load_cert_chain(place.seed / f"{ADMIN}.crt", place.seed / f"{ADMIN}.key")

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer. Raises `KubeError`."""
        data = b"" if body is None else json.dumps(body).encode()
        headers = () if body is None else (f"Content-Type: {MERGE}",)
        try:
            with (
                socket.create_connection((self._address, PORT), timeout=10) as plain,
                self._context.wrap_socket(plain, server_hostname=self._name) as link,
            ):
                status, answer = request(link, self._name, method, path, data, headers=headers)
        except OSError as error:
            raise KubeError(str(error)) from error
        try:
            return status, json.loads(answer)
        except ValueError as error:
            # A server whose API does not run yet answers in plain words, or with none.
            words = " ".join(answer.decode(errors="replace").split())
            raise KubeError(f"not ready, status {status}{': ' if words else ''}{words}") from error


def prepare(place: Place, system: System, search: Search, address: str) -> Report | None:
    """Make room for this node among the etcd members; None when it may join, else what it waits for."""
    try:
        return _prepare(system, search.node, Api(place, search, address))
    except (KubeError, OSError, ssl.SSLError, LookupError) as error:
        return Report(
            what=f"the cluster's API at {address}: {str(error)[:120]}",
            todo="If most of the servers are gone, use a file cluster-reset on one that is left.",
        )


def _prepare(system: System, name: str, api: Api) -> Report | None:
    path = f"/api/v1/nodes/{name}"
    status, node = api.ask("GET", path)
    if status == 404:
        return None
    if status != 200:
        raise KubeError(f"{path}: status {status}")
    if node_state(node).ready:
        return Report(
            what=f"the other machine that runs as {name} to be switched off",
            todo=f"Two machines were seeded as {name}. Switch one off, or seed it as another node.",
        )
    member = _note(node, "node-name")
    if member and _note(node, "removed-node-name") != member:
        system.log(f"the etcd member {member} of the disk that was replaced is taken out")
        _expect(api.ask("PATCH", path, {"metadata": {"annotations": {f"{ANNOTATION}remove": "true"}}}), path)
        for _ in range(LIMIT):
            system.sleep(PAUSE)
            if _note(api.ask("GET", path)[1], "removed-node-name") == member:
                break
        else:
            todo = "The other servers must have a quorum. If they are gone for good, use cluster-reset."
            return Report(what=f"the other servers to take the old etcd member {member} out", todo=todo)
    _expect(api.ask("DELETE", path), path)
    return None


def _expect(answer: tuple[int, Any], path: str) -> None:
    if answer[0] not in {200, 404}:
        raise KubeError(f"{path}: status {answer[0]}")


def _note(node: Any, key: str) -> str:
    try:
        return str((node["metadata"].get("annotations") or {}).get(f"{ANNOTATION}{key}") or "")
    except (KeyError, TypeError, AttributeError):
        return ""
