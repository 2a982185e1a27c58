"""A flat apt repository made of .deb files that are pinned by sha256 already.

Usable as `deb [trusted=yes] file:FOLDER ./`: it is not signed, because each file in it was checked against
the lock before. What a package says of itself is read from the .deb (deb(5): an ar archive of
`debian-binary`, `control.tar.*` and `data.tar.*`), so no index of any mirror is needed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import shutil
import tarfile
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import zstandard

from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_AR_MAGIC = b"!<arch>\n"
_LIMIT = 16 << 20  # control files are a few kB; the largest of Debian is far below 1 MB


@dataclass(frozen=True, kw_only=True)
class Deb:
    """A .deb on disk with the text that an index has for it."""

    path: Path
    name: str
    version: str
    arch: str
    control: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """How the file is called in the repository: as in Debian's pool, where names have no epoch."""
        return f"{self.name}_{self.version.partition(':')[2] or self.version}_{self.arch}.deb"


def write(debs: Iterable[Path], into: Path, *, suite: str = "locked") -> tuple[Deb, ...]:
    """Make `into` a flat repository with these packages; their files are linked, or else copied.

    Raises `BuildError` when a file is no Debian package, or two of them are the same package.
    """
    read = sorted((read_deb(path) for path in debs), key=lambda deb: deb.filename)
    for one, other in pairwise(read):
        if one.filename == other.filename and one.sha256 != other.sha256:
            raise BuildError(f"two different files are both {one.filename}: {one.path} and {other.path}")
    unique = tuple({deb.filename: deb for deb in read}.values())
    into.mkdir(parents=True)
    for deb in unique:
        target = into / deb.filename
        try:
            target.hardlink_to(deb.path)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(deb.path, target)
    packages = packages_text(unique)
    (into / "Packages").write_text(packages, encoding="utf-8")
    (into / "Release").write_text(release_text(packages, unique, suite), encoding="utf-8")
    return unique


def packages_text(debs: Iterable[Deb]) -> str:
    """The `Packages` index: each package's control text, then where its file is and what it must be."""
    return "".join(
        f"{deb.control}Filename: ./{deb.filename}\nSize: {deb.size}\nSHA256: {deb.sha256}\n\n" for deb in debs
    )


def release_text(packages: str, debs: Iterable[Deb], suite: str) -> str:
    """A `Release` file that names the index's hash."""
    data = packages.encode()
    arches = " ".join(sorted({deb.arch for deb in debs} - {"all"}))
    return (
        f"Origin: k3img\nLabel: k3img\nSuite: {suite}\nCodename: {suite}\n"
        f"Date: Thu, 01 Jan 1970 00:00:00 UTC\nArchitectures: {arches} all\n"
        f"SHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} Packages\n"
    )


def read_deb(path: Path) -> Deb:
    """What a .deb says of itself. Raises `BuildError` when it is none."""
    try:
        control = _control(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, ValueError, StopIteration, tarfile.TarError, lzma.LZMAError) as error:
        raise BuildError(f"{path} is no Debian package: {error}") from error
    except zstandard.ZstdError as error:
        raise BuildError(f"{path} is a damaged Debian package: {error}") from error
    lines = [line for line in control.splitlines() if line.strip()]
    pairs = (line.partition(":") for line in lines if line[0] not in " \t")
    fields = {key: value.strip() for key, _, value in pairs}
    name, version, arch = (fields.get(key, "") for key in ("Package", "Version", "Architecture"))
    if not (name and version and arch):
        raise BuildError(f"{path} is no Debian package: it does not say its name, version and architecture")
    # An index's own fields must come from us alone.
    ours = ("filename:", "size:", "md5sum:", "sha1:", "sha256:")
    text = "".join(f"{line}\n" for line in lines if not line.lower().startswith(ours))
    return Deb(path=path, name=name, version=version, arch=arch, control=text, sha256=sha256, size=size)


def _control(path: Path) -> str:
    """The text of `control` in the member `control.tar`, `.gz`, `.xz` or `.zst` of the ar archive."""
    with path.open("rb") as file:
        if file.read(8) != _AR_MAGIC:
            raise ValueError("it is no ar archive")
        while head := file.read(60):
            name = head[:16].decode("ascii", errors="replace").strip().rstrip("/")
            size = int(head[48:58])
            if name.startswith("control.tar"):
                if size > _LIMIT:
                    raise ValueError(f"{name} is too large")
                return _control_of_tar(file.read(size), name)
            file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no control.tar")


def _control_of_tar(data: bytes, name: str) -> str:
    match name.removeprefix("control.tar"):
        case "":
            plain = data
        case ".gz":
            plain = gzip.decompress(data)
        case ".xz":
            plain = lzma.decompress(data)
        case ".zst":
            plain = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        case other:
            raise ValueError(f"its control.tar is compressed as {other}, which is unknown")
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        member = next(m for m in tar if m.name.lstrip("./") == "control")
        file = tar.extractfile(member)
        if file is None:
            raise ValueError("its control is no file")
        return file.read().decode("utf-8", errors="replace")
