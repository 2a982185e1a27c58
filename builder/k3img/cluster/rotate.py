"""New join tokens for a cluster that runs: every node takes them before anybody gives out seeds with them.

What is under way is on the disk before the first node hears of it, so that it can be gone on with. The old
passwords stay: snapshots of the datastore of before open with them alone.
"""

from __future__ import annotations

import json
import secrets as random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import yaml

from k3img.cluster import store
from k3img.errors import UsageError
from k3img.node import wrapped
from k3img.node.medium import AGENT_TOKEN, TOKEN
from k3img.node.model import Role

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.cluster.model import Secrets
    from k3img.cluster.store import Kept
    from k3img.node.model import Node

OLD = "old-passwords.yaml"


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """New passwords of the join tokens, and the server that changes the datastore's.

    `nonce` is hex. It serves for all nodes, whose passwords differ; `first` stays, so that no node is ever
    offered two contents.
    """

    server: str = field(repr=False)
    agent: str = field(repr=False)
    nonce: str
    first: str

    def of(self, secrets: Secrets) -> Secrets:
        """The cluster's secrets as they are afterwards."""
        return replace(secrets, server=self.server, agent=self.agent)

    def offer(self, secrets: Secrets, node: Node) -> str:
        """What a node finds on its Node: nobody else can read it."""
        after = self.of(secrets)
        content: dict[str, object] = {TOKEN: after.agent_token}
        if node.role is Role.SERVER:
            content = {TOKEN: after.server_token, AGENT_TOKEN: after.agent_token}
        if node.name == self.first:
            content["rotate"] = True
        password = secrets.node_password(node.name)
        return wrapped.seal(password, bytes.fromhex(self.nonce), json.dumps(content).encode())


def begin(kept: Kept, first: str) -> Rotation:
    """A new rotation, or the one that is under way; on disk when this returns."""
    path = kept.folder / store.ROTATION
    if path.exists():
        return _read(path)
    made = Rotation(
        server=random.token_hex(16), agent=random.token_hex(16), nonce=random.token_hex(16), first=first
    )
    store.write(path, yaml.safe_dump(vars(made)).encode())
    return made


def _read(path: Path) -> Rotation:
    try:
        return Rotation(**yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UsageError(
            f"{path} is not complete: {error}",
            hint="It has the tokens that some nodes have taken: bring it back from your backup.",
        ) from error


def finish(kept: Kept, rotation: Rotation, *, now: str) -> None:
    """Every node has the new tokens: from now on seeds have them. Can be repeated after an interruption."""
    old = kept.folder / OLD
    rows = yaml.safe_load(old.read_text(encoding="utf-8")) if old.exists() else []
    known = [row["server"] for row in rows]
    if kept.secrets.server not in (rotation.server, *known):
        rows.append({"until": now, "server": kept.secrets.server, "agent": kept.secrets.agent})
        store.write(old, yaml.safe_dump(rows, sort_keys=False).encode())
    # The agents' first: as long as the servers' is the old one, a second call knows that it is not done.
    store.write(kept.folder / store.AGENT, f"{rotation.agent}\n".encode())
    store.write(kept.folder / store.SERVER, f"{rotation.server}\n".encode())
    kept.secrets = rotation.of(kept.secrets)
    (kept.folder / store.ROTATION).unlink()
