"""YAML files to a `Profile`, or to every problem of them.

`examine` reads and reports; `load` is what builds a profile and raises. The text of each file becomes
a tree with places (`source`), trees of parents and `--set` are merged (`merge`), the tree is read as the
dataclasses say (`kinds`, `tables`), and rules about several keys follow (`check`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from k3img.errors import Problem, ProfileError
from k3img.node.model import Role
from k3img.profile import check, rules, secrets
from k3img.profile.kinds import is_null
from k3img.profile.merge import merge, override
from k3img.profile.model import Profile
from k3img.profile.sink import Sink, suggest
from k3img.profile.source import DEFAULT, Items, Scalar, Stop, Table, Value, parse, purpose, read_text
from k3img.profile.tables import Section, section

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k3img.tree import Tree

MAX_FILES = 16
"""Files that one profile may be made of."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A profile that can be built. `origins` has `file:line` (or `--set`) for each dotted path given."""

    profile: Profile
    origins: Mapping[str, str]
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What is known of a profile, whether it is right or wrong.

    `part` is a file without a target: others extend it, it is no profile of its own. Without errors in
    `problems` the profile is usable.
    """

    profile: Profile | None
    origins: Mapping[str, str]
    problems: tuple[Problem, ...]
    part: bool = False

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that are no mere warnings."""
        return tuple(problem for problem in self.problems if not problem.warning)


def load(path: Path, tree: Tree, overrides: Iterable[tuple[str, str]] = ()) -> Loaded:
    """The profile in a file, with `--set` overrides as pairs of dotted key and YAML value.

    Raises `ProfileError` with every problem of the file and of those that it extends.
    """
    found = examine(path, tree, overrides)
    errors = list(found.errors)
    if found.part:
        errors.append(Problem(
            file=shown_path(path, tree), line=1, path="target", what="is missing.",
            hint="Files without it are only for extends; write target: {arch: x86-64} to build this one.",
        ))  # fmt: skip
    if errors or found.profile is None:
        raise ProfileError(errors)
    warnings = tuple(problem for problem in found.problems if problem.warning)
    return Loaded(profile=found.profile, origins=found.origins, warnings=warnings)


def examine(path: Path, tree: Tree, overrides: Iterable[tuple[str, str]] = ()) -> Examined:
    """Read a profile, or a part of one, and report all that is wrong with it."""
    shown = shown_path(path, tree)
    sink = Sink(shown)
    files = _Files(tree, sink)
    root = files.resolve(path, shown)
    if root is None:
        return Examined(profile=None, origins={}, problems=_sorted(sink))
    for dotted, text in overrides:
        over = override(dotted, text, sink)
        root = merge(root, over, sink) if over else root
    part = "target" not in root.entries and not sink.incomplete
    root = _with_names(root, path.name.removesuffix(".yaml").removesuffix(".yml"))
    secrets.find(root, sink)
    format_ = section(Profile)
    sink.homes = _homes(format_)
    profile: Profile = format_.read(root, "", sink, purpose=files.purpose, file=path, extends=files.extends)
    profile = _with_initializer(profile)
    check.check(profile, tree, sink, part=part)
    origins = {dotted: str(origin) for dotted, origin in sink.origins.items() if origin is not DEFAULT}
    return Examined(profile=profile, origins=origins, problems=_sorted(sink), part=part)


def shown_path(path: Path, tree: Tree) -> str:
    """How messages name a file: from the project's folder if it lies in there, else as given."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow symbolic links
    root = Path(os.path.abspath(tree.root))  # noqa: PTH100
    return str(absolute.relative_to(root)) if absolute.is_relative_to(root) else str(path)


def names(folder: Path) -> list[str]:
    """The names of the profiles, and parts of profiles, in a folder."""
    return sorted(
        file.stem for file in folder.glob("*.yaml") if not file.name.endswith(".lock.yaml") and file.is_file()
    )


def _sorted(sink: Sink) -> tuple[Problem, ...]:
    return tuple(sorted(set(sink.problems)))


class _Files:
    """Reads a profile's file and those it extends, each once."""

    def __init__(self, tree: Tree, sink: Sink) -> None:
        self.tree = tree
        self.sink = sink
        self.trees: dict[Path, Table | None] = {}
        self.purpose = ""
        self.extends: tuple[str, ...] = ()

    def resolve(self, path: Path, shown: str, above: tuple[Path, ...] = ()) -> Table | None:
        """The tree of a file over those of its parents; None after reporting why there is none."""
        if path in self.trees:
            return self.trees[path]
        self.trees[path] = None
        own = self._read(path, shown, first=not above)
        if own is None:
            return None
        parents = self._parents(own, shown)
        if not above:
            self.extends = tuple(parent.text for parent in parents)
        result = Table(origin=own.origin)
        for parent in parents:
            inherited = self._parent(parent, path, (*above, path))
            if inherited is not None:
                result = merge(result, _without(inherited, "name"), self.sink)
        result = self.trees[path] = merge(result, _without(own, "extends"), self.sink)
        return result

    def _read(self, path: Path, shown: str, *, first: bool) -> Table | None:
        try:
            text = read_text(path, shown)
            if first:
                self.purpose = purpose(text)
            value, problems = parse(text, shown)
        except Stop as stop:
            self.sink.problems.append(stop.problem)
            self.sink.incomplete = True
            return None
        self.sink.problems += problems
        if isinstance(value, Table):
            return value
        what = "is empty." if is_null(value) else "is no mapping."
        hint = "A profile is made of lines such as 'key: value': see `k3img schema`."
        line = 0 if is_null(value) else value.origin.line
        self.sink.incomplete = True
        self.sink.problems.append(Problem(file=shown, line=line, path="", what=what, hint=hint))
        return None

    def _parents(self, own: Table, shown: str) -> list[Scalar]:
        value = own.entries.get("extends")
        if value is None:
            return []
        values: tuple[Value, ...] = value.values if isinstance(value, Items) else (value,)
        good = [item for item in values if isinstance(item, Scalar) and not rules.overlay(item.text)]
        if len(good) < len(values):
            self.sink.incomplete = True
            line = own.keys["extends"].line
            what, hint = "takes the names of profiles.", "Write one such as base, or a list of them."
            self.sink.problems.append(Problem(file=shown, line=line, path="extends", what=what, hint=hint))
        return good

    def _parent(self, name: Scalar, child: Path, above: tuple[Path, ...]) -> Table | None:
        path = child.parent / f"{name.text}.yaml"
        if path in above:
            chain = " -> ".join(file.stem for file in (*above[above.index(path) :], path))
            self._problem(name, f"goes in a circle: {chain}.", "Remove one of these extends.")
            return None
        if not path.exists():
            hint = suggest(name.text, [other for other in names(child.parent) if other != child.stem])
            self._problem(name, f"there is no {path.name} beside this file.", hint)
            return None
        if len(self.trees) >= MAX_FILES and path not in self.trees:
            self._problem(name, f"a profile is made of {MAX_FILES} files at most.", "Merge some of them.")
            return None
        return self.resolve(path, shown_path(path, self.tree), above)

    def _problem(self, name: Scalar, what: str, hint: str) -> None:
        self.sink.incomplete = True
        place = name.origin
        self.sink.problems.append(
            Problem(file=place.file, line=place.line, path="extends", what=what, hint=hint)
        )


def _without(table: Table, *names: str) -> Table:
    entries = {name: value for name, value in table.entries.items() if name not in names}
    return Table(entries=entries, keys=table.keys, origin=table.origin)


def _with_names(root: Table, stem: str) -> Table:
    """The names that need not be written: the profile is called as its file, the cluster as the profile."""

    def default(table: Table, name: str, value: Value) -> Table:
        entries, keys = {name: value, **table.entries}, {name: DEFAULT, **table.keys}
        return Table(entries=entries, keys=keys, origin=table.origin)

    root = default(root, "name", Scalar(text=stem, origin=DEFAULT))
    root = default(root, "cluster", Table(origin=DEFAULT))
    name, cluster = root.entries["name"], root.entries["cluster"]
    if isinstance(cluster, Table):
        fine = isinstance(name, Scalar) and not rules.profile_name(name.text)
        called = Scalar(text=name.text if fine and isinstance(name, Scalar) else "default", origin=DEFAULT)
        entries = {**root.entries, "cluster": default(cluster, "name", called)}
        root = Table(entries=entries, keys=root.keys, origin=root.origin)
    return root


def _with_initializer(profile: Profile) -> Profile:
    """An only server is the initializer, whether the file says so or not."""
    cluster = profile.cluster
    servers = [node for node in cluster.nodes if node.role is Role.SERVER]
    if len(servers) != 1:
        return profile
    nodes = tuple(replace(node, initializer=True) if node in servers else node for node in cluster.nodes)
    return replace(profile, cluster=replace(cluster, nodes=nodes))


def _homes(root: Section) -> dict[str, str]:
    """Where each key of a section belongs, for a key written at the wrong level."""
    homes: dict[str, str] = {}
    for name, known in root.keys.items():
        for inner in known.kind.keys if isinstance(known.kind, Section) else ():
            homes.setdefault(inner, f"{name}.{inner}")
        homes.setdefault(name, name)
    return homes
