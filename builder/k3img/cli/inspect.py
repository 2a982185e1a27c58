"""`k3img inspect`: a linter for finished images."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k3img import __version__
from k3img.cli.common import tree_option
from k3img.errors import UsageError
from k3img.image import opened
from k3img.image.inspect import as_json, as_sarif, as_text
from k3img.image.inspect import inspect as apply_rules
from k3img.image.rules import RULES
from k3img.profile.model import Arch
from k3img.tools import toolbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened
    from k3img.tree import Tree


@click.command()
@tree_option
@click.option(
    "--usr",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Inspect an unpacked /usr in the place of an image.",
)
@click.option(
    "--arch",
    type=click.Choice([str(arch) for arch in Arch]),
    default=str(Arch.X86_64),
    show_default=True,
    help="What that /usr is for.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "sarif"]), default="text", show_default=True
)
@click.option("--explain", metavar="RULE", help="Say what a rule is for, and nothing else.")
@click.option("--files", is_flag=True, help="List what is in /usr, and nothing else.")
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
def inspect(
    tree: Tree, usr: Path | None, arch: str, form: str, explain: str | None, files: bool, image: Path | None
) -> int:
    """Check a finished image (.raw, .raw.zst) without booting it. Exit code 5 when a rule does not hold."""
    if explain is not None:
        click.echo(explained(explain))
        return 0
    if (usr is None) == (image is None):
        raise UsageError("name an image, or an unpacked /usr with --usr: one of them")
    name = str(image or usr)
    with _opened(image, usr, arch, tree) as found:
        if files:
            click.echo("\n".join(listed(found)))
            return 0
        results = apply_rules(found)
    match form:
        case "json":
            click.echo(as_json(results, name))
        case "sarif":
            click.echo(as_sarif(results, name, __version__))
        case _:
            click.echo(as_text(results, name))
    return 0 if all(result.ok for result in results) else 5


@contextmanager
def _opened(image: Path | None, usr: Path | None, arch: str, tree: Tree) -> Iterator[Opened]:
    if image is None:
        assert usr is not None
        yield opened.folder(usr, arch)
        return
    with opened.image(image, toolbox.find(tree).argv) as found:
        yield found


def explained(name: str) -> str:
    """What a rule demands, and which failure it prevents. Raises `UsageError` when there is none."""
    for rule in RULES:
        if rule.name == name:
            return f"{rule.name}: {(rule.check.__doc__ or '').strip()}\n{rule.reason}"
    raise UsageError(f"there is no rule {name}", hint=f"Rules are {', '.join(rule.name for rule in RULES)}.")


def listed(image: Opened) -> list[str]:
    """Every file of /usr as ls -l shows it."""
    return [
        f"{stat.filemode(entry.mode)} {entry.uid:5} {entry.gid:5} {entry.size:10} /usr/{entry.path}"
        + (f" -> {entry.target}" if entry.target else "")
        for entry in image.entries
    ]


COMMANDS = (inspect,)
