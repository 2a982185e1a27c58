"""`profiles/NAME.lock.yaml`: the exact k3s files and Debian packages of a profile, each with its sha256.

Made by `k3img lock`; meant to be committed. A hash that changed for what is locked already is an error,
never taken over in silence. Top-level keys that this version does not know are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from k3img.errors import BuildError, Problem, ProfileError
from k3img.node.model import EMPTY
from k3img.tools.apt import PackageFile
from k3img.tree import give_to_caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from k3img.runtime.release import Artifact

FORMAT = 1
SECTIONS = ("image", "initrd", "tools", "boot")
"""Who a list of packages is for: the image, its initrd, the tools tree of both, a board's boot firmware."""

NOT_BUILT = ("cluster-ca",)
"""Keys that say nothing of what is built: the CAs of the profile's clusters, by `k3img.cluster`."""

_HEADER = """\
# What {profile} is built from, each with its sha256. Written by `k3img lock`.
# Commit it: `k3img build --locked` takes exactly this and nothing else. Not meant for editing.
"""
_STANDIN = "# Its runtime is the stand-in for tests, not k3s.\n"
_LIMIT = 20 << 20
_DEPTH = 32
_ANEW = "Delete the file and run `k3img lock`, or take it from version control."
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class LockedFile:
    """A file of the k3s release: its name there, its hash, and where it was first had from."""

    file: str
    sha256: str
    source: str


@dataclass(frozen=True, kw_only=True)
class RuntimeLock:
    """One version of k3s and its file for each architecture (`amd64`, `arm64`)."""

    version: str
    files: Mapping[str, LockedFile]


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file's content. `made` is a date in UTC; `packages` goes by `SECTIONS`; `extra` is kept."""

    made: str
    k3s: RuntimeLock | None = None
    packages: Mapping[str, tuple[PackageFile, ...]] = EMPTY
    extra: Mapping[str, Any] = field(default=EMPTY)

    @property
    def digest(self) -> str:
        """sha256 over all that decides what is built: not the date, nor where files were had from."""
        content = {
            "k3s": {arch: [self.k3s.version, file.sha256] for arch, file in self.k3s.files.items()}
            if self.k3s
            else {},
            "packages": {
                name: [[p.name, p.version, p.arch, p.sha256] for p in _sorted(packages)]
                for name, packages in self.packages.items()
            },
            "extra": {name: value for name, value in self.extra.items() if name not in NOT_BUILT},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def digest_of(self, section: str) -> str:
        """sha256 over one section's packages: locks of one digest give apt the same files."""
        packages = [[p.name, p.version, p.arch, p.sha256] for p in _sorted(self.packages.get(section, ()))]
        return hashlib.sha256(json.dumps(packages).encode()).hexdigest()

    def with_k3s(self, artifact: Artifact, *, made: str) -> Lock:
        """The lock with this k3s file in it; files of another version make room for it.

        Raises `BuildError` when the same version and architecture is locked with another hash.
        """
        arch = artifact.arch.debian
        kept = self.k3s.files if self.k3s and self.k3s.version == artifact.version else {}
        if (old := kept.get(arch)) is not None:
            if old.sha256 != artifact.sha256:
                raise _changed(f"k3s {artifact.version} for {arch}", old.sha256, artifact.sha256)
            return self
        new = LockedFile(file=artifact.name, sha256=artifact.sha256, source=artifact.source)
        return replace(self, made=made, k3s=RuntimeLock(version=artifact.version, files={**kept, arch: new}))

    def with_packages(self, section: str, packages: Iterable[PackageFile], *, made: str) -> Lock:
        """The lock with these packages for a section, in place of those it had.

        Raises `BuildError` when a package of the same version comes with another hash: an archive never
        changes a file under its name, so somebody else did.
        """
        new = _sorted(packages)
        old = {(p.name, p.version, p.arch): p.sha256 for p in self.packages.get(section, ())}
        for package in new:
            before = old.get((package.name, package.version, package.arch), package.sha256)
            if before != package.sha256:
                raise _changed(f"{package.name} {package.version} ({package.arch})", before, package.sha256)
        if new == self.packages.get(section):
            return self
        return replace(self, made=made, packages={**self.packages, section: new})


def path_of(profile: Path) -> Path:
    """Where the lock of a profile's file lies: `x86.yaml` -> `x86.lock.yaml`, beside it."""
    return profile.with_name(f"{profile.stem}.lock.yaml")


def read(path: Path) -> Lock | None:
    """The lock in a file; None when there is no file.

    Raises `ProfileError` with every problem of the file, each with its line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProfileError([Problem(file=str(path), line=0, path="", what=f"{error.strerror}.")]) from error
    return parse(data, str(path))


def required(path: Path, profile: str) -> Lock:
    """The lock in a file that has to be there. Raises `BuildError` that says how to make it."""
    if (lock := read(path)) is None:
        raise BuildError(
            f"no lock file {path}: `k3img lock --profile {profile}` writes it",
            hint="It pins k3s and every Debian package; commit it. Without --locked the newest are taken.",
        )
    return lock


def parse(data: bytes, file: str) -> Lock:
    """The lock in the bytes of a file. Raises `ProfileError` with every problem."""
    if len(data) > _LIMIT:
        raise _refused(file, 0, f"larger than {_LIMIT >> 20} MiB: that is no lock file.")
    try:
        text = data.decode("utf-8")
        _check_events(text, file)
        loader = _LOADER(text)
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else None
    except UnicodeDecodeError as error:
        raise _refused(file, data.count(b"\n", 0, error.start) + 1, "not UTF-8 text.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise _refused(file, line, f"not YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(file, 0, f"not YAML: {str(error).splitlines()[0]}.") from error
    reader = _Reader(file=file)
    reader.places(node)
    lock = reader.lock(content)
    if reader.problems:
        raise ProfileError(reader.problems)
    return lock


def _refused(file: str, line: int, what: str) -> ProfileError:
    return ProfileError([Problem(file=file, line=line, path="", what=what, hint=_ANEW)])


def _check_events(text: str, file: str) -> None:
    """Refuse what we never write and what could fill any memory: aliases, and deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise _refused(file, line, "aliases (*name) are not allowed.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise _refused(file, line, "nested too deeply.")


def write(lock: Lock, path: Path) -> None:
    """Write a lock file whole or not at all. Raises `BuildError` when it cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as out:
            temporary = Path(out.name)
            try:
                out.write(text(lock, path.name.removesuffix(".lock.yaml")))
                out.flush()
                os.fsync(out.fileno())
                temporary.chmod(0o644)
                give_to_caller(temporary)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BuildError(f"cannot write {path}: {error.strerror}") from error


def text(lock: Lock, profile: str) -> str:
    """The lock as canonical YAML: the same content is always the same text, one package a line."""
    content: dict[str, Any] = {"format": FORMAT, "made": lock.made}
    if lock.k3s is not None:
        files = {arch: _mapping(lock.k3s.files[arch]) for arch in sorted(lock.k3s.files)}
        content["k3s"] = {"version": lock.k3s.version, "files": files}
    if lock.packages:
        content["packages"] = {
            section: [_mapping(package) for package in _sorted(lock.packages[section])]
            for section in SECTIONS
            if section in lock.packages
        }
    for key in sorted(lock.extra):
        content[key] = lock.extra[key]
    body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=10**6, allow_unicode=True)
    standin = _STANDIN if lock.k3s is not None and "+standin" in lock.k3s.version else ""
    return _HEADER.format(profile=profile) + standin + body


def _mapping(item: LockedFile | PackageFile) -> dict[str, str]:
    return {each.name: getattr(item, each.name) for each in fields(item)}


def _sorted(packages: Iterable[PackageFile]) -> tuple[PackageFile, ...]:
    return tuple(sorted(set(packages), key=lambda p: (p.name, p.arch, p.version, p.sha256)))


def _changed(what: str, before: str, now: str) -> BuildError:
    return BuildError(
        f"the sha256 of {what} is not the one in the lock file",
        details=f"locked {before}\nnow    {now}",
        hint="One version has one content, so this is damage or forgery, unless you know better: then delete "
        "the entry from the lock file and run `k3img lock`.",
    )


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """The line of each value, by dotted path."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, f"{path}.{key.value}".lstrip("."))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, f"{path}[{index}]")


_SHAPES = {
    "sha256": (re.compile(r"[0-9a-f]{64}"), "64 hexadecimal digits"),
    "filename": (re.compile(r"(?!/)(?!.*\.\.(/|$))[\w.+~%:/-]+\.deb"), "a path in an archive's pool"),
    "file": (re.compile(r"k3s(-arm64)?"), "k3s or k3s-arm64"),
    "name": (re.compile(r"[a-z0-9][a-z0-9+.-]+"), "a Debian package's name"),
    "arch": (re.compile(r"[a-z0-9-]+"), "a Debian architecture"),
    "made": (re.compile(r"\d{4}-\d\d-\d\d"), "a date, quoted"),
}
_T = TypeVar("_T", LockedFile, PackageFile)
_ANY = (re.compile(r"\S(.*\S)?"), "text, quoted if YAML would read it otherwise")


@dataclass(kw_only=True)
class _Reader:
    """Turns what YAML gave into a `Lock`, noting every problem on the way."""

    file: str
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def places(self, node: yaml.Node | None) -> None:
        """Note the line of each value; a key that comes twice is a problem."""
        for path, line in _lines(node, "") if node is not None else ():
            if path in self.lines:
                self.lines[path] = line
                self.wrong(path, "is given twice.")
            self.lines[path] = line

    def lock(self, content: Any) -> Lock:
        top = self.mapping(content, "")
        if (number := top.pop("format", None)) != FORMAT:
            self.wrong("format", f"must be {FORMAT}, but it is {number!r}: made by another version of k3img.")
        made = self.scalar(top.pop("made", None), "made", "made")
        k3s = self.k3s(top.pop("k3s")) if "k3s" in top else None
        packages: dict[str, tuple[PackageFile, ...]] = {}
        for section, items in self.mapping(top.pop("packages", {}), "packages").items():
            path = f"packages.{section}"
            if section not in SECTIONS:
                self.wrong(path, f"unknown; there are {', '.join(SECTIONS)}.")
            elif not isinstance(items, list):
                self.wrong(path, "must be a list.")
            else:
                each = (self.item(PackageFile, item, f"{path}[{n}]") for n, item in enumerate(items))
                packages[section] = _sorted(item for item in each if item is not None)
        return Lock(made=made, k3s=k3s, packages=packages, extra=top)

    def k3s(self, content: Any) -> RuntimeLock:
        part = self.mapping(content, "k3s")
        version = self.scalar(part.pop("version", None), "k3s.version", "version")
        read = {
            str(arch): self.item(LockedFile, item, f"k3s.files.{arch}")
            for arch, item in self.mapping(part.pop("files", {}), "k3s.files").items()
        }
        for key in part:
            self.wrong(f"k3s.{key}", "unknown key.")
        files = {arch: file for arch, file in read.items() if file is not None}
        return RuntimeLock(version=version, files=files)

    def item(self, kind: type[_T], content: Any, path: str) -> _T | None:
        """A flat record of texts: every field of `kind` and no others."""
        before = len(self.problems)
        part = self.mapping(content, path)
        names = [each.name for each in fields(kind)]
        values = {name: self.scalar(part.pop(name, None), f"{path}.{name}", name) for name in names}
        for key in part:
            self.wrong(f"{path}.{key}", "unknown key.")
        return kind(**values) if len(self.problems) == before else None

    def mapping(self, content: Any, path: str) -> dict[str, Any]:
        if not isinstance(content, dict):
            self.wrong(path, "must be a mapping.")
            return {}
        for key in content:
            if not isinstance(key, str):
                self.wrong(path, f"has the key {key!r}, which is no text.")
        return {key: value for key, value in content.items() if isinstance(key, str)}

    def scalar(self, value: Any, path: str, kind: str) -> str:
        shape, words = _SHAPES.get(kind, _ANY)
        if not isinstance(value, str) or shape.fullmatch(value) is None:
            self.wrong(path, f"must be {words}, but it is {value!r}." if value is not None else "is missing.")
            return ""
        return value

    def wrong(self, path: str, what: str) -> None:
        line = self.lines.get(path, 0)
        above = path
        while not line and above:
            above = above.rpartition(".")[0]
            line = self.lines.get(above, 0)
        self.problems.append(Problem(file=self.file, line=line, path=path, what=what, hint=_ANEW))
