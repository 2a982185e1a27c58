"""YAML text to a tree of values that know where they stand.

PyYAML's loader forgets lines, takes the last of two equal keys and turns `on:` into True, so only its
parser is used: its events become `Scalar`, `Items` and `Table`. Whatever a file holds, the answer is a
tree or `Problem`s, and it comes quickly: size, depth and the number of expanded values are limited.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from k3img.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_BYTES = 1_000_000
MAX_DEPTH = 24
MAX_VALUES = 50_000
"""Values of one file with all aliases expanded; a profile of a thousand nodes has about 20 000."""

# What YAML allows in a file (YAML 1.1 section 5.1); anything else is a binary file or a broken editor.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a value was written: `file` as shown to the user, `line` from 1; 0 when there is none."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        """`file:line`, or the file alone."""
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Origin(file="--set")
DEFAULT = Origin(file="default")


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A text as written. `plain` is one without quotes, whose type YAML guesses."""

    text: str
    plain: bool = False
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list."""

    values: tuple[Value, ...]
    origin: Origin


@dataclass(frozen=True, kw_only=True)
class Table:
    """A mapping. `keys` has the place of each key."""

    entries: Mapping[str, Value] = field(default_factory=dict)
    keys: Mapping[str, Origin] = field(default_factory=dict)
    origin: Origin


Value = Scalar | Items | Table


class Stop(Exception):  # noqa: N818 - it carries the one problem after which reading makes no sense
    """The text cannot be read any further."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _stop(shown: str, line: int, what: str, hint: str = "") -> Stop:
    return Stop(Problem(file=shown, line=line, path="", what=tidy(what), hint=tidy(hint)))


def read_text(path: Path, shown: str) -> str:
    """The text of a profile's file. Raises `Stop` for whatever is not a small UTF-8 text file."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise _stop(
                shown, 0, "is a folder." if path.is_dir() else "is not a regular file.", "Name a YAML file."
            )
        if about.st_size > MAX_BYTES:
            raise _stop(
                shown, 0, f"has {about.st_size} bytes; a profile has at most {MAX_BYTES}.", "Is it a profile?"
            )
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise _stop(shown, 0, f"cannot be read: {reason}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _stop(shown, 0, "is UTF-16, not UTF-8.", "Save it as UTF-8.")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8."
        raise _stop(shown, line, what, "Save the file as UTF-8.") from None
    return text


def parse(text: str, shown: str, origin: Origin | None = None) -> tuple[Value, list[Problem]]:
    """The tree of a YAML text and what is wrong with its keys and tags.

    `origin` replaces the place of every value (for `--set`). Raises `Stop` when there is no tree.
    """
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        what = f"holds the character U+{ord(bad[0]):04X}, which is no text."
        raise _stop(shown, line, what, "Is it a text file?")
    builder = _Builder(shown, origin)
    return builder.document(_events(text, shown)), builder.problems


def purpose(text: str) -> str:
    """The first comment line of a file, without its `#`."""
    comment = re.search(r"^#+[ \t]*(\S.*)$", text, re.MULTILINE)
    return comment[1].strip() if comment else ""


def _events(text: str, shown: str) -> Iterator[yaml.Event]:
    """PyYAML's events; its errors, and the Python errors that odd input makes it raise, become `Stop`."""
    line = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = _line(event)
            yield event
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem)))
        tab = mark and mark.buffer is not None and mark.buffer[mark.pointer : mark.pointer + 1] == "\t"
        hint = "Use spaces instead of tabs." if tab else ""
        raise _stop(shown, mark.line + 1 if mark else line, f"is no YAML: {what}.", hint) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as "\UFFFFFFFF"
        raise _stop(shown, line, "is no YAML: it has an escape that is no character.") from error


def _line(event: yaml.Event) -> int:
    """The line where an event begins, from 1."""
    return event.start_mark.line + 1 if event.start_mark else 0


class _Builder:
    """Makes values of events, and keeps count of what aliases multiply."""

    def __init__(self, shown: str, origin: Origin | None) -> None:
        self.shown = shown
        self.origin = origin
        self.problems: list[Problem] = []
        self.values = 0
        # Each anchor's value, how many values it stands for, and how deep it is.
        self.anchors: dict[str, tuple[Value, int, int]] = {}
        self.open_anchors: set[str] = set()
        self.deepest = 0

    def document(self, events: Iterator[yaml.Event]) -> Value:
        """The value of the only document."""
        next(events)  # StreamStart
        if not isinstance(next(events), yaml.DocumentStartEvent):
            raise self._stop("is empty.", "A profile needs at least a target: see `k3img schema`.", 0)
        value = self._value(next(events), events, 0)
        next(events)  # DocumentEnd
        after = next(events)
        if isinstance(after, yaml.DocumentStartEvent):
            hint = "Put one profile in one file, without a second '---' line."
            raise self._stop("has several documents.", hint, _line(after))
        return value

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Value:
        line = _line(event)
        self._count(1, depth, line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth, line)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)  # by the parser's grammar
        self._refuse_tag(event, line)
        before, deepest_before = self.values, self.deepest
        self.deepest = depth
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        value: Value
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._items(events, depth, line)
        else:
            value = self._table(events, depth, line)
        if event.anchor is not None:
            self.anchors[event.anchor] = value, self.values - before, self.deepest - depth
            self.open_anchors.discard(event.anchor)
        self.deepest = max(self.deepest, deepest_before)
        return value

    def _alias(self, event: yaml.AliasEvent, depth: int, line: int) -> Value:
        if event.anchor in self.open_anchors:
            raise self._stop(f"*{event.anchor} refers to itself.", "Write the value out.", line)
        if event.anchor not in self.anchors:
            raise self._stop(
                f"*{event.anchor} refers to nothing.", f"Define &{event.anchor} before it.", line
            )
        value, count, height = self.anchors[event.anchor]
        self._count(count, depth + height, line)
        return value

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        if _SURROGATE.search(event.value):
            raise self._stop("has an escape that is no character.", "", line)
        return Scalar(text=event.value, plain=event.style is None, origin=self._at(line))

    def _items(self, events: Iterator[yaml.Event], depth: int, line: int) -> Items:
        values = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            values.append(self._value(event, events, depth + 1))
        return Items(values=tuple(values), origin=self._at(line))

    def _table(self, events: Iterator[yaml.Event], depth: int, line: int) -> Table:
        entries: dict[str, Value] = {}
        keys: dict[str, Origin] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            at = _line(event)
            key = self._value(event, events, depth + 1)
            value = self._value(next(events), events, depth + 1)
            if not isinstance(key, Scalar):
                self._problem("a key must be a text, not a list or a mapping.", "", at)
            elif key.text == "<<" and key.plain:
                self._problem("merge keys (<<) are not supported.", "Use extends, or repeat the keys.", at)
            elif key.text in entries:
                first = f"line {keys[key.text].line}" if keys[key.text].line else "the same --set"
                self._problem(f"the key {key.text} was already given on {first}.", "Remove one of them.", at)
            elif key.plain and (guess := guessed(key.text)):
                what = f"the key {key.text or '(empty)'} {guess} in YAML."
                self._problem(what, f"Write it in quotes: {quote(key.text)}", at)
            else:
                entries[key.text], keys[key.text] = value, self._at(at)
        return Table(entries=entries, keys=keys, origin=self._at(line))

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._problem(f"the tag {tag} is not supported.", "Remove it; quotes make a text.", line)

    def _count(self, values: int, depth: int, line: int) -> None:
        self.values += values
        self.deepest = max(self.deepest, depth)
        if self.values > MAX_VALUES:
            hint = "Each use of an alias (*name) counts in full."
            raise self._stop(f"has more than {MAX_VALUES} values.", hint, line)
        if depth > MAX_DEPTH:
            raise self._stop(f"is nested more than {MAX_DEPTH} deep.", "A profile needs 6.", line)

    def _at(self, line: int) -> Origin:
        return self.origin or Origin(file=self.shown, line=line)

    def _problem(self, what: str, hint: str, line: int) -> None:
        self.problems.append(self._stop(what, hint, line).problem)

    def _stop(self, what: str, hint: str, line: int) -> Stop:
        return _stop(self.shown, 0 if self.origin else line, what, hint)


def tidy(text: str) -> str:
    """A text for a message: on one line, without control characters, long words and texts cut."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    text = re.sub(r"\S{80,}", lambda word: f"{word[0][:40]}...", text)
    return text if len(text) <= 400 else f"{text[:400]} ..."


def quote(text: str) -> str:
    """A text as a quoted YAML scalar."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def yaml_type(text: str) -> str:
    """What YAML 1.1 takes a plain scalar for: `str`, `int`, `float`, `bool`, `null`, `timestamp` ..."""
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in [*resolvers.get(text[:1], []), *resolvers.get(None, [])]:
        if pattern.match(text):
            return str(tag).rpartition(":")[2]
    return "str"


def guessed(text: str) -> str:
    """What YAML makes of a plain scalar that looks like a text: `is the number 1.3`; empty if a text."""
    kind = yaml_type(text)
    match kind:
        case "str":
            return ""
        case "bool":
            return "is true" if text.lower() in {"yes", "on", "true"} else "is false"
        case "null":
            return "is nothing"
        case "timestamp":
            return "is a date"
        case "int" | "float":
            number = _number(text, kind)
            return f"is the number {number}" if number and number != text else "is a number"
        case _:
            return f"is special ({kind})"


def _number(text: str, kind: str) -> str:
    """What PyYAML reads, if that is short enough to show: 010 is 8, 1.30 is 1.3, 11:22 is 682."""
    if len(text) > 20:
        return ""
    constructor = yaml.constructor.SafeConstructor()
    read = constructor.construct_yaml_int if kind == "int" else constructor.construct_yaml_float
    try:
        return str(read(yaml.ScalarNode(tag=f"tag:yaml.org,2002:{kind}", value=text)))
    except (ValueError, OverflowError):
        return ""
