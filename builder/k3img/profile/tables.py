"""Kinds of lists and mappings, and the keys that a dataclass describes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from k3img.node.model import EMPTY
from k3img.profile.kinds import BAD, Flag, Integer, Kind, Text, is_null
from k3img.profile.sink import suggest
from k3img.profile.source import DEFAULT, Items, Scalar, Table, yaml_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k3img.node.check import Fault
    from k3img.profile.sink import Sink
    from k3img.profile.source import Value


@dataclass(frozen=True, kw_only=True)
class ListOf(Kind):
    """A list of values of one kind, none of them twice; a tuple once read."""

    item: Kind
    blank: Any = ()

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """All that are good; each bad one is reported."""
        if not isinstance(value, Items):
            sink.problem(path, "is no list", "Write one as [a, b], or as lines that begin with '- '.")
            return BAD
        result: list[Any] = []
        for index, item in enumerate(value.values):
            at = f"{path}[{index}]"
            sink.origins[at] = item.origin
            data = self.item.read(item, at, sink)
            if data is not BAD and data in result:
                sink.problem(at, f"{self.item.show(data)} is listed twice", "Remove one of them.")
            elif data is not BAD:
                result.append(data)
                sink.items[path, str(data)] = at
        return tuple(result)

    def show(self, data: Any) -> Any:
        """A list."""
        return [self.item.show(item) for item in data]

    def schema(self) -> dict[str, Any]:
        """An array."""
        return {"type": "array", "items": self.item.schema(), "uniqueItems": True}


@dataclass(frozen=True, kw_only=True)
class MapOf(Kind):
    """A mapping with free keys; read-only once read. `key_rule` finds fault with keys."""

    item: Kind
    key_rule: Callable[[str], Fault | None] | None = None
    blank: Any = EMPTY

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """All entries that are good; each bad one is reported."""
        if not isinstance(value, Table):
            sink.problem(path, "is no mapping", "Write {} or lines such as 'key: value' below it.")
            return BAD
        result = {}
        for name, item in value.entries.items():
            at = f"{path}.{name}"
            sink.origins[at] = value.keys[name]
            if self.key_rule and (fault := self.key_rule(name)):
                sink.fault(at, fault)
            data = self.read_item(name, item, at, sink)
            if data is not BAD:
                result[name] = data
        return MappingProxyType(result)

    def read_item(self, name: str, item: Value, path: str, sink: Sink) -> Any:  # noqa: ARG002 - for children
        """Read the value of one key."""
        return self.item.read(item, path, sink)

    def show(self, data: Any) -> Any:
        """A mapping."""
        return {name: self.item.show(item) for name, item in data.items()}

    def schema(self) -> dict[str, Any]:
        """An object whose keys are free."""
        return {"type": "object", "additionalProperties": self.item.schema()}


@dataclass(frozen=True, kw_only=True)
class Free(Kind):
    """Plain data of somebody else's format, such as registries.yaml."""

    blank: Any = EMPTY

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """Dicts, lists, texts, booleans and decimal numbers; YAML's other guesses must be quoted."""
        sink.origins.setdefault(path, value.origin)
        if isinstance(value, Table):
            return dict(MapOf(item=self).read(value, path, sink))
        if isinstance(value, Items):
            return [self.read(item, f"{path}[{index}]", sink) for index, item in enumerate(value.values)]
        return _free_kind(value).read(value, path, sink)

    def schema(self) -> dict[str, Any]:
        """Anything."""
        return {}


def _free_kind(value: Scalar) -> Kind:
    """What a scalar of somebody else's format may be; octal and other odd numbers are texts to quote."""
    if value.plain and yaml_type(value.text) == "bool":
        return Flag()
    return Integer() if value.plain and value.text.isdecimal() and value.text[:1] != "0" else Text()


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a mapping in the format: its kind, what it is for, and its default (`BAD`: required)."""

    kind: Kind
    doc: str
    default: Any = BAD


def key(kind: Kind, doc: str) -> Mapping[str, Any]:
    """The metadata of a dataclass field that is a key of the format, spelled with `-` for `_`."""
    return {"kind": kind, "doc": doc}


def keys_of(cls: type) -> dict[str, Key]:
    """The keys that a dataclass describes."""
    found = {}
    for item in dataclasses.fields(cls):
        if "kind" in item.metadata:
            found[item.name.replace("_", "-")] = Key(default=default_of(item), **item.metadata)
    return found


def default_of(item: dataclasses.Field[Any]) -> Any:
    """A field's default, or `BAD` when it has none."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return BAD if item.default is dataclasses.MISSING else item.default


@dataclass(frozen=True, kw_only=True)
class Section(Kind):
    """A mapping with known keys; `make` builds the Python value from them."""

    make: Callable[..., Any]
    keys: Mapping[str, Key] = field(default_factory=dict)

    def read(self, value: Value, path: str, sink: Sink, **more: Any) -> Any:
        """The value, with blanks for what is bad. `more` are arguments of `make` that are no keys."""
        if not isinstance(value, Table):
            hint = "Write {} or lines such as 'key: value' below it."
            sink.problem(path, "has no value" if is_null(value) else "is no mapping", hint)
            return BAD
        prefix = f"{path}." if path else ""
        for name in value.entries:
            sink.origins[prefix + name] = value.keys[name]
            if name not in self.keys:
                self._unknown(name, prefix + name, sink)
        return self.make(**more, **{
            name.replace("-", "_"): self._entry(name, value.entries.get(name), prefix + name, sink)
            for name in self.keys
        })  # fmt: skip

    def _entry(self, name: str, value: Value | None, path: str, sink: Sink) -> Any:
        known = self.keys[name]
        if value is None and known.default is not BAD:
            return known.default
        if value is None and isinstance(known.kind, Section):
            value = Table(origin=DEFAULT)  # what it lacks is what the user has to write
        if value is None:
            if not sink.incomplete:
                sink.problem(path, "is missing", f"It is {known.doc[0].lower()}{known.doc[1:]}")
            return known.kind.blank
        if known.default is None and is_null(value):
            return None
        data = known.kind.read(value, path, sink)
        if data is not BAD:
            return data
        return known.kind.blank if known.default is BAD else known.default

    def _unknown(self, name: str, path: str, sink: Sink) -> None:
        home = sink.homes.get(name)
        hint = suggest(name, self.keys) or (f"Perhaps you meant {home}." if home else "")
        sink.problem(path, "unknown key", hint or f"Known are {', '.join(self.keys)}.")

    def show(self, data: Any) -> Any:
        """All keys with their values."""
        shown = {}
        for name, known in self.keys.items():
            item = getattr(data, name.replace("-", "_"))
            shown[name] = None if item is None else known.kind.show(item)
        return shown

    def schema(self) -> dict[str, Any]:
        """An object with these keys only; lists also as `key+`, which appends to the inherited list."""
        properties: dict[str, Any] = {}
        for name, known in self.keys.items():
            about = {"description": known.doc} | known.kind.schema()
            if known.default is None:
                about = {"description": known.doc, "anyOf": [known.kind.schema(), {"type": "null"}]}
            elif known.default is not BAD and not isinstance(known.kind, Section):
                about["default"] = known.kind.show(known.default)
            properties[name] = about
            if isinstance(known.kind, ListOf):
                properties[f"{name}+"] = known.kind.schema() | {"description": f"Appended to {name}."}
        return {"type": "object", "properties": properties, "additionalProperties": False}


def section(cls: type) -> Section:
    """The section that a dataclass describes."""
    known = keys_of(cls)
    # Not `make=cls(...)` at once: a blank of a class with required fields is made of their blanks.
    blanks = {name.replace("-", "_"): k.kind.blank for name, k in known.items() if k.default is BAD}
    required = {f.name for f in dataclasses.fields(cls) if default_of(f) is BAD}
    blank = cls(**blanks) if required <= blanks.keys() else None
    return Section(make=cls, keys=known, blank=blank)
