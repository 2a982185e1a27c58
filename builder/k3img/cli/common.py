"""What several commands share: options, and the way from a profile's name to a `Profile`."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from k3img import tree as trees
from k3img.errors import UsageError
from k3img.log import warning
from k3img.profile.load import Loaded, load, names
from k3img.profile.sink import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from k3img.tree import Tree


def _tree(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> Tree:
    return trees.find(folder)


def _pairs(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not key=value, such as image.compression=fast.")
        pairs.append((key.strip(), value))
    return tuple(pairs)


tree_option = click.option(
    "--tree",
    callback=_tree,
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="The project's folder; without it the one around the working directory.",
)
"""`--tree DIR`; the command gets a `Tree` as `tree`."""

profile_option = click.option(
    "--profile",
    required=True,
    metavar="NAME|FILE",
    help="A profile of the project by name, or a file.",
)
"""`--profile NAME|FILE`; see `load_profile`."""

set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_pairs,
    help="Override a key of the profile, such as image.compression=fast; may be given several times.",
)
"""`--set key=value`; the command gets pairs as `overrides`."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""`--json`; the command gets `as_json`."""


def profile_file(tree: Tree, name: str) -> Path:
    """The file of a profile given by name or path. Raises `UsageError`, with the nearest name, if none."""
    path = tree.profile(name)
    try:
        if path.exists():
            return path
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    if path.parent != tree.profiles:
        raise UsageError(f"there is no file {path}")
    known = names(tree.profiles)
    raise UsageError(
        f"there is no profile {name}: no file {path.name} in {tree.profiles}",
        hint=suggest(name, known) or f"Profiles are {', '.join(known)}.",
    )


def load_profile(tree: Tree, name: str, overrides: Iterable[tuple[str, str]] = ()) -> Loaded:
    """The profile given by name or path; its warnings are shown. Raises `ProfileError`, `UsageError`."""
    loaded = load(profile_file(tree, name), tree, overrides)
    for problem in loaded.warnings:
        warning(str(problem).replace(" warning:", "", 1))
    return loaded


def shown(path: Path) -> str:
    """A path as it is shortest from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def ends_in_order() -> Iterator[None]:
    """SIGTERM and a closed terminal end us as Ctrl-C does: programs stopped, temporary files removed.

    Only the first one: whoever ends us often signals us and our process group, and the second must not
    interrupt the tidying up.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for known in before:
            signal.signal(known, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
