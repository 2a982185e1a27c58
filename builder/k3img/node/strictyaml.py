"""YAML read strictly: every value comes with its line, and what YAML would quietly change is a problem.

Refused: a key given twice, keys that are no text, aliases (a few lines of them fill any memory), deep
nesting, more than a megabyte. A `Reader` collects the problems of one file, so that all are told at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from k3img.errors import Problem, ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k3img.node.check import Fault

MAX_BYTES = 1 << 20
MAX_DEPTH = 24

_TAG = "tag:yaml.org,2002:"
# Plain scalars that YAML 1.1 takes for something else than the text one sees.
_SURPRISES = {
    "bool": "true or false",
    "null": "nothing",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's composer without aliases, and with a limit to nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "it is nested too deeply", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def compose(data: bytes, file: str) -> yaml.Node:
    """The document in a file, as PyYAML's nodes.

    A byte order mark and Windows line ends are fine. Raises `ProfileError` with one problem when the
    bytes are no single YAML document.
    """
    if len(data) > MAX_BYTES:
        raise ProfileError(
            [Problem(file=file, line=0, path="", what=f"has {len(data)} bytes, 1 MiB is allowed")]
        )
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        hint = "Save it as UTF-8 (in Notepad: Save as, Encoding)."
        raise ProfileError(
            [Problem(file=file, line=line, path="", what="is not UTF-8.", hint=hint)]
        ) from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise ProfileError([_syntax(error, file)]) from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        raise ProfileError([Problem(file=file, line=0, path="", what="is empty")])
    return node


def _syntax(error: yaml.YAMLError, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "is no YAML"
    hint = "Use spaces: a tab cannot indent YAML." if "'\\t'" in str(what) else ""
    return Problem(
        file=file, line=mark.line + 1 if mark else 0, path="", what=f"is no YAML: {what}", hint=hint
    )


class Reader:
    """Reads typed values out of a composed file and collects what is wrong."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._lines: dict[str, int] = {}

    def fault(self, path: str, what: str, hint: str = "", *, line: int | None = None) -> None:
        """Note a problem; its line is that of `path`, or of the nearest key above it, unless given."""
        what = f"{what.rstrip('.')}." if hint else what
        self.problems.append(
            Problem(
                file=self.file,
                line=self.line(path) if line is None else line,
                path=path,
                what=what,
                hint=hint,
            )
        )

    def line(self, path: str) -> int:
        """The line that `path` was read at."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return 0

    def check(self, faults: Iterable[tuple[str, Fault]], below: str = "") -> None:
        """Note what the functions of `k3img.node.check` found, unless that place is reported already."""
        told = {problem.path for problem in self.problems}
        for key, fault in faults:
            if below + key not in told:
                self.fault(below + key, fault.what, fault.hint)

    def at(self, node: yaml.Node, path: str) -> None:
        """Remember the line of a value."""
        self._lines[path] = node.start_mark.line + 1

    def mapping(self, node: yaml.Node, path: str, known: Iterable[str] | None = None) -> dict[str, yaml.Node]:
        """The entries of a mapping; with `known`, other keys are problems. A null value counts as absent."""
        if path:
            self.at(node, path)
        if not isinstance(node, yaml.MappingNode):
            if not _is_null(node):
                self.fault(path, f"must be a list of `key: value`, not {_seen(node)}", line=_line(node))
            return {}
        found: dict[str, yaml.Node] = {}
        names = None if known is None else tuple(known)
        for key, value in node.value:
            name = self._key(key, path)
            if name is None:
                continue
            inner = f"{path}.{name}" if path else name
            if name in found:
                self.fault(
                    inner, f"is given twice, first on line {self.line(inner)}", "Remove one.", line=_line(key)
                )
                continue
            self._lines[inner] = _line(key)
            if names is not None and name not in names:
                self.fault(inner, "unknown key.", did_you_mean(name, names), line=_line(key))
                continue
            found[name] = value
        return {name: value for name, value in found.items() if names is None or not _is_null(value)}

    def _key(self, key: yaml.Node, path: str) -> str | None:
        if not isinstance(key, yaml.ScalarNode):
            self.fault(path, "a key must be one word", line=_line(key))
            return None
        kind = _surprise(key)
        if kind:
            inner = f"{path}.{key.value}" if path else key.value
            self.fault(inner, f"YAML reads this key as {kind}", f'Write "{key.value}".', line=_line(key))
            return None
        return str(key.value)

    def text(self, node: yaml.Node, path: str, *, lenient: bool = False) -> str | None:
        """A text. What YAML would take for a number, a date or true/false must be quoted, unless lenient."""
        self.at(node, path)
        if not isinstance(node, yaml.ScalarNode):
            self.fault(path, f"must be a text, not {_seen(node)}")
            return None
        kind = _surprise(node)
        if kind and not lenient:
            self.fault(
                path, f"YAML reads {node.value or 'an empty value'} as {kind}", f'Write "{node.value}".'
            )
            return None
        return str(node.value)

    def flag(self, node: yaml.Node, path: str) -> bool:
        """`true` or `false`, in these words."""
        self.at(node, path)
        if isinstance(node, yaml.ScalarNode) and not node.style and node.value in {"true", "false"}:
            return bool(node.value == "true")
        self.fault(path, f"must be true or false, not {_seen(node)}")
        return False

    def number(self, node: yaml.Node, path: str) -> int | None:
        """A whole number in decimal digits."""
        self.at(node, path)
        if isinstance(node, yaml.ScalarNode) and not node.style and node.value.lstrip("-").isdecimal():
            return int(node.value)
        self.fault(path, f"must be a whole number, not {_seen(node)}")
        return None

    def choice(self, node: yaml.Node, path: str, allowed: Iterable[str]) -> str | None:
        """One of a few words."""
        text = self.text(node, path)
        words = tuple(allowed)
        if text is None or text in words:
            return text
        self.fault(path, f"must be {' or '.join(words)}, not {text!r}.", did_you_mean(text, words))
        return None

    def texts(self, node: yaml.Node, path: str, *, lenient: bool = False) -> tuple[str, ...]:
        """A list of texts; a single one is a list of one."""
        self.at(node, path)
        if isinstance(node, yaml.ScalarNode):
            one = self.text(node, path, lenient=lenient)
            return () if one is None else (one,)
        if not isinstance(node, yaml.SequenceNode):
            self.fault(path, f"must be a list, not {_seen(node)}")
            return ()
        each = [self.text(item, f"{path}[{i}]", lenient=lenient) for i, item in enumerate(node.value)]
        return tuple(text for text in each if text is not None)

    def plain(self, node: yaml.Node, path: str) -> Any:
        """Any value, as JSON knows them: numbers stay numbers when their spelling survives."""
        self.at(node, path)
        if isinstance(node, yaml.MappingNode):
            return {k: self.plain(v, f"{path}.{k}") for k, v in self.mapping(node, path).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, f"{path}[{i}]") for i, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            return None
        value = str(node.value)
        if node.style:
            return value
        if value in {"true", "false"}:
            return value == "true"
        if _is_null(node):
            return None
        if value.lstrip("-").isdecimal() and str(int(value)) == value:
            return int(value)
        if kind := _surprise(node):
            self.fault(path, f"YAML reads {value} as {kind}", f'Write "{value}".')
        return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known word, or with all of them when none is near."""
    import difflib  # noqa: PLC0415 - slow under emulation, and only a mistake needs it

    names = sorted(known)
    if near := difflib.get_close_matches(word, names, n=1):
        return f"Did you mean {near[0]!r}?"
    return f"Known here: {', '.join(names)}."


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"


def _surprise(node: yaml.ScalarNode) -> str:
    """What a plain scalar would be read as, when that is no text; else empty."""
    return "" if node.style else _SURPRISES.get(node.tag.removeprefix(_TAG), "")


def _seen(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if node.value else "nothing"
    return "a list" if isinstance(node, yaml.SequenceNode) else "`key: value`"
