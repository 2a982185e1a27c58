"""One tree out of several: a profile over what it extends, and `--set` over both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from k3img.profile.kinds import is_null
from k3img.profile.source import COMMAND_LINE, Items, Stop, Table, Value, parse

if TYPE_CHECKING:
    from k3img.profile.sink import Sink


def merge(under: Table, over: Table, sink: Sink, path: str = "") -> Table:
    """`over` on `under`: mappings key by key, lists and scalars replace, `key+` appends to a list."""
    entries, keys = dict(under.entries), dict(under.keys)
    for written, value in over.entries.items():
        name = written.removesuffix("+")
        at = f"{path}.{name}" if path else name
        old = entries.get(name)
        if written == name:
            entries[name] = _replace(old, value, sink, at)
        elif name in over.entries:
            sink.origins[at] = over.keys[written]
            sink.problem(at, f"both {name} and {name}+ are given", "Write one of them.")
            continue
        else:
            sink.origins[at] = over.keys[written]
            entries[name] = _append(old, value, sink, at)
        keys[name] = over.keys[written]
    return Table(entries=entries, keys=keys, origin=over.origin)


def _replace(old: Value | None, value: Value, sink: Sink, path: str) -> Value:
    if not isinstance(value, Table):
        return value
    # Also without an old value: the keys below may end with `+`.
    under = old if isinstance(old, Table) else Table(origin=value.origin)
    return merge(under, value, sink, path)


def _append(old: Value | None, value: Value, sink: Sink, path: str) -> Value:
    if not isinstance(value, Items):
        sink.problem(path, "a key with + takes a list", "Write one as [a, b].")
        return value if old is None else old
    if old is None or is_null(old):
        return value
    if not isinstance(old, Items):
        sink.problem(path, f"cannot be appended to: it is no list in {old.origin}", "Write it without +.")
        return old
    return Items(values=(*old.values, *value.values), origin=value.origin)


def override(dotted: str, text: str, sink: Sink) -> Table | None:
    """The tree that one `--set key=value` stands for; the value is YAML, where a plain text is a text."""
    shown = f"--set {dotted}"
    try:
        value, problems = (
            parse(text, shown, COMMAND_LINE) if text.strip() else parse("null", shown, COMMAND_LINE)
        )
    except Stop as stop:
        sink.problems.append(replace(stop.problem, line=0))
        return None
    sink.problems += problems
    for name in reversed(dotted.split(".")):
        if not name.removesuffix("+"):
            sink.origins[dotted] = COMMAND_LINE
            sink.problem(dotted, "is no key", "Write --set key=value, such as --set image.compression=fast.")
            return None
        value = Table(entries={name: value}, keys={name: COMMAND_LINE}, origin=COMMAND_LINE)
    return value if isinstance(value, Table) else None
