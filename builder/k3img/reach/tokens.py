"""Give a running cluster new join tokens, one node after the other, and see that each has them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k3img.cluster import rotate
from k3img.cluster.api import Api, ApiError, condition, takes_in
from k3img.cluster.seed import members
from k3img.errors import UsageError, VerifyError
from k3img.node.model import Role
from k3img.node.names import PORT, TOKENS, server_name, untaken

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from k3img.cluster.rotate import Rotation
    from k3img.cluster.store import Kept
    from k3img.node.model import Node
    from k3img.profile.model import Cluster
    from k3img.reach.find import Place
    from k3img.reach.wait import Look

PAUSE = 3.0


@dataclass(kw_only=True)
class Change:
    """One change of a cluster's tokens. `look` finds the nodes; `timeout` is for each of them, in seconds."""

    cluster: Cluster
    kept: Kept
    look: Callable[[], Look]
    tell: Callable[[str], None]
    timeout: float
    _place: Place | None = field(default=None, init=False)

    def run(self, without: Collection[str], *, now: str) -> None:
        """Change the tokens of all nodes but those `without`, who are left out for good.

        Raises `UsageError` before anything has changed, `VerifyError` when a node does not take them.
        """
        wanted = [node for node in members(self.cluster) if node.name not in without]
        self._all_ready({node.name for node in wanted})
        servers = [node for node in wanted if node.role is Role.SERVER]
        if not servers:
            raise UsageError("a server is needed, which changes the token in the datastore")
        rotation = rotate.begin(self.kept, servers[0].name)
        if rotation.first in without:
            raise UsageError(f"{rotation.first} has begun to change the token: it cannot be left out now")
        for node in sorted(wanted, key=lambda node: (node.name != rotation.first, node.role is Role.AGENT)):
            self._give(node, rotation)
        rotate.finish(self.kept, rotation, now=now)

    def _all_ready(self, wanted: Collection[str]) -> None:
        seen = self.look()
        self._place = seen.api
        absent = [node.name for node in seen.nodes if node.name in wanted and not node.ready]
        if seen.api is None or absent:
            named = ", ".join(absent) or "all servers"
            raise UsageError(
                f"not Ready: {named}. Whoever does not take the new tokens cannot come back by itself",
                hint="Power them on, or leave them out by --without NAME and write them anew afterwards.",
            )

    def _give(self, node: Node, rotation: Rotation) -> None:
        """Offer a node its tokens, and wait until it runs with them."""
        offer = rotation.offer(self.kept.secrets, node)
        end = time.monotonic() + self.timeout
        told = ""
        while (state := self._state(node, offer, rotation)) != "":
            if state != told:
                self.tell(f"{node.name}: {state}")
                told = state
            if time.monotonic() > end:
                raise VerifyError(
                    f"{node.name} has not got so far after {self.timeout:.0f} s: {state}",
                    hint="Look at its console; then run this again: it goes on where it ended.",
                )
            time.sleep(PAUSE)
        self.tell(f"{node.name} has the new tokens")

    def _state(self, node: Node, offer: str, rotation: Rotation) -> str:
        """What a node has still to do, '' when it is done."""
        found = self._ask("GET", node.name)
        if found is None:
            return "waiting for an API server"
        notes = found["metadata"].get("annotations") or {}
        if notes.get(TOKENS) != offer:
            self._ask("PATCH", node.name, {"metadata": {"annotations": {TOKENS: offer}}})
            return "is offered the new tokens"
        if untaken(notes):
            return "is to take the new tokens, which it looks for once a minute"
        if node.role is Role.SERVER and not self._takes_in(found, rotation):
            return "restarts k3s with the new tokens"
        return "" if condition(found, "Ready") == "True" else "is to be Ready again"

    def _takes_in(self, found: Any, rotation: Rotation) -> bool:
        addresses = {item["type"]: item["address"] for item in found["status"].get("addresses") or ()}
        secrets = self.kept.secrets
        return takes_in(
            addresses.get("InternalIP", ""),
            PORT,
            name=server_name(self.cluster.name),
            ca=secrets.authorities["server-ca"].certificate,
            token=rotation.of(secrets).agent_token,
        )

    def _ask(self, method: str, name: str, body: dict[str, Any] | None = None) -> Any:
        """A Node, asked for or changed; None when no server answers. Servers that restart are left."""
        place = self._place or self.look().api
        if place is None:
            return None
        text = self.kept.kubeconfig.read_text(encoding="utf-8")
        api = Api(text, place.port, address=place.address, timeout=10)
        try:
            answer = api.request(method, f"/api/v1/nodes/{name}", body)
            self._place = place if answer.ok else None
            return answer.json() if answer.ok else None
        except ApiError:
            self._place = None
            return None
        finally:
            api.close()
