"""A node's seed partition, before it is written to a medium."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import FlashError, ProgramError, UsageError
from k3img.node.load import dump
from k3img.node.medium import NODE_FILE
from k3img.node.model import NodeConfig, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k3img.profile.model import Profile

    Argv = Callable[[str], tuple[str, ...]]


def files(profile: Profile, name: str) -> dict[str, bytes]:
    """What lies on the seed partition of a node, by path. Raises `UsageError` when there is no such node."""
    cluster = profile.cluster
    node = next((node for node in cluster.nodes if node.name == name), None)
    if node is None:
        known = ", ".join(node.name for node in cluster.nodes) or "none: the image needs no --node"
        raise UsageError(f"{profile.name} has no node {name}", hint=f"Its nodes are {known}.")
    servers = tuple(node.name for node in cluster.nodes if node.role is Role.SERVER)
    config = NodeConfig(
        node=node,
        cluster=cluster.name,
        datastore=cluster.datastore.kind,
        bootstrap=node.initializer,
        issued=int(time.time()),
        servers=servers,
        registries=dict(profile.k3s.registries),
    )
    return {NODE_FILE: dump(config).encode()}


def fat(empty: bytes, content: Mapping[str, bytes], argv: Argv) -> bytes:
    """The image's seed partition with files in it; `argv` gives the words that start mtools' programs.

    Raises `FlashError` when they do not fit.
    """
    with tempfile.TemporaryDirectory(prefix="k3img-") as folder:
        place, tree = Path(folder, "seed.fat"), Path(folder, "files")
        place.write_bytes(empty)
        place.chmod(0o600)
        for name, data in content.items():
            path = tree / PurePosixPath(name)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_bytes(data)
        try:
            proc.run([*argv("mcopy"), "-s", "-o", "-i", place, *sorted(tree.iterdir()), "::"])
        except ProgramError as error:
            raise FlashError("the node's files cannot be put on its seed", details=error.details) from error
        return place.read_bytes()
