"""Commands about profiles themselves: `profiles`, `check`, `show`, `schema`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from k3img.cli.common import json_option, load_profile, profile_file, set_option, tree_option
from k3img.errors import Problem, ProfileError, UsageError
from k3img.profile import schema as schemas
from k3img.profile import show as shows
from k3img.profile.load import examine, names, shown_path

if TYPE_CHECKING:
    from k3img.tree import Tree


@click.command()
@tree_option
@json_option
def profiles(tree: Tree, as_json: bool) -> None:
    """List the project's profiles, each with its purpose."""
    found: list[dict[str, Any]] = []
    broken: list[str] = []
    for name in names(tree.profiles):
        it = examine(tree.profile(name), tree)
        if it.errors or it.profile is None:
            broken.append(name)
        elif not it.part:
            target = it.profile.target
            about = {"arch": str(target.arch), "board": str(target.board), "purpose": it.profile.purpose}
            found.append({"name": name, **about})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _table([["NAME", "ARCH", "BOARD", "PURPOSE"], *([*row.values()] for row in found)])
    for name in broken:
        click.echo(f"{name} has problems: k3img check {name}", err=True)


def _table(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@click.command()
@tree_option
@json_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.pass_context
def check(context: click.Context, tree: Tree, as_json: bool, files: tuple[str, ...]) -> None:
    """Check profiles, given by name or file, and print every problem of them."""
    problems: set[Problem] = set()
    for name in files:
        found, verdict = _checked(name, tree)
        problems |= {*found}
        if not as_json:
            for line in (*(str(problem) for problem in found if problem.warning), *verdict):
                click.echo(line)
    errors = [problem for problem in problems if not problem.warning]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(problem) for problem in sorted(problems)], indent=2))
        context.exit(ProfileError.exit_code if errors else 0)
    if errors:
        raise ProfileError(errors)


def _checked(name: str, tree: Tree) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """The problems of a profile, and a line that says that it is right, if it is."""
    try:
        path = profile_file(tree, name)
    except UsageError as error:
        return (Problem(file=name, line=0, path="", what=f"{error.brief}.", hint=error.hint),), ()
    found = examine(path, tree)
    kind = "ok, a part that other profiles extend (it has no target)" if found.part else "ok"
    return found.problems, () if found.errors else (f"{shown_path(path, tree)}: {kind}",)


@click.command()
@tree_option
@set_option
@json_option
@click.argument("profile", metavar="NAME|FILE")
def show(tree: Tree, overrides: tuple[tuple[str, str], ...], as_json: bool, profile: str) -> None:
    """Print a profile with all that it extends and all defaults, and where each value came from."""
    loaded = load_profile(tree, profile, overrides)
    if as_json:
        whole = {"profile": shows.data(loaded.profile), "origins": dict(loaded.origins)}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
    else:
        click.echo(shows.text(loaded), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of profiles, for editors."""
    click.echo(json.dumps(schemas.schema(), indent=2, ensure_ascii=False))


COMMANDS: tuple[click.Command, ...] = (profiles, check, show, schema)
"""For the root group to register."""
