"""`k3img flash`: write an image to a card, a stick or a disk. `k3img export`: to a file in other formats."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k3img.cli.build import image_folder
from k3img.cli.cluster import Asked, node_options, prepare
from k3img.cli.common import ends_in_order, load_profile, profile_file, profile_option, tree_option
from k3img.cluster import found
from k3img.errors import FlashError, UsageError
from k3img.flash import device, run
from k3img.flash import export as export_image
from k3img.image import released
from k3img.tools import toolbox

if TYPE_CHECKING:
    from k3img.flash.device import Medium
    from k3img.image.released import ReleasedImage
    from k3img.profile.model import Profile
    from k3img.tree import Tree


@click.command()
@tree_option
@profile_option
@node_options
@click.option("--unseeded", is_flag=True, help="No node: it becomes a cluster of its own.")
@click.option("--force", is_flag=True, help="Also write to a disk that is not removable.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the image [out/PROFILE].",
)
@click.argument("medium", metavar="[DEVICE|FILE]", type=click.Path(path_type=Path), required=False)
def flash(
    tree: Tree,
    profile: str,
    node: str | None,
    shared: bool,
    unseeded: bool,
    yes: bool,
    replace: bool,
    new_datastore: bool,
    force: bool,
    out: Path | None,
    medium: Path | None,
) -> None:
    """Write a profile's image to a medium, which loses all that is on it. Without a medium: list them."""
    if medium is None:
        click.echo(device.candidates())
        return
    if unseeded and (node or shared or new_datastore):
        raise UsageError("--unseeded makes no node: without --node, --shared and --new-datastore")
    image = released.load(image_folder(tree, profile, out=out), profile)
    wanted = load_profile(tree, profile).profile
    fits(image, wanted)
    target = device.find(medium)
    run.check(image, target, force=force)
    may_write(target)
    asked = Asked(node=node, shared=shared, yes=yes, replace=replace, new_datastore=new_datastore)
    given = None
    if not unseeded:
        asked.check(wanted.cluster)
        # A cluster's first secrets are made when the person has agreed, not before.
        if found.known(tree, wanted.cluster, profile_file(tree, profile)):
            given = prepare(tree, wanted, profile, asked)
    click.echo(f"  {target}")
    for text in given.gift.says if given else ():
        click.echo(f"  {text}")
    if not yes:
        click.confirm(f"  Erase it and write {image.name}?", abort=True, err=True)
    if not unseeded:
        given = given or prepare(tree, wanted, profile, asked)
    with ends_in_order():
        content = given.files if given else {}
        done = run.flash(image, target, content=content, argv=lambda name: toolbox.find(tree).argv(name))
    if given:
        given.done(str(target.path))
    click.echo(
        f"  written {done.mapped / 1e6:.0f} MB mapped of {done.size / 1e9:.1f} GB in {done.seconds:.0f} s, "
        "read back and verified"
    )
    click.echo(f"  {given.about}" if given else "  not seeded: it becomes a cluster of one")
    if given:
        click.echo(f"  Put it in, power on, then:  k3img wait {given.cluster}")


def fits(image: ReleasedImage, profile: Profile) -> None:
    """Raise `FlashError` when a folder's image is not what the profile asks for."""
    wanted = profile.target
    if (image.arch, image.board) != (wanted.arch, wanted.board):
        raise FlashError(
            f"{image.raw} is for {image.arch} ({image.board}), "
            f"{profile.name} for {wanted.arch} ({wanted.board})",
            hint=f"Build it: k3img build --profile {profile.name}",
        )


def may_write(target: Medium) -> None:
    """Raise `FlashError` with the line to type when we have no right to write to a medium."""
    if os.access(target.path, os.W_OK):
        return
    # sudo does not hand these on.
    ours = [f"{name}={os.environ[name]}" for name in ("K3IMG_CACHE", "K3IMG_SECRETS") if name in os.environ]
    program = shutil.which(sys.argv[0]) or sys.argv[0]
    line = shlex.join(["sudo", *ours, str(Path(program).absolute()), *sys.argv[1:]])
    raise FlashError(f"{target.path} cannot be written by {os.environ.get('USER', 'you')}", hint=line)


@click.command()
@tree_option
@profile_option
@click.option("-o", "--output", "target", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice([str(kind) for kind in export_image.Kind]),
    help="Without it the file's name says it.",
)
@click.option("--size", type=int, default=8, show_default=True, help="GiB of a hypervisor's disk.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the image [out/PROFILE].",
)
def export(tree: Tree, profile: str, target: Path, kind: str | None, size: int, out: Path | None) -> None:
    """Write a profile's image as a file for a hypervisor or a graphical flasher."""
    image = released.load(image_folder(tree, profile, out=out), profile)
    wanted = export_image.Kind(kind) if kind else export_image.kind_of(target)
    with ends_in_order():
        export_image.export(
            image, target, wanted, size=size << 30, program=lambda: toolbox.find(tree).argv("qemu-img")
        )
    click.echo(f"  {target.stat().st_size / 1e6:.1f} MB  {target}")


COMMANDS = (flash, export)
