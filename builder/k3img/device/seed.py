"""What a node was told: read from a virtual machine's credential, else from the seed partition."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from k3img.device import files
from k3img.device.seedpart import look_for
from k3img.node.medium import CREDENTIAL, NODE_FILE, SECRETS, TLS
from k3img.node.model import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k3img.device.place import Place

MAX_SECRET = 64 << 10
MAX_SECRETS = 64
MAX_CREDENTIAL = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One source's content: node.yaml as it was found under `file`, and secrets by path below `secrets/`.

    `source` is how a person is told where it came from. `folder` is the partition's, which secrets are
    removed from once they are safe; None for a credential. `wiped` are secrets whose removal a power cut
    interrupted: they are safe already, and what is left of them must not be taken for new ones.
    """

    source: str = ""
    node: bytes | None = None
    file: str = NODE_FILE
    secrets: Mapping[str, bytes] = field(default=EMPTY)
    folder: Path | None = None
    faults: tuple[str, ...] = ()
    wiped: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Nobody put anything here."""
        return self.node is None and not self.secrets and not self.faults


def from_credential(directory: str | None = None) -> Seed | None:
    """The seed in the unit's credential, or None when there is none."""
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
    secrets = {
        name.removeprefix(f"{SECRETS}/"): body
        for name, body in found.items()
        if name.startswith(f"{SECRETS}/")
    }
    return Seed(source=source, node=found.get(NODE_FILE), secrets=secrets)


def _untar(data: bytes) -> Iterable[tuple[str, bytes]]:
    import tarfile  # noqa: PLC0415 - slow under emulation, and only virtual machines need it

    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for count, item in enumerate(archive):
                path = PurePosixPath(item.name)
                if not item.isfile() or path.is_absolute() or ".." in path.parts:
                    continue
                if item.size > MAX_CREDENTIAL or count > MAX_SECRETS + 2:
                    raise ValueError("it is too large")
                body = archive.extractfile(item)
                yield str(path), body.read() if body else b""
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def from_folder(folder: Path, device: str) -> Seed:
    """The seed on the mounted partition."""
    source = f"the {device} partition"
    path = look_for(folder, NODE_FILE)
    faults = []
    node = None
    if path is not None:
        node = files.read(path)
        if node is None:
            faults.append(f"{path.name} cannot be read: the partition is damaged")
    secrets: dict[str, bytes] = {}
    wiped = []
    for item in _secret_files(folder / SECRETS):
        name = str(item.relative_to(folder / SECRETS))
        body = files.read(item)
        if body is None or len(body) > MAX_SECRET:
            faults.append(f"{SECRETS}/{name} cannot be read: the partition is damaged")
        elif b"\0" in body:  # every secret is text; zeros are what `files.shred` writes
            wiped.append(name)
        else:
            secrets[name] = body
    return Seed(
        source=source,
        node=node,
        file=path.name if path else NODE_FILE,
        secrets=secrets,
        folder=folder,
        faults=tuple(faults),
        wiped=tuple(wiped),
    )


def _secret_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())[:MAX_SECRETS]
    except OSError:
        return []


def kept_secrets(place: Place) -> dict[str, bytes]:
    """The secrets on the root partition."""
    return {str(p.relative_to(place.seed)): p.read_bytes() for p in _secret_files(place.seed)}


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
    for name in (*seed.secrets, *seed.wiped):
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
