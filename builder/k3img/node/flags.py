"""The options of k3s per role, for the versions that k3img knows.

An agent dies of an option that is not its own ("flag provided but not defined"), a server only warns;
so every option is checked before it reaches a node (facts: k3s 2.1 to 2.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

from k3img.node.check import OWNED_OPTIONS, Fault
from k3img.node.flags_v1_36 import TABLE as V1_36

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TABLES = {"v1.36": V1_36}
"""Texts of the tables by minor version."""

NEWEST = [*TABLES][-1]

DURATION = r"([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+"
"""How Go writes durations, such as 10m or 1h30m."""


class FlagKind(StrEnum):
    """What an option takes. A list may also be given as a single text."""

    BOOL = "bool"
    TEXT = "text"
    INTEGER = "integer"
    DURATION = "duration"
    LIST = "list"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One option by its long name. `equal`: all servers of a cluster must have the same value."""

    name: str
    kind: FlagKind
    server_only: bool = False
    equal: bool = False


def known(version: str) -> bool:
    """Whether the options of this version of k3s are known; else `table` gives the newest known."""
    return _minor(version) in TABLES


def table(version: str) -> Mapping[str, Flag]:
    """The options of a k3s version by name."""
    return _parse(TABLES.get(_minor(version), TABLES[NEWEST]))


def newest() -> Mapping[str, Flag]:
    """The options of the newest version that is known."""
    return _parse(TABLES[NEWEST])


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@cache
def _parse(text: str) -> Mapping[str, Flag]:
    """Lines of `name kind role [equal]`."""
    flags = {}
    for line in text.strip().splitlines():
        name, kind, role, *equal = line.split()
        flags[name] = Flag(name=name, kind=FlagKind(kind), server_only=role == "server", equal=bool(equal))
    return flags


def fault(name: str, value: Any, version: str, *, agent: bool) -> Fault | None:
    """What is wrong with an option and its value, for an agent (or for every node), or for a server."""
    flags = table(version)
    if name in OWNED_OPTIONS:
        return Fault("is set by k3img", OWNED_OPTIONS[name])
    flag = flags.get(name)
    if flag is None:
        usable = [
            f.name for f in flags.values() if not (agent and f.server_only) and f.name not in OWNED_OPTIONS
        ]
        return Fault(f"k3s {_minor(version)} has no option {name}", _nearest(name, usable))
    if agent and flag.server_only:
        return Fault("is an option of servers only, an agent dies of it", "Write it under k3s.server.")
    return _value_fault(flag, value)


def _value_fault(flag: Flag, value: Any) -> Fault | None:
    match flag.kind:
        case FlagKind.BOOL if not isinstance(value, bool):
            return Fault("is neither true nor false", "Write true or false, without quotes.")
        case FlagKind.INTEGER if not isinstance(value, int) or isinstance(value, bool):
            return Fault("is no whole number", "Write a number, without quotes.")
        case FlagKind.TEXT if not isinstance(value, str):
            return Fault("is no text", "Write a single value, in quotes.")
        case FlagKind.DURATION if not isinstance(value, str) or not re.fullmatch(DURATION, value):
            return Fault("is no duration", "Write one such as 10m or 1h30m.")
        case FlagKind.LIST if not isinstance(value, str) and not _texts(value):
            return Fault("is no list of texts", "Write one such as [a, b].")
    return None


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - slow under emulation, and only a mistake needs it

    close = difflib.get_close_matches(name, list(names), n=1)
    return f"Perhaps you meant {close[0]}." if close else "See https://docs.k3s.io/cli."
