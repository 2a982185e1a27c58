"""apt with roots of its own: lists, cache and configuration in one folder, the host's untouched.

Works as root and as an ordinary user, and for another architecture than the host's. Signatures are
checked by apt against the keyring that the sources name; nothing here can switch that off. Of the host's
apt configuration only what reaches the network is taken over (proxies, certificates, timeouts).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Self

from k3img import proc
from k3img.errors import BuildError, ProgramError
from k3img.log import line as say
from k3img.tools.aptsources import sources as sources  # noqa: PLC0414 - callers of apt find it here
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

# What of `apt-config dump` goes into a private root: how to reach a mirror, how old its lists may be.
NETWORK = re.compile(
    r"^Acquire::(http|https|ftp|tor|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-FutureTime)\b"
)
HINT = (
    "Look at the lines above: a mirror that cannot be reached, or a clock that is wrong. "
    "NO_PUBKEY means that the package debian-archive-keyring is older than the suite."
)
GONE = "`k3img lock` takes what there is now. A mirror of snapshots (os.mirror) keeps old versions."
HELPER = "/usr/lib/apt/apt-helper"

# Files for us land in folders that apt's own user may not write to; as root it would warn about each.
AS_US = ("--option", "APT::Sandbox::User=root")

PackageKey = tuple[str, str, str]
"""Name, version and architecture (`all` where it fits each)."""


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """One .deb of an archive: from which suite's archive, which path in it, and what it must hash to."""

    name: str
    version: str
    arch: str
    sha256: str
    filename: str
    suite: str


@dataclass(frozen=True, kw_only=True)
class PackageRecord:
    """A package as an archive's index lists it.

    `filename` is relative to `uri`, the archive's root; `suite` is named as in the sources
    (`trixie-security`); `stanza` is the index's own text.
    """

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    filename: str
    uri: str
    suite: str
    stanza: str

    @property
    def pin(self) -> PackageFile:
        """What a lock keeps of it, and `PrivateApt.fetch` takes."""
        return PackageFile(
            name=self.name,
            version=self.version,
            arch=self.arch,
            sha256=self.sha256,
            filename=self.filename,
            suite=self.suite,
        )


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """A package list on disk, and the archive and suite that it describes."""

    path: Path
    uri: str
    suite: str


class PrivateApt:
    """apt in a folder of its own; a context manager, because one process at a time may use the folder.

    `root` is made when missing and may be kept between runs (lists are then only refreshed); `sources` is
    deb822 text (see `sources`); `arch` is Debian's name. What apt prints goes to `log` when given.
    """

    def __init__(self, root: Path, sources: str, arch: str, *, log: Path | None = None) -> None:
        self.root = root.absolute()
        self.sources = sources
        self.arch = arch
        self.log = log
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        make_folder(self.root)
        with ExitStack() as stack:
            lock = stack.enter_context((self.root / "in-use").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another k3img uses apt in {self.root}; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._set_up()
            self._stack = stack.pop_all()
        return self

    def _set_up(self) -> None:
        for folder in ("lists/partial", "cache/archives/partial", "state", "log"):
            make_folder(self.root / folder)
        (self.root / "status").touch()
        (self.root / "debian.sources").write_text(self.sources, encoding="utf-8")
        text = conf(self.root, self.arch, network_settings(), sandboxed=open_to_others(self.root))
        (self.root / "apt.conf").write_text(text, encoding="utf-8")

    def __exit__(self, *_: object) -> None:
        give_to_caller(self.root)
        self._stack.close()

    def update(self) -> None:
        """Fetch the lists. Raises `ProgramError` when an archive cannot be reached or is not signed."""
        try:
            self._run("apt-get", "update", "--quiet", "--option", "APT::Update::Error-Mode=any")
        except ProgramError as error:
            said = [line for line in error.details.splitlines() if line.startswith("E: ")]
            raise ProgramError(
                "Debian's package lists cannot be fetched from the mirror",
                status=error.status,
                output="\n".join(said) or error.details,
                hint=error.hint,
            ) from error

    def download(self, packages: Sequence[str], into: Path) -> tuple[Path, ...]:
        """Fetch `name`, `name=version` or `name:arch` packages into a folder; returns the .deb files.

        Raises `ProgramError` when one is unknown, cannot be fetched or has the wrong hash.
        """
        make_folder(into)
        with tempfile.TemporaryDirectory(prefix=".apt-", dir=into) as folder:
            self._run("apt-get", *AS_US, "download", "--quiet", *packages, cwd=folder)
            files = [deb.replace(into / deb.name) for deb in sorted(Path(folder).glob("*.deb"))]
        for file in files:
            give_to_caller(file)
        return tuple(files)

    def candidates(self, names: Sequence[str]) -> dict[str, str]:
        """The version that apt would take of each package; names that no list has are left out."""
        text = self._run("apt-cache", "policy", *names)
        found = re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", text, re.MULTILINE)
        return {name.split(":")[0]: version for name, version in found if version != "(none)"}

    def index(self, names: Collection[str] | None = None) -> dict[PackageKey, PackageRecord]:
        """Every package that the lists hold (Debian: 60000), or only those called `names`.

        Raises `BuildError` when there are no lists: `update` comes first.
        """
        found: dict[PackageKey, PackageRecord] = {}
        wanted = None if names is None else frozenset(names)
        for file in self.index_files():
            path = self._plain(file.path)
            with path.open(encoding="utf-8", errors="replace") as lines:
                for record in parse_index(lines, uri=file.uri, suite=file.suite, names=wanted):
                    found.setdefault((record.name, record.version, record.arch), record)
        return found

    def index_files(self) -> tuple[IndexFile, ...]:
        """The package lists, in the order of the sources. Raises `BuildError` when there are none."""
        text = self._run(
            "apt-get", "indextargets",
            "--format", "$(FILENAME)|$(REPO_URI)|$(RELEASE)",
            "Created-By: Packages",
        )  # fmt: skip
        rows = (line.split("|") for line in text.splitlines() if line.count("|") == 2)
        found = tuple(IndexFile(path=Path(file), uri=uri, suite=suite) for file, uri, suite in rows)
        if not found:
            raise BuildError("apt has no package lists here yet", hint="They are fetched with --refresh.")
        return found

    def fetch(
        self,
        wanted: Iterable[PackageFile],
        into: Path,
        *,
        advance: Callable[[int], None] = lambda _: None,
        hint: str = GONE,
    ) -> dict[str, Path]:
        """Have exactly these package files as `into`/SHA256.deb; returns them by sha256.

        Files that are there already are hashed and kept. A version that left the index may still lie in
        the archive's pool, so the pool is asked, not the index. `advance` is told how many more are done,
        `hint` is what to do about files that are gone.
        Raises `BuildError` that names every file that is gone and the versions that there are now.
        """
        make_folder(into)
        every = {package.sha256: package for package in wanted}
        done = {sha: into / f"{sha}.deb" for sha in every if sha256_of(into / f"{sha}.deb") == sha}
        advance(len(done))
        todo = [package for sha, package in every.items() if sha not in done]
        archives = {file.suite: file.uri for file in reversed(self.index_files())} if todo else {}
        complaint = ""
        for start in range(0, len(todo), 40):
            fetched, said = self._fetch_some(todo[start : start + 40], into, archives)
            complaint = said or complaint
            done |= fetched
            advance(len(fetched))
        gone = [package for package in todo if package.sha256 not in done]
        if gone:
            raise _gone(gone, self.index({package.name for package in gone}).values(), complaint, hint)
        return done

    def _fetch_some(
        self, some: Sequence[PackageFile], into: Path, archives: Mapping[str, str]
    ) -> tuple[dict[str, Path], str]:
        """What of `some` could be had, and what apt said if not all of it."""
        parts = {package.sha256: into / f"{package.sha256}.{os.getpid()}.part" for package in some}
        argv: list[str] = []
        for package in some:
            if (uri := archives.get(package.suite)) is not None:
                address = f"{uri.rstrip('/')}/{package.filename}"
                argv += [address, str(parts[package.sha256]), f"SHA256:{package.sha256}"]
        fetched: dict[str, Path] = {}
        said = ""
        try:
            try:
                if argv:
                    self._run(HELPER, *AS_US, "download-file", *argv)
            except ProgramError as error:  # one file that is gone fails the call for all; some did arrive
                said = error.details
            for sha, part in parts.items():
                if sha256_of(part) == sha:
                    fetched[sha] = part.replace(into / f"{sha}.deb")
                    give_to_caller(fetched[sha])
        finally:
            for part in parts.values():
                for left in into.glob(f"{part.name}*"):
                    left.unlink()
        return fetched, said

    def _plain(self, path: Path) -> Path:
        """A list that apt kept compressed all the same (our configuration asks it not to), undone."""
        if path.suffix not in (".lz4", ".gz", ".xz", ".zst", ".bz2"):
            return path
        plain = self.root / "state" / path.stem
        plain.write_text(self._run(HELPER, "cat-file", path), encoding="utf-8")
        return plain

    def _run(self, *argv: proc.Arg, cwd: proc.Arg = ".") -> str:
        env = {"APT_CONFIG": str(self.root / "apt.conf")}
        return proc.run(argv, env=env, cwd=cwd, log=self.log, hint=HINT)


def network_settings() -> list[str]:
    """The lines of the host's apt configuration that say how to reach the network, see `NETWORK`."""
    return [line for line in proc.run(["apt-config", "dump"]).splitlines() if NETWORK.match(line)]


def conf(root: Path, arch: str, network: Sequence[str], *, sandboxed: bool) -> str:
    """The text of apt.conf for a private root; `network` lines are the host's, see `NETWORK`.

    apt reads this first and then /etc/apt/apt.conf and apt.conf.d, so those are named away: their hooks
    delete the host's caches or call a desktop's package service.
    """
    where = {
        "Dir::State": "state",
        "Dir::State::lists": "lists",
        "Dir::State::status": "status",
        "Dir::Cache": "cache",
        "Dir::Log": "log",
        "Dir::Etc::sourcelist": "debian.sources",
    }
    nothing = ("main", "parts", "sourceparts", "preferences", "preferencesparts", "trusted", "trustedparts")
    lines = [
        *(f'{key} "{root / name}";' for key, name in where.items()),
        *(f'Dir::Etc::{name} "/dev/null";' for name in nothing),
        f'APT::Architecture "{arch}";',
        f'APT::Architectures {{ "{arch}"; }};',
        'APT::Color "0";',
        'Acquire::Retries "3";',
        *network,
        'Acquire::Languages "none";',
        'Acquire::GzipIndexes "false";',
        'Acquire::IndexTargets::deb::Packages::KeepCompressed "false";',
        # Without this apt's own user `_apt` fails to write where only we may enter, and says so at length.
        *(() if sandboxed else ('APT::Sandbox::User "root";',)),
    ]
    return "\n".join(lines) + "\n"


def parse_index(
    lines: Iterable[str], *, uri: str, suite: str, names: Collection[str] | None = None
) -> Iterator[PackageRecord]:
    """The records of a Packages file (deb822, one stanza for each package).

    Stanzas without a sha256 or a file name are passed over: nothing could be checked against them.
    """
    block: list[str] = []
    for line in chain(lines, ("\n",)):
        if line.strip():
            block.append(line)
            continue
        if block and (names is None or _field(block, "Package") in names):
            record = _record(block, uri, suite)
            if record is not None:
                yield record
        block = []


def _field(block: Sequence[str], name: str) -> str:
    start = f"{name}: "
    return next((line[len(start) :].strip() for line in block if line.startswith(start)), "")


def _record(block: Sequence[str], uri: str, suite: str) -> PackageRecord | None:
    fields = dict(line.rstrip("\n").split(": ", 1) for line in block if line[0] not in " \t" and ": " in line)
    sha256, filename = fields.get("SHA256", ""), fields.get("Filename", "")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not filename:
        return None
    return PackageRecord(
        name=fields.get("Package", ""),
        version=fields.get("Version", ""),
        arch=fields.get("Architecture", ""),
        sha256=sha256,
        size=int(fields.get("Size", "0")),
        filename=filename,
        uri=uri,
        suite=suite,
        stanza="".join(block),
    )


def _gone(
    gone: Sequence[PackageFile], now: Iterable[PackageRecord], complaint: str, hint: str = GONE
) -> BuildError:
    there: dict[str, dict[str, str]] = {}
    for record in now:
        there.setdefault(record.name, {})[record.version] = record.sha256
    lines = [
        f"{package.name} {package.version} ({package.suite}, {package.arch}): the mirror has "
        + _instead(package, there.get(package.name, {}))
        for package in sorted(gone, key=lambda package: package.name)
    ]
    if complaint:
        lines += ["apt said:", *complaint.splitlines()[-10:]]
    count = "a locked package is" if len(gone) == 1 else f"{len(gone)} locked packages are"
    return BuildError(
        f"{count} not to be had from the mirror",
        details="\n".join(lines),
        hint=hint,
    )


def _instead(package: PackageFile, there: Mapping[str, str]) -> str:
    """What the mirror has in place of a package: other versions, or another content of this one."""
    same = there.get(package.version, package.sha256)
    if same != package.sha256:
        return f"it with another sha256, {same}; locked is {package.sha256}"
    return ", ".join(sorted(there)) or "no such package"


def sha256_of(path: Path) -> str:
    """A file's sha256 in hex; empty when there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def open_to_others(folder: Path) -> bool:
    """Whether every user may enter a folder and those above it, as apt's own user has to."""
    return all(above.stat().st_mode & 0o001 for above in (folder, *folder.resolve().parents))
