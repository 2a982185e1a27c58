"""`secrets/CLUSTER/`: a cluster's secrets on disk, and the ledger of what was given to whom.

The folder is 0700, its files 0600, both the caller's; anything wider is refused, not mended: by then
somebody may have read it. Everything is written whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from k3img.cluster import ca, model
from k3img.cluster.ca import Pair
from k3img.cluster.model import Secrets
from k3img.errors import UsageError
from k3img.tree import caller, give_to_caller, make_folder

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator
    from pathlib import Path

TLS = "tls"
SERVER, AGENT, NODES = "server-password", "agent-password", "nodes-key"
KUBECONFIG = "kubeconfig.yaml"
LEDGER = "ledger.yaml"
ROTATION = "rotation.yaml"
"""While new tokens are given to the nodes (`cluster/rotate.py`)."""


def stamp(when: dt.datetime) -> str:
    """A time in UTC as the ledger and the list of old passwords have it."""
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, kw_only=True)
class Given:
    """A seed that was given to a node: when (UTC), on which medium, may it make a datastore."""

    node: str
    seed: str
    when: str
    medium: str
    bootstrap: bool = False


@dataclass(kw_only=True)
class Kept:
    """A cluster's secrets in its folder, and its ledger, oldest first."""

    folder: Path
    secrets: Secrets
    ledger: list[Given] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """Where the kubeconfig lies."""
        return self.folder / KUBECONFIG

    def last(self, node: str) -> Given | None:
        """The newest seed of a node."""
        return next((given for given in reversed(self.ledger) if given.node == node), None)

    @property
    def bootstrapped(self) -> Given | None:
        """The seed that had the right to make the datastore."""
        return next((given for given in reversed(self.ledger) if given.bootstrap), None)

    def note(self, given: Given) -> None:
        """Add to the ledger, on disk as well."""
        self.ledger.append(given)
        rows = [
            {name: value for name, value in vars(item).items() if value is not False} for item in self.ledger
        ]
        write(self.folder / LEDGER, yaml.safe_dump({"seeds": rows}, sort_keys=False).encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time makes or gives away a cluster's secrets."""
    make_folder(folder.parent)
    with (folder.parent / f".{folder.name}.lock").open("a") as lock:
        give_to_caller(folder.parent / f".{folder.name}.lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create(folder: Path, cluster: str, *, now: dt.datetime) -> Kept:
    """New secrets in a folder that must not be there."""
    secrets = model.create(cluster, model.lifetime(now))
    make_folder(folder.parent)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    try:
        for name, pair in secrets.authorities.items():
            write(part / TLS / f"{name}.crt", pair.certificate)
            write(part / TLS / f"{name}.key", pair.key)
        write(part / TLS / ca.SERVICE_KEY, secrets.service_key)
        write(part / SERVER, f"{secrets.server}\n".encode())
        write(part / AGENT, f"{secrets.agent}\n".encode())
        write(part / NODES, secrets.nodes_key.hex().encode() + b"\n")
        give_to_caller(part)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Kept(folder=folder, secrets=secrets)


def load(folder: Path) -> Kept | None:
    """The secrets in a folder; None when there is no folder.

    Raises `UsageError` when others may read them, or something is missing or damaged.
    """
    if not folder.is_dir():
        return None
    _check(folder)
    try:
        secrets = Secrets(
            authorities={
                name: Pair(
                    certificate=(folder / TLS / f"{name}.crt").read_bytes(),
                    key=(folder / TLS / f"{name}.key").read_bytes(),
                )
                for name in ca.NAMES
            },
            service_key=(folder / TLS / ca.SERVICE_KEY).read_bytes(),
            server=(folder / SERVER).read_text(encoding="ascii").strip(),
            agent=(folder / AGENT).read_text(encoding="ascii").strip(),
            nodes_key=bytes.fromhex((folder / NODES).read_text(encoding="ascii")),
        )
        ledger = _ledger(folder / LEDGER)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise UsageError(
            f"the secrets in {folder} are not complete: {error}",
            hint="Bring them back from your backup: nodes of this cluster accept no others.",
        ) from error
    return Kept(folder=folder, secrets=secrets, ledger=ledger)


def _ledger(path: Path) -> list[Given]:
    if not path.exists():
        return []
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Given(**row) for row in content["seeds"]]


def _check(folder: Path) -> None:
    """Raise `UsageError` when anybody else may read or change something."""
    owner = caller()[0]
    wrong = []
    for path in (folder, *sorted(folder.rglob("*"))):
        about = path.lstat()
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            wrong.append(f"{path} has mode {mode:04o}")
        elif about.st_uid not in (owner, os.geteuid()):
            wrong.append(f"{path} belongs to user {about.st_uid}")
    if wrong:
        raise UsageError(
            f"the secrets in {folder} are open to others",
            details="\n".join(wrong),
            hint=f"If nobody has read them: chmod -R go= {folder}",
        )


def write(path: Path, data: bytes) -> None:
    """A file of mode 0600, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = path.with_name(name.rpartition("/")[2])
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        give_to_caller(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_kubeconfig(kept: Kept, text: str) -> None:
    """Keep the kubeconfig beside the secrets: it is one."""
    write(kept.kubeconfig, text.encode())
