"""`secrets/CLUSTER.age`: a cluster's secrets encrypted by age, so that they may be committed.

By a passphrase, or for recipients (`age1...`, an ssh public key) who each open it with their own key. The
format is age's own (age-encryption.org/v1); the program `age` opens it as well.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyrage

from k3img.cluster import store
from k3img.errors import UsageError
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIX = ".age"


def beside(folder: Path) -> Path:
    """The encrypted file of a cluster's folder."""
    return folder.with_name(f"{folder.name}{SUFFIX}")


def seal(folder: Path, *, recipients: Sequence[str] = (), passphrase: str = "") -> Path:
    """Encrypt a folder of secrets for recipients, else by a passphrase; returns the file.

    Raises `UsageError` for a recipient that is none, and when the secrets cannot be used.
    """
    if store.load(folder) is None:
        raise UsageError(f"there is no {folder} to encrypt")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, ".")
    known = [_recipient(text) for text in recipients]
    data = packed.getvalue()
    sealed = pyrage.encrypt(data, known) if known else pyrage.passphrase.encrypt(data, passphrase)
    target = beside(folder)
    store.write(target, sealed)
    return target


def unseal(folder: Path, *, identity: Path | None = None, passphrase: str = "") -> None:
    """Make the folder again from its encrypted file, with an identity's file, else by the passphrase.

    Raises `UsageError` when there is no such file, a folder is there already, or it does not open.
    """
    source = beside(folder)
    if folder.exists():
        raise UsageError(f"{folder} is there already", hint="Remove it first, if it is not needed.")
    try:
        sealed = source.read_bytes()
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from error
    try:
        if identity is not None:
            data = pyrage.decrypt(sealed, _identities(identity))
        else:
            data = pyrage.passphrase.decrypt(sealed, passphrase)
    except pyrage.DecryptError as error:
        hint = (
            "Is it the right key?"
            if identity
            else "Is it the right passphrase? For recipients: --identity FILE."
        )
        raise UsageError(f"{source} does not open: {error}", hint=hint) from error
    make_folder(folder.parent)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for item in archive:
                _take(archive, item, part)
        store.load(part)
        give_to_caller(part)
        part.rename(folder)
    except (tarfile.TarError, OSError) as error:
        raise UsageError(f"{source} holds no secrets of a cluster: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _take(archive: tarfile.TarFile, item: tarfile.TarInfo, into: Path) -> None:
    """A file of the archive. By hand: Debian 12's Python has no filters yet that keep names inside."""
    name = PurePosixPath(item.name)
    content = archive.extractfile(item) if item.isreg() else None
    if name.is_absolute() or ".." in name.parts or not (content or item.isdir()):
        raise tarfile.TarError(f"{item.name} is no file of ours")
    if content is not None:
        store.write(into / name, content.read())


def _recipient(text: str) -> pyrage.x25519.Recipient | pyrage.ssh.Recipient:
    kind = pyrage.x25519.Recipient if text.startswith("age1") else pyrage.ssh.Recipient
    try:
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        raise UsageError(
            f"{text} is no recipient: {error}", hint="age1..., or a line of an ssh public key."
        ) from error


def _identities(path: Path) -> list[pyrage.x25519.Identity | pyrage.ssh.Identity]:
    """The keys in a file: an ssh private key, or lines AGE-SECRET-KEY-1... as age-keygen writes them."""
    try:
        data = path.read_bytes()
        if b"PRIVATE KEY-----" in data:
            return [pyrage.ssh.Identity.from_buffer(data)]
        lines = [line.strip() for line in data.decode().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        raise UsageError(f"{path} is no identity: {error}") from error
    if not found:
        raise UsageError(f"{path} holds no identity", hint="age-keygen writes one.")
    return found
