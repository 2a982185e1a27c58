"""`k3img lab`: a profile's whole cluster in QEMU, for a person."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from k3img import scratch
from k3img.cli.build import image_folder
from k3img.cli.common import ends_in_order, load_profile, profile_option, tree_option
from k3img.cli.vm import accel_option, chosen_accel, out_option
from k3img.image import released
from k3img.log import line
from k3img.tools import host, toolbox
from k3img.tree import make_folder
from k3img.verify import workshop
from k3img.verify.lab import Bed
from k3img.vm import lab as network

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.tree import Tree


def _clean(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """Remove what killed labs left, for which no profile is needed."""
    if wanted:
        for folder in scratch.clean():
            line(f"removed {folder}")
        ctx.exit()


@click.command("lab")
@tree_option
@profile_option
@out_option
@accel_option
@click.option(
    "--clean",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_clean,
    help="Remove the files of labs that were killed, and end.",
)
def lab_command(tree: Tree, profile: str, out: Path | None, accel: str) -> None:
    """Start all nodes of a profile in QEMU, on a network of their own. Ctrl-C ends them.

    Their secrets are made for the lab and go with it; nothing that they send leaves the network.
    """
    image = released.load(image_folder(tree, profile, out=out), profile)
    box = toolbox.find(tree, target=image.arch.debian)
    cluster = load_profile(tree, profile).profile.cluster
    workshop.check(cluster, host.available_memory() >> 20)
    with ends_in_order(), ExitStack() as stack:
        if not os.environ.get(network.INSIDE):
            stack.enter_context(workshop.door())
            network.enter(sys.argv)
        bed = Bed(
            stack,
            image,
            box,
            accel=chosen_accel(accel, box, tree, image.arch),
            images=None,
            keep=make_folder(image.folder / "lab"),
            opened=lambda _life: None,
        )
        try:
            workshop.run(bed, cluster, image.folder / "lab-kubeconfig.yaml")
        except KeyboardInterrupt:
            line("ended")


COMMANDS = (lab_command,)
