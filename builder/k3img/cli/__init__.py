"""The command line: parses, calls, prints. The only exit codes and the only results on stdout."""

from __future__ import annotations

import sys

import click

from k3img import __version__
from k3img.cli import build, cluster, doctor, flash, inspect, lab, lock, profile, reach, vm
from k3img.errors import K3imgError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="k3img")
def k3img() -> None:
    """One YAML profile becomes an immutable OS image with k3s, proven in QEMU."""


for _family in (profile, build, inspect, cluster, flash, reach, lock, vm, lab, doctor):
    for _command in _family.COMMANDS:
        k3img.add_command(_command)


def main() -> None:
    """Run the command line; every error becomes a message and an exit code, never a traceback."""
    try:
        status = k3img.main(standalone_mode=False)
    except K3imgError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # noqa: T201 - the last word
        sys.exit(130)
    sys.exit(status or 0)


def _print_error(error: K3imgError) -> None:
    click.echo(f"k3img: {error.brief}", err=True)
    for text, mark in ((error.details, "  "), (error.hint, "  -> ")):
        if text:
            click.echo("\n".join(mark + line for line in text.splitlines()), err=True)
