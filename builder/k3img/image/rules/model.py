"""A rule, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from k3img.image.opened import Opened


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`check` yields a line for each thing that is wrong, with its place and what was found.

    `reason` is the failure that it prevents; `disk` rules need a whole image, the others only /usr.
    """

    name: str
    reason: str
    check: Callable[[Opened], Iterator[str]]
    disk: bool


def disk_rule(name: str, check: Callable[[Opened], Iterator[str]], reason: str) -> Rule:
    """A rule that needs a whole image."""
    return Rule(name=name, check=check, reason=reason, disk=True)


def usr_rule(name: str, check: Callable[[Opened], Iterator[str]], reason: str) -> Rule:
    """A rule that needs /usr alone."""
    return Rule(name=name, check=check, reason=reason, disk=False)


def lines(path: Path) -> list[str]:
    """The lines of a text file; none when it is not there."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
