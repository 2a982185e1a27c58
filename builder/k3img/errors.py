"""Every error that a user may see. Code below the command line raises; only `k3img.cli` prints and exits.

An error says what is wrong (`brief`), the evidence (`details`) and what to do (`hint`). Each class has one
exit code: 2 profile, 3 missing tool, 4 build, 5 verification, 6 a medium; 130 is an interrupt, 1 a bug.
Exceptions are plain classes: a frozen dataclass cannot carry a traceback through a context manager.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class K3imgError(Exception):
    """Something a user can act on.

    `brief` is one sentence; `details` is evidence (several lines allowed); `hint` is what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, brief: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint


class UsageError(K3imgError):
    """The command line, or the place it was typed in, is wrong."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One thing wrong in a file: where (`file:line`, `path` such as `os.ssh.keys`), what, and what to do."""

    file: str
    line: int
    path: str
    what: str
    hint: str = ""
    warning: bool = False

    def __str__(self) -> str:
        """`file:line: dotted.path: what is wrong. What to do.`"""
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        path = f"{self.path}: " if self.path else ""
        kind = "warning: " if self.warning else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{kind}{path}{self.what}{hint}"


class ProfileError(K3imgError):
    """A profile (or node.yaml) cannot be used; carries every problem of it, sorted by place."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        super().__init__(
            f"{count} problem{'s' if count != 1 else ''} in the profile",
            details="\n".join(map(str, self.problems)),
        )


class MissingToolError(K3imgError):
    """A program that is needed is not there or too old."""

    exit_code = 3


class BuildError(K3imgError):
    """An image could not be built."""

    exit_code = 4


class ProgramError(BuildError):
    """A program that we started ended badly; `details` has its last lines."""

    def __init__(self, brief: str, *, status: int, output: str = "", hint: str = "") -> None:
        super().__init__(brief, details=output, hint=hint)
        self.status = status


class VerifyError(K3imgError):
    """A booted image failed a check, or never came up."""

    exit_code = 5


class FlashError(K3imgError):
    """A medium cannot be written, or was not written as it should be."""

    exit_code = 6
