"""What a node was told: read from a virtual machine's credential, else from the seed partition."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from k3img.device import files
from k3img.device.seedpart import look_for
from k3img.node.medium import AGENTS, CREDENTIAL, NODE_FILE, SECRETS, TLS
from k3img.node.model import EMPTY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    Own = Callable[[Collection[str]], tuple[str, str]]

    from k3img.device.place import Place

MAX_SECRET = 64 << 10
MAX_SECRETS = 64
MAX_CREDENTIAL = 1 << 20
MAX_FILES = 5000


def nobody(_keys: Collection[str]) -> tuple[str, str]:
    """For who has no machine: none of the keys is its own."""
    return "", "no machine"


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One source's content: node.yaml as it was found under `file`, and secrets by path below `secrets/`.

    `source` is how a person is told where it came from. `folder` is the partition's, from which `spent` are
    removed once the secrets are safe: their files, those of other nodes, and what is left of secrets whose
    removal a power cut interrupted, which must not be taken for new ones. None for a credential.
    """

    source: str = ""
    node: bytes | None = None
    file: str = NODE_FILE
    secrets: Mapping[str, bytes] = field(default=EMPTY)
    folder: Path | None = None
    faults: tuple[str, ...] = ()
    spent: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Nobody put anything here."""
        return self.node is None and not self.secrets and not self.faults


def from_credential(directory: str | None = None, *, own: Own = nobody) -> Seed | None:
    """The seed in the unit's credential, or None when there is none; `own` as for `from_folder`."""
    where = directory if directory is not None else os.environ.get("CREDENTIALS_DIRECTORY", "")
    data = files.read(Path(where) / CREDENTIAL) if where else None
    if not data:
        return None
    source = f"the machine's credential {CREDENTIAL}"
    if data[:2] != b"\x1f\x8b" and data[257:262] != b"ustar":
        return Seed(source=source, node=data)
    try:
        found = dict(_untar(data))
    except (OSError, ValueError, EOFError) as error:
        return Seed(source=source, faults=(f"{source} is no readable tar archive: {error}",))
    shared = _shared(found)
    key, file = "", NODE_FILE
    if shared and NODE_FILE not in found:
        key, what = own(shared)
        if not key:
            return Seed(source=source, faults=(_stranger(what),))
        file = f"{AGENTS}/{key}/{NODE_FILE}"
    secrets = {
        _own_name(name.removeprefix(f"{SECRETS}/"), key): body
        for name, body in found.items()
        if name.startswith(f"{SECRETS}/") and _is_own(name.removeprefix(f"{SECRETS}/"), key)
    }
    return Seed(source=source, node=found.get(file), file=file, secrets=secrets)


def _untar(data: bytes) -> Iterable[tuple[str, bytes]]:
    import tarfile  # noqa: PLC0415 - slow under emulation, and only virtual machines need it

    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for count, item in enumerate(archive):
                path = PurePosixPath(item.name)
                if not item.isfile() or path.is_absolute() or ".." in path.parts:
                    continue
                if item.size > MAX_CREDENTIAL or count > MAX_FILES:
                    raise ValueError("it is too large")
                body = archive.extractfile(item)
                yield str(path), body.read() if body else b""
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def from_folder(folder: Path, device: str, *, own: Own = nobody) -> Seed:
    """The seed on the mounted partition. `own` says which key of a shared seed is
    this machine's ('' for none), and what this machine is."""
    source = f"the {device} partition"
    path = look_for(folder, NODE_FILE)
    faults = []
    key = ""
    if path is None and (shared := _shared(_relative(folder / AGENTS, folder))):
        key, what = own(shared)
        if not key:
            return Seed(source=source, folder=folder, faults=(_stranger(what),))
        path = folder / AGENTS / key / NODE_FILE
    node = None
    if path is not None:
        node = files.read(path)
        if node is None:
            faults.append(f"{path.name} cannot be read: the partition is damaged")
    secrets: dict[str, bytes] = {}
    there = _relative(folder / SECRETS, folder / SECRETS)
    for name in [name for name in there if _is_own(name, key)][:MAX_SECRETS]:
        body = files.read(folder / SECRETS / name)
        if body is None or len(body) > MAX_SECRET:
            faults.append(f"{SECRETS}/{name} cannot be read: the partition is damaged")
        elif b"\0" not in body:  # every secret is text; zeros are what `files.shred` writes
            secrets[_own_name(name, key)] = body
    return Seed(
        source=source,
        node=node,
        file=str(path.relative_to(folder)) if path else NODE_FILE,
        secrets=secrets,
        folder=folder,
        faults=tuple(faults),
        spent=tuple(there),
    )


def _shared(names: Iterable[str]) -> set[str]:
    """The keys of the nodes that share a seed."""
    parts = [PurePosixPath(name).parts for name in names]
    return {part[1] for part in parts if len(part) == 3 and (part[0], part[2]) == (AGENTS, NODE_FILE)}


def _stranger(what: str) -> str:
    return f"{AGENTS}/ has no node for this machine, which is {what}"


def _is_own(name: str, key: str) -> bool:
    """Whether a file below `secrets/` is this machine's, or everybody's."""
    return not name.startswith(f"{AGENTS}/") or bool(key and name.startswith(f"{AGENTS}/{key}/"))


def _own_name(name: str, key: str) -> str:
    return name.removeprefix(f"{AGENTS}/{key}/")


def _relative(folder: Path, top: Path) -> list[str]:
    """The files below a folder, by their paths from `top`."""
    try:
        return sorted(str(path.relative_to(top)) for path in folder.rglob("*") if path.is_file())
    except OSError:
        return []


def kept_secrets(place: Place) -> dict[str, bytes]:
    """The secrets on the root partition."""
    return {name: (place.seed / name).read_bytes() for name in _relative(place.seed, place.seed)}


def keep_secrets(place: Place, seed: Seed) -> None:
    """Copy the seed's secrets to the root partition, and only then wipe them where they came from.

    A power cut at any point leaves each secret whole on at least one side.
    """
    place.seed.mkdir(parents=True, exist_ok=True)
    place.seed.chmod(0o700)
    for name, body in seed.secrets.items():
        files.write(place.seed / name, body, mode=0o600)
    for name, body in seed.secrets.items():
        if files.read(place.seed / name) != body:
            raise OSError(f"{place.seed / name} does not hold what was written")
    if seed.folder is None:
        return
    for name in seed.spent:
        files.shred(seed.folder / SECRETS / name)
    top = seed.folder / SECRETS
    for below in (*sorted(top.rglob("*"), reverse=True), top):
        if below.is_dir() and not any(below.iterdir()):
            below.rmdir()


def ca_hash(secrets: Mapping[str, bytes]) -> str | None:
    """The sha256 of the cluster's server CA file among the secrets."""
    import hashlib  # noqa: PLC0415 - slow under emulation

    body = secrets.get(f"{TLS}/server-ca.crt")
    return None if body is None else hashlib.sha256(body).hexdigest()
