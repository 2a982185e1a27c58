"""Where a k3s release comes from: a file, the cache, a mirror, or the release itself; and what proves it.

The files of a release, their names and their address are k3s' (facts: k3s.md section 1, from
scripts/validate-artifacts and install.sh of k3s). A file is what its sha256 says: the lock's, else the
one in the release's own `sha256sum-<arch>.txt`.

`--k3s FILE` is not run to ask its version. k3s is linked with its version as text, so the file is
searched for it; a file without any is taken for the profile's version, with a warning.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from k3img.errors import BuildError
from k3img.log import warning
from k3img.profile.model import Arch
from k3img.runtime import download
from k3img.tools.apt import sha256_of
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from k3img.runtime.lock import RuntimeLock

RELEASES = "https://github.com/k3s-io/k3s/releases/download"

VERSION = re.compile(r"v\d+\.\d+\.\d+(-rc\d+)?\+(k3s|standin)\d+")
_VERSION_BYTES = re.compile(rb"v\d{1,2}\.\d{1,3}\.\d{1,3}(?:-rc\d{1,2})?\+(?:k3s|standin)\d{1,2}")

_ELF_MACHINES = {Arch.X86_64: 62, Arch.ARM64: 183}  # EM_X86_64, EM_AARCH64

WAYS_OUT = (
    "Check the network, or name a copy: --k3s FILE (the file of this version and architecture), "
    "or --k3s-mirror DIR|URL (laid out like the release)."
)


class Proof(StrEnum):
    """What says that a file is the right one."""

    LOCK = "lock"
    CHECKSUMS = "the release's checksum file"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The self-extracting k3s file of one version and architecture, on this machine.

    `source` is where it came from first: a path or an address. `standin` is the tests' runtime, never k3s.
    """

    path: Path
    version: str
    arch: Arch
    name: str
    sha256: str
    source: str
    proof: Proof

    @property
    def standin(self) -> bool:
        """Whether this is the runtime for tests."""
        return "+standin" in self.version

    @property
    def first_seen(self) -> bool:
        """Whether its hash is the release's own but in no lock yet; the caller records it and says so."""
        return self.proof is Proof.CHECKSUMS


def binary_name(arch: Arch) -> str:
    """The release's name of the self-extracting file."""
    return "k3s" if arch is Arch.X86_64 else f"k3s-{arch.debian}"


def resolve(
    version: str,
    arch: Arch,
    *,
    file: Path | None = None,
    mirror: str | None = None,
    lock: RuntimeLock | None = None,
    cache: Path,
    locked: bool = False,
) -> Artifact:
    """The k3s file of a version, from the first of: `file`, the cache, `mirror`, the release itself.

    `lock` is the lock file's part for k3s; one for another version counts as none. `locked` insists on it.
    Raises `BuildError` when there is no such file, it cannot be had, or it is not what its hash says.
    """
    if VERSION.fullmatch(version) is None:
        raise BuildError(f"{version!r} is no version of k3s", hint="It looks like v1.36.3+k3s1.")
    expected = _locked_hash(version, arch, lock)
    if locked and expected is None:
        raise BuildError(
            f"--locked, but the lock file has no k3s {version} for {arch}",
            hint="`k3img lock` writes it; commit the file.",
        )
    if file is not None:
        return _from_file(version, arch, file, expected, locked=locked)
    place = _Place.of(mirror)
    proof = Proof.LOCK if expected else Proof.CHECKSUMS
    if expected is None:
        if mirror is None and "+standin" in version:
            raise _no_standin(version)
        expected = _released_hash(version, arch, place)
    return _from_cache_or_place(version, arch, place, expected, proof, cache)


def keep(artifact: Artifact, cache: Path) -> Path:
    """The file in the cache, by its sha256; a copy if it came from a folder of the user's."""
    kept = cache / "k3s" / artifact.sha256 / artifact.name
    if artifact.path == kept or sha256_of(kept) == artifact.sha256:
        return kept
    part = kept.with_name(f".{kept.name}.{os.getpid()}.part")
    try:
        make_folder(kept.parent)
        try:
            shutil.copyfile(artifact.path, part)
            part.rename(kept)
        finally:
            part.unlink(missing_ok=True)
        give_to_caller(kept)
    except OSError as error:
        raise BuildError(
            f"cannot keep {kept.name} in the cache: {error.strerror} ({error.filename})",
            hint="$K3IMG_CACHE names another place for the cache.",
        ) from error
    return kept


def _locked_hash(version: str, arch: Arch, lock: RuntimeLock | None) -> str | None:
    if lock is None or lock.version != version:
        return None
    known = lock.files.get(arch.debian)
    return known.sha256 if known else None


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Something laid out like the release: a folder, or a URL's prefix."""

    folder: Path | None = None
    url: str = ""

    @classmethod
    def of(cls, mirror: str | None) -> _Place:
        if mirror is None:
            return cls(url=RELEASES)
        scheme = urlsplit(mirror).scheme
        if scheme in ("http", "https"):
            return cls(url=mirror.rstrip("/"))
        if scheme == "file":
            mirror = urlsplit(mirror).path
        elif "://" in mirror:
            raise BuildError(f"--k3s-mirror {mirror}: neither a folder nor an http(s) address")
        if not Path(mirror).is_dir():
            raise BuildError(
                f"--k3s-mirror {mirror}: no such folder",
                hint="It is laid out like the release: DIR/VERSION/k3s and sha256sum-amd64.txt beside it.",
            )
        return cls(folder=Path(mirror))

    def local(self, version: str, name: str) -> Path | None:
        """The file in a folder, which spells the version as it is or as in the release's address."""
        if self.folder is None:
            return None
        for spelling in (version, version.replace("+", "%2B")):
            if (path := self.folder / spelling / name).is_file():
                return path
        there = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        raise BuildError(
            f"{self.folder} has no {version}/{name}",
            details=f"It has: {', '.join(there) or 'no version at all'}",
            hint="A mirror is laid out like the release: VERSION/k3s and VERSION/sha256sum-amd64.txt.",
        )

    def address(self, version: str, name: str) -> str:
        return f"{self.url}/{quote(version, safe='')}/{name}"

    def source(self, version: str, name: str) -> str:
        """Where this place has the file, without looking; empty when it surely has none."""
        if self.folder is not None:
            return str(self.folder / version / name)
        return "" if self.url == RELEASES and "+standin" in version else self.address(version, name)


def _released_hash(version: str, arch: Arch, place: _Place) -> str:
    """The hash that the release's own checksum file has for the file of this architecture."""
    list_name, name = f"sha256sum-{arch.debian}.txt", binary_name(arch)
    path = place.local(version, list_name)
    if path is not None:
        text, where = path.read_text(encoding="utf-8", errors="replace"), str(path)
    else:
        where = place.address(version, list_name)
        text = download.text(where, hint=WAYS_OUT)
    found = checksum_in(text, name)
    if found is None:
        raise BuildError(
            f"{where} has no sha256 of {name}",
            details=text[:200].strip(),
            hint="That is no checksum file of a k3s release; is it a sign-in page of a proxy? " + WAYS_OUT,
        )
    return found


def checksum_in(text: str, name: str) -> str | None:
    """The hash of a file in lines of `sha256sum`: `HASH  NAME` or `HASH *NAME`; None if it is not listed."""
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(\S+)", line.strip())
        if match and match[2] == name:
            return match[1].lower()
    return None


def _from_cache_or_place(
    version: str, arch: Arch, place: _Place, expected: str, proof: Proof, cache: Path
) -> Artifact:
    name = binary_name(arch)
    kept = cache / "k3s" / expected / name
    if sha256_of(kept) == expected:
        # The lock is committed, so it says where others get the file; the cache is this machine's alone.
        path, source = kept, place.source(version, name) or str(kept)
    elif (local := place.local(version, name)) is not None:
        if (found := sha256_of(local)) != expected:
            raise _wrong_hash(str(local), expected, found, proof)
        path, source = local, str(local)
    else:
        if place.url == RELEASES and "+standin" in version:
            raise _no_standin(version)
        source = place.address(version, name)
        path = download.file(
            source,
            kept,
            sha256=expected,
            says=str(proof),
            title=f"Downloading k3s {version} for {arch}",
            hint=WAYS_OUT,
        )
    _check_elf(path, arch)
    return Artifact(
        path=path, version=version, arch=arch, name=name, sha256=expected, source=source, proof=proof
    )


def _from_file(version: str, arch: Arch, file: Path, expected: str | None, *, locked: bool) -> Artifact:
    if not file.is_file():
        raise BuildError(f"--k3s {file}: no such file")
    _check_elf(file, arch)
    said = version_in(file, version)
    if said is None:
        warning(f"{file} does not say its version; it is taken for {version}, which the profile asks for")
    elif said != version:
        if locked:
            raise BuildError(
                f"--locked, but {file} is {said} and the lock file has {version}",
                hint="Name the file of that version, or build without --locked.",
            )
        warning(f"{file} is {said}; the profile asks for {version}. The image will hold {said}")
    found = sha256_of(file)
    proof = Proof.NOTHING
    beside = file.with_name(f"sha256sum-{arch.debian}.txt")
    if file.name == binary_name(arch) and beside.is_file():
        listed = checksum_in(beside.read_text(encoding="utf-8", errors="replace"), file.name)
        if listed is not None and listed != found:
            raise _wrong_hash(str(file), listed, found, Proof.CHECKSUMS)
        proof = Proof.CHECKSUMS if listed else Proof.NOTHING
    if expected is not None and said in (version, None):
        if found != expected:
            raise _wrong_hash(str(file), expected, found, Proof.LOCK)
        proof = Proof.LOCK
    return Artifact(
        path=file,
        version=said or version,
        arch=arch,
        name=binary_name(arch),
        sha256=found,
        source=str(file),
        proof=proof,
    )


def version_in(file: Path, wanted: str) -> str | None:
    """The version that a k3s file carries as text, or None when it has none or several.

    A text of the stand-in wins over all, so that it is never taken for k3s. Go packs its texts without
    ends, so a digit may follow that belongs to the next one: `wanted` is looked for as it is.
    """
    found = versions_in(file)
    standins = {version for version in found if "+standin" in version}
    found = standins or found
    if any(version.startswith(wanted) for version in found):
        return wanted
    return found.pop() if len(found) == 1 else None


def versions_in(file: Path) -> set[str]:
    """Every text in a file that is a version of k3s or of the stand-in."""
    found: set[str] = set()
    if not file.stat().st_size:  # mmap refuses an empty file
        return found
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for suffix in (b"+k3s", b"+standin"):
            position = data.find(suffix)
            while position >= 0:
                near = data[max(position - 20, 0) : position + 12]
                found |= {match.decode() for match in _VERSION_BYTES.findall(near)}
                position = data.find(suffix, position + 1)
    return found


def _check_elf(file: Path, arch: Arch) -> None:
    """Raise `BuildError` unless the file is a program for this architecture (ELF header, elf(5))."""
    with file.open("rb") as opened:
        head = opened.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        raise BuildError(
            f"{file} is no program (it has no ELF header), so it is not k3s",
            hint="A release's file is called k3s or k3s-arm64; a web page saved under that name is not it.",
        )
    machine = int.from_bytes(head[18:20], "little")
    if head[4:6] != b"\x02\x01" or machine != _ELF_MACHINES[arch]:
        other = next((a for a, number in _ELF_MACHINES.items() if number == machine), "another machine")
        raise BuildError(
            f"{file} is for {other}, the profile is for {arch}",
            hint=f"The release's file for {arch} is called {binary_name(arch)}.",
        )


def _wrong_hash(where: str, expected: str, found: str, proof: Proof) -> BuildError:
    locked = proof is Proof.LOCK
    return BuildError(
        f"{where} has the wrong sha256",
        details=f"expected {expected}\n         (says {proof})\nfound    {found}",
        hint="The file was changed or is damaged. "
        + ("To lock another, delete `k3s` from the lock file and run `k3img lock`." if locked else WAYS_OUT),
    )


def _no_standin(version: str) -> BuildError:
    return BuildError(
        f"{version} is the runtime for tests: it is in no release",
        hint="`ci/runtime` builds it and says where; name that folder with --k3s-mirror DIR.",
    )
