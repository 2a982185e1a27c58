"""Where problems and origins are collected while a profile is read."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from k3img.errors import Problem
from k3img.profile.source import DEFAULT, Origin, tidy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from k3img.node.check import Fault


def suggest(word: str, known: Iterable[str]) -> str:
    """`Perhaps you meant x.`, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Perhaps you meant {close[0]}." if close else ""


class Sink:
    """Collects problems, and where each dotted path was written."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.origins: dict[str, Origin] = {}
        self.secret: set[str] = set()
        # Where each text of a list was written: bad ones are left out, so the index alone would mislead.
        self.items: dict[tuple[str, str], str] = {}
        # Where keys belong that are written at the wrong level, and whether a parent could not be read.
        self.homes: Mapping[str, str] = {}
        self.incomplete = False
        self._wrong: set[str] = set()
        self._holds_wrong: set[str] = set()

    def problem(self, path: str, what: str, hint: str = "", *, warning: bool = False) -> None:
        """Report something about `path`, at its place or at that of what holds it.

        A path with a secret in it has been reported, and what it holds must not be repeated.
        """
        around = [path, *_above(path)]
        if not self.secret.isdisjoint(around):
            return
        origin = next((self.origins[outer] for outer in around if outer in self.origins), DEFAULT)
        if origin is DEFAULT:
            origin = Origin(file=self.file, line=1)
        problem = Problem(
            file=origin.file,
            line=origin.line,
            path=tidy(path),
            what=f"{tidy(what).rstrip('.')}.",
            hint=tidy(hint),
            warning=warning,
        )
        self.problems.append(problem)
        if not warning:
            self._wrong.add(path)
            self._holds_wrong.update(around)

    def fault(self, path: str, fault: Fault) -> None:
        """Report a fault of `path`."""
        self.problem(path, fault.what, fault.hint)

    def clean(self, *paths: str) -> bool:
        """Whether nothing at, below or above these paths is wrong, so that a rule about them makes sense."""
        return all(path not in self._holds_wrong and self._wrong.isdisjoint(_above(path)) for path in paths)


def _above(path: str) -> Iterator[str]:
    """The paths that hold a path, nearest first: `a.b[0]` is in `a.b` and `a`."""
    while (end := max(path.rfind("."), path.rfind("["))) > 0:
        path = path[:end]
        yield path
