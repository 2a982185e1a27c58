"""Take k3s out of its self-extracting file at build time, proven file by file.

k3s' release script names the archive by the sha256 of its compressed bytes (`<sha256>.tar.zst`) and
embeds it in a Go program as it is; its folder `bin` holds `.sha256sums` (`HASH  NAME`) and `.links`
(`NAME TARGET`) that list everything in it but hidden files (facts: k3s.md section 6, scripts/package-cli
of k3s). So the name stands in the file as text, the frame lies there in one piece, and the hash proves
that what was cut out is the archive. What cannot be proven is refused: never half a runtime.
"""

from __future__ import annotations

import hashlib
import mmap
import posixpath
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img.errors import BuildError, ProgramError
from k3img.runtime.release import versions_in
from k3img.tools.archive import MAGIC, UnpackedFile, Unpacker, copy_tree, next_frame, unpack_tar_zst

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k3img.runtime.release import Artifact

CNI_PLUGINS = ("bandwidth", "bridge", "firewall", "flannel", "host-local", "loopback", "portmap")
REQUIRED = ("bin/k3s", "bin/containerd", "bin/containerd-shim-runc-v2", "bin/runc", "cni/host-local")
"""k3s looks these up in PATH and does not start without them."""

_SUFFIX = b".tar.zst"
_SHA256 = re.compile(rb"[0-9a-f]{64}")
_MIB = 1 << 20
_HINT = (
    "Take the file from the release anew and check its sha256; `k3img build --refresh` downloads it again."
)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """k3s unpacked: `folder` holds `bin`, `bin/aux`, `cni`. Paths in `files` and `links` are relative to it.

    `archive` is the sha256 of the embedded archive, by which k3s names its folder on a machine.
    """

    folder: Path
    version: str
    archive: str
    files: Mapping[str, UnpackedFile]
    links: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(file.size for file in self.files.values())


def unpack(
    artifact: Artifact, into: Path, *, run_self: Callable[[Path, Path], None] | None = None
) -> Runtime:
    """Unpack the archive of a self-extracting file into the new folder `into`.

    When it cannot be cut out, `run_self(file, data_dir)` makes the file unpack itself, in a sandbox:
    `FILE --data-dir DATA_DIR check-config`, natively or through qemu-user; what that leaves is checked
    in the same way. `into` appears complete or not at all.
    Raises `BuildError` when nothing can be proven, or what is proven is no k3s.
    """
    if into.exists():
        raise BuildError(f"{into} exists already", hint="It is made anew by each build; remove it.")
    with tempfile.TemporaryDirectory(prefix=f".{into.name}-", dir=into.parent) as folder:
        work = Path(folder)
        try:
            archive, unpacked = _carve(artifact.path, work / "carved")
        except _NotProvenError as error:
            if run_self is None:
                raise
            archive, unpacked = _run(artifact.path, work, run_self, error)
        try:
            _check_listed(unpacked)
            _make_cni(unpacked)
            _check_complete(unpacked, artifact)
            unpacked.finish()
        except OSError as error:
            raise _cannot_write(error) from error
        unpacked.root.rename(into)
    return Runtime(
        folder=into,
        version=artifact.version,
        archive=archive,
        files=dict(sorted(unpacked.files.items())),
        links=dict(sorted(unpacked.links.items())),
    )


class _NotProvenError(BuildError):
    """The archive was not found, or its hash does not fit: the file may still be able to unpack itself."""


def _carve(file: Path, into: Path) -> tuple[str, Unpacker]:
    start, end, archive = find_archive(file)
    unpacker = _unpacker(into)
    try:
        with file.open("rb") as source:
            unpack_tar_zst(source, start, end, unpacker)
    except OSError as error:
        raise _cannot_write(error) from error
    return archive, unpacker


def find_archive(file: Path) -> tuple[int, int, str]:
    """Where in a self-extracting file the archive begins and ends, and its sha256, which proves it.

    Raises `BuildError` when there is none, or several: then it is not clear which the file would take.
    """
    if not file.stat().st_size:
        raise _NotProvenError(f"{file} is empty", hint=_HINT)
    found: list[tuple[int, int, str]] = []
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        names = _names(data)
        position = data.find(MAGIC) if names else -1
        while position >= 0:
            span = _proven(data, position, names)
            if span is not None:
                found.append((position, *span))
            position = data.find(MAGIC, span[0] if span else position + 1)
    if len({archive for _, _, archive in found}) > 1:
        raise _NotProvenError(f"{file} holds {len(found)} archives; one was expected", hint=_HINT)
    if not found:
        what = "no archive whose sha256 is its name" if names else "no embedded archive"
        raise _NotProvenError(f"{file} holds {what}: it is no k3s release file, or it is damaged", hint=_HINT)
    return found[0]


def _names(data: mmap.mmap) -> set[str]:
    """Every sha256 that stands before `.tar.zst`. Texts in a Go file touch, so nothing need precede it."""
    found = set()
    position = data.find(_SUFFIX)
    while position >= 0:
        before = data[max(position - 64, 0) : position]
        if _SHA256.fullmatch(before):
            found.add(before.decode())
        position = data.find(_SUFFIX, position + 1)
    return found


def _proven(data: mmap.mmap, start: int, names: set[str]) -> tuple[int, str] | None:
    """The end and hash of the archive that begins at `start`, if it is one of `names`.

    An archive may be several frames in a row, so the hash is compared after each.
    """
    digest = hashlib.sha256()
    position = start
    while (end := next_frame(data, position)) is not None:
        for offset in range(position, end, _MIB):
            digest.update(data[offset : min(offset + _MIB, end)])
        if digest.hexdigest() in names:
            return end, digest.hexdigest()
        position = end
    return None


def _run(
    file: Path, work: Path, run_self: Callable[[Path, Path], None], reason: BuildError
) -> tuple[str, Unpacker]:
    """Let the file unpack itself and take what it left, if that is one whole folder."""
    data_dir = work / "self"
    data_dir.mkdir()
    said = ""
    try:
        run_self(file, data_dir)
    except ProgramError as error:
        # check-config ends with an error on hosts that lack something k3s wants; it has unpacked by then.
        said = error.details or error.brief
    folders = [path for path in (data_dir / "data").glob("*") if re.fullmatch("[0-9a-f]{64}", path.name)]
    whole = [path for path in folders if (path / "bin/k3s").is_file() and not path.is_symlink()]
    if len(whole) != 1:
        raise BuildError(
            f"{file} cannot be unpacked, and did not unpack itself when it was run",
            details=f"{reason.brief}\n{said}".strip(),
            hint=_HINT,
        )
    unpacker = _unpacker(work / "copied")
    try:
        copy_tree(whole[0], unpacker)
    except OSError as error:
        raise _cannot_write(error) from error
    shutil.rmtree(data_dir, ignore_errors=True)
    return whole[0].name, unpacker


def _unpacker(root: Path) -> Unpacker:
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    return Unpacker(root=root)


def _check_listed(unpacked: Unpacker) -> None:
    """Each file and link of `bin` is listed there as it is, and all that is listed is there."""
    sums = {name: digest for digest, name in _listed(unpacked, "bin/.sha256sums")}
    links = dict(_listed(unpacked, "bin/.links"))
    files = {_in_bin(name): file.sha256 for name, file in unpacked.files.items() if _in_bin(name)}
    there = {_in_bin(name): target for name, target in unpacked.links.items() if _in_bin(name)}
    wrong = [
        *(f"{name}: {_differs(sums.get(name), found)}" for name, found in _unequal(sums, files)),
        *(f"{name}: link to {links.get(name)}, found {found}" for name, found in _unequal(links, there)),
    ]
    if wrong or not sums:
        raise BuildError(
            f"the unpacked runtime is not what its own list says ({len(wrong)} differences)",
            details="\n".join(wrong[:20]) or "The list is empty.",
            hint=_HINT,
        )


def _unequal(listed: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[str, str | None]]:
    names = sorted(listed.keys() | there.keys())
    return [(name, there.get(name)) for name in names if listed.get(name) != there.get(name)]


def _differs(listed: str | None, found: str | None) -> str:
    return f"sha256 {listed or 'not listed'}, found {found or 'no such file'}"


def _in_bin(name: str) -> str:
    """The name below `bin`; empty for what the lists leave out: other folders and hidden files."""
    inside = name.removeprefix("bin/") if name.startswith("bin/") else ""
    return "" if any(part.startswith(".") for part in inside.split("/")) else inside


def _listed(unpacked: Unpacker, name: str) -> list[tuple[str, str]]:
    """The two words of each line. k3s reads its lists in this way as well (pkg/dataverify)."""
    if name not in unpacked.files:
        raise BuildError(f"the embedded archive has no {name}, so its files cannot be checked", hint=_HINT)
    lines = (unpacked.root / name).read_text(encoding="utf-8", errors="replace").splitlines()
    words = [line.split() for line in lines if line.strip()]
    if any(len(pair) != 2 for pair in words):
        raise BuildError(f"{name} of the embedded archive cannot be read", hint=_HINT)
    return [(first, second) for first, second in words]


def _make_cni(unpacked: Unpacker) -> None:
    """The folder that k3s would make beside its data at first start: the CNI plug-ins and nothing else.

    Links to the multicall program `cni` are repeated here; plug-ins that are files get a link of their own.
    """
    for name, target in sorted(unpacked.links.items()):
        if name.startswith("bin/") and _leads_to(name, target) == "bin/cni":
            unpacked.add_link(f"cni/{posixpath.basename(name)}", "../bin/cni")
    for name in ("cni", *CNI_PLUGINS):
        if f"bin/{name}" in unpacked.files and f"cni/{name}" not in unpacked.links:
            unpacked.add_link(f"cni/{name}", f"../bin/{name}")


def _check_complete(unpacked: Unpacker, artifact: Artifact) -> None:
    missing = [name for name in REQUIRED if not _program(unpacked, name)]
    if missing:
        raise BuildError(f"the unpacked runtime lacks {', '.join(missing)}: it is no k3s", hint=_HINT)
    if not artifact.standin and any("+standin" in said for said in versions_in(unpacked.root / "bin/k3s")):
        raise BuildError(
            f"{artifact.path} was taken for k3s {artifact.version}, but holds the runtime for tests",
            hint="Set `k3s.version` of the profile to the stand-in's version, or name the real file.",
        )
    if "bin/aux" not in unpacked.folders:
        unpacked.add_folder("bin/aux")  # it is in the units' PATH


def _leads_to(name: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _program(unpacked: Unpacker, name: str) -> bool:
    """Whether a name is a file that may be executed, through however many links."""
    for _ in range(8):
        if name not in unpacked.links:
            break
        name = _leads_to(name, unpacked.links[name])
    return name in unpacked.files and unpacked.files[name].executable


def _cannot_write(error: OSError) -> BuildError:
    return BuildError(f"cannot unpack k3s: {error.strerror} ({error.filename})", hint="Is the disk full?")
