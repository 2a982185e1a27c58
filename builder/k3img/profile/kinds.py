"""Kinds of single values: how one is read from YAML, shown as YAML, and described in the JSON schema.

The dataclasses of `k3img.profile.model` name a kind for each field; that is the whole description of
the format. Reading never raises: what is wrong goes to the `Sink`, and `BAD` is returned. Lists and
mappings are in `k3img.profile.tables`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3img.node.check import Fault
from k3img.profile.sink import suggest
from k3img.profile.source import COMMAND_LINE, Items, Scalar, guessed, quote, yaml_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from enum import StrEnum

    from k3img.profile.sink import Sink
    from k3img.profile.source import Value

BAD: Any = object()
"""What reading returns for a value that cannot be used; the problem is in the sink."""

MIB = 1 << 20


def is_null(value: Value) -> bool:
    """Whether nothing was written, or `null`."""
    return isinstance(value, Scalar) and value.plain and yaml_type(value.text) == "null"


class Wrong(Exception):  # noqa: N818 - carries a Fault out of a conversion
    """A scalar that is not what its kind wants."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.fault = Fault(what, hint)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of value. `blank` stands in for a required value that is missing or bad."""

    blank: Any = ""

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """The Python value, or `BAD` after reporting why not."""
        raise NotImplementedError

    def show(self, data: Any) -> Any:
        """The value as plain YAML data, as `read` would take it."""
        return data

    def schema(self) -> dict[str, Any]:
        """The JSON schema of such values."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OneLine(Kind):
    """A kind that is written as a scalar. `wanted` is how messages call it."""

    wanted: str = "a text"

    def wants(self) -> str:
        """How messages call such a value."""
        return self.wanted

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """Refuse lists and mappings, convert the rest."""
        if not isinstance(value, Scalar):
            shape = "a list" if isinstance(value, Items) else "a mapping"
            sink.problem(path, f"is {shape}, {self.wants()} is wanted here")
            return BAD
        if is_null(value):
            sink.problem(path, "has no value", f"Write {self.wants()}, or remove the line.")
            return BAD
        try:
            return self.convert(value)
        except Wrong as wrong:
            sink.fault(path, wrong.fault)
            return BAD

    def convert(self, value: Scalar) -> Any:
        """The Python value. Raises `Wrong`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Text(OneLine):
    """A text: any, or one with a `pattern` (it is `says`), or one that a `rule` finds no fault with.

    With a rule the pattern is for the JSON schema alone: the rule has the better words.
    """

    pattern: str = ""
    says: str = ""
    rule: Callable[[str], Fault | None] | None = None

    def convert(self, value: Scalar) -> str:
        """The text as written; what YAML would turn into something else must be quoted."""
        text = value.text
        if value.plain and value.origin is not COMMAND_LINE and (guess := guessed(text)):
            raise Wrong(
                f"{text} {guess} in YAML, {self.wanted} is wanted here", f"Write it in quotes: {quote(text)}"
            )
        fault = self.rule(text) if self.rule else None
        if self.pattern and not self.rule and not re.fullmatch(self.pattern, text):
            fault = Fault(f"{text!r} is not {self.says}")
        if fault:
            raise Wrong(*fault)
        return text

    def schema(self) -> dict[str, Any]:
        """A string, with the pattern if there is one."""
        return {"type": "string"} | ({"pattern": f"^(?:{self.pattern})$"} if self.pattern else {})


@dataclass(frozen=True, kw_only=True)
class Choice(OneLine):
    """One of the words of an enum."""

    of: type[StrEnum]

    def wants(self) -> str:
        """All the words."""
        return f"one of {', '.join(self.of)}"

    def convert(self, value: Scalar) -> StrEnum:
        """The member of the enum."""
        if value.text not in [*self.of]:
            raise Wrong(f"{value.text!r} is none of {', '.join(self.of)}", suggest(value.text, self.of))
        return self.of(value.text)

    def show(self, data: Any) -> Any:
        """The word."""
        return str(data)

    def schema(self) -> dict[str, Any]:
        """An enumeration."""
        return {"type": "string", "enum": [str(word) for word in self.of]}


@dataclass(frozen=True, kw_only=True)
class Flag(OneLine):
    """True or false."""

    wanted: str = "true or false"

    def convert(self, value: Scalar) -> bool:
        """Only `true` and `false`: YAML 1.2, which editors follow, takes `yes` for a text."""
        if value.plain and value.text in {"true", "false"}:
            return value.text == "true"
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        hint = words.get(value.text.lower(), "true or false, without quotes")
        raise Wrong(f"{value.text!r} is neither true nor false", f"Write {hint}.")

    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class Integer(OneLine):
    """A whole number in decimal, within bounds."""

    wanted: str = "a whole number"
    low: int = 0
    high: int = 2**31 - 1

    def convert(self, value: Scalar) -> int:
        """The number; octal, hexadecimal and other spellings of YAML are refused."""
        if not value.plain or not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value.text):
            guess = guessed(value.text) if value.plain else ""
            raise Wrong(
                f"{value.text!r} {guess or 'is no whole number'}", "Write a decimal number such as 10."
            )
        number = int(value.text)
        if not self.low <= number <= self.high:
            raise Wrong(f"{number} is not from {self.low} to {self.high}")
        return number

    def schema(self) -> dict[str, Any]:
        """An integer with its bounds."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, kw_only=True)
class Size(OneLine):
    """A size such as `512 MiB`, in bytes once read; at least `low`."""

    wanted: str = 'a size such as "512 MiB"'
    low: int = MIB

    def convert(self, value: Scalar) -> int:
        """Bytes, always whole MiB."""
        match = re.fullmatch(r"([1-9][0-9]{0,5}) ?(MiB|GiB)", value.text)
        if not match:
            raise Wrong(f"{value.text!r} is no size", 'Write whole MiB or GiB, such as "512 MiB" or "1 GiB".')
        size = int(match[1]) * (MIB if match[2] == "MiB" else 1024 * MIB)
        if size < self.low:
            raise Wrong(f"{value.text} is too small", f"{self.show(self.low)} is the least.")
        return size

    def show(self, data: Any) -> Any:
        """In GiB where that is whole, else in MiB."""
        whole, rest = divmod(data, 1024 * MIB)
        return f"{data // MIB} MiB" if rest else f"{whole} GiB"

    def schema(self) -> dict[str, Any]:
        """A string with a unit."""
        return {"type": "string", "pattern": "^[1-9][0-9]{0,5} ?(MiB|GiB)$"}
