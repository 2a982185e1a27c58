"""What a plan needs to know of files besides the profile: their digests. Reads, never writes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import k3img
from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from k3img.profile.model import Profile
    from k3img.tree import Tree

PACKAGE = Path(k3img.__file__).parent
CODE_OF_BUILDER = ("plan", "render", "build", "runtime")
CODE_OF_DEVICE = ("__init__.py", "errors.py", "node", "device")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Digests (sha256, hex) of everything outside the profile that a build copies or obeys.

    `source_date_epoch` is in seconds UTC. `overlays` are by name, `files` by path below the tree's
    root, `code` by path below the package. `runtime_sha256` and `lock` are None and '' without a lock.
    """

    source_date_epoch: int
    builder: str
    overlays: Mapping[str, str]
    files: Mapping[str, str]
    code: Mapping[str, str]
    lock: str = ""
    runtime_sha256: str | None = None


def gather(
    tree: Tree, profile: Profile, *, source_date_epoch: int, lock: str = "", runtime_sha256: str | None = None
) -> Inputs:
    """Read what the profile names. Raises `BuildError` for a file or overlay that cannot be read."""
    names = dict.fromkeys(("base", "initrd", "debug", "ssh", *profile.os.overlays))
    overlays = {
        name: folder_digest(tree.overlays / name) for name in names if (tree.overlays / name).is_dir()
    }
    files = {name: file_digest(tree.root / name) for name in _named(profile)}
    return Inputs(
        source_date_epoch=source_date_epoch,
        builder=_digest(file_digest(path).encode() for path in _python_files(CODE_OF_BUILDER)),
        overlays=overlays,
        files=files,
        code={str(path.relative_to(PACKAGE)): file_digest(path) for path in _python_files(CODE_OF_DEVICE)},
        lock=lock,
        runtime_sha256=runtime_sha256,
    )


def sources(tree: Tree, profile: Profile) -> tuple[Path, ...]:
    """The files and folders that an image is made of: all profiles and overlays, and what `gather` reads."""
    code = (PACKAGE / name for name in (*CODE_OF_BUILDER, *CODE_OF_DEVICE))
    return (tree.profiles, tree.overlays, *(tree.root / name for name in _named(profile)), *code)


def _named(profile: Profile) -> tuple[str, ...]:
    return (*profile.k3s.images, *profile.k3s.manifests)


def file_digest(path: Path) -> str:
    """Sha256 of a file's bytes. Raises `BuildError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BuildError(
            f"cannot read {path}: {error.strerror}", hint="Check that the file is there and its permissions."
        ) from error


def folder_digest(folder: Path) -> str:
    """Sha256 over the names, modes and contents of all that is in a folder; times and owners do not count.

    Raises `BuildError` for what cannot be read, and for what is neither file, folder nor link.
    """
    entries = [_entry(folder, path) for path in _inside(folder)]
    return _digest(sorted(entries))


def _inside(folder: Path) -> Iterator[Path]:
    """All below a folder. `rglob` would pass over folders that it may not enter."""
    try:
        for path in folder.iterdir():
            yield path
            if path.is_dir() and not path.is_symlink():
                yield from _inside(path)
    except OSError as error:
        raise BuildError(
            f"cannot read the folder {folder}: {error.strerror}", hint="Check its permissions."
        ) from error


def _entry(folder: Path, path: Path) -> bytes:
    name = str(path.relative_to(folder))
    if path.is_symlink():
        return f"{name}\0link\0{path.readlink()}\n".encode()
    mode = path.stat().st_mode & 0o7777
    if path.is_dir():
        return f"{name}\0folder\0{mode:o}\n".encode()
    if not path.is_file():
        raise BuildError(f"{path} is neither a file nor a folder nor a link; an image holds nothing else")
    return f"{name}\0{mode:o}\0{file_digest(path)}\n".encode()


def _python_files(names: Iterable[str]) -> list[Path]:
    found: list[Path] = []
    for name in names:
        path = PACKAGE / name
        found += [path] if path.is_file() else sorted(path.rglob("*.py")) + sorted(path.rglob("*.j2"))
    return found


def _digest(parts: Iterable[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()
