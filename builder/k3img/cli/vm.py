"""Commands about running an image: `boot`, `verify`."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from k3img.cli.build import image_folder
from k3img.cli.common import ends_in_order, json_option, load_profile, profile_option, tree_option
from k3img.errors import UsageError
from k3img.image import released
from k3img.log import line
from k3img.tools import binfmt, kvm, toolbox
from k3img.tree import give_to_caller, make_folder
from k3img.verify import boot as boots
from k3img.verify import report, run, session, testimages, throwaway, timeline
from k3img.verify.hardware import PAIRS
from k3img.verify.page import to_html
from k3img.verify.report import Outcome
from k3img.verify.scenarios import CLUSTERS, HARDWARE, SCENARIOS, USUAL, for_board
from k3img.vm import lab
from k3img.vm.spec import Accel, Network

if TYPE_CHECKING:
    from k3img.image.released import ReleasedImage
    from k3img.profile.boards import Board
    from k3img.profile.model import Arch
    from k3img.tools.toolbox import Toolbox
    from k3img.tree import Tree
    from k3img.verify.report import Report

COLUMNS = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "not run": Outcome.ERROR,
    "skipped": Outcome.SKIPPED,
}

ALL, LIST = "all", "list"
NAME_COLUMN = max(map(len, SCENARIOS))


def _list(ctx: click.Context, _option: click.Parameter, chosen: tuple[str, ...]) -> tuple[str, ...]:
    """Say what scenarios there are, for which no profile is needed."""
    if LIST in chosen:
        for name, scenario in SCENARIOS.items():
            click.echo(f"{name:{NAME_COLUMN}} {scenario.purpose}")
        ctx.exit()
    return chosen


out_option = click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the image [out/PROFILE]."
)
accel_option = click.option(
    "--accel",
    type=click.Choice(["auto", *map(str, Accel)]),
    default="auto",
    show_default=True,
    help="Who runs the guest; auto is KVM where a guest was seen to run under it.",
)


@click.command()
@tree_option
@profile_option
@out_option
@accel_option
@click.option("--keep", is_flag=True, help="Keep what the machine writes, for the next boot of this image.")
@click.option("--memory", default=4096, show_default=True, metavar="MIB", help="Memory of the machine.")
def boot(tree: Tree, profile: str, out: Path | None, accel: str, keep: bool, memory: int) -> None:
    """Start a profile's image in QEMU: console here, API on 127.0.0.1. Ctrl-C ends it."""
    image = released.load(image_folder(tree, profile, out=out), profile)
    box = toolbox.find(tree, target=image.arch.debian)
    disk = None
    if keep:
        # A disk belongs to the very image that it was begun with.
        disk = make_folder(image.folder / "kept") / f"{image.sha256[:12]}.qcow2"
    with (
        ends_in_order(),
        boots.machine(
            image,
            box,
            accel=chosen_accel(accel, box, tree, image.arch),
            hardware=boots.Hardware(memory=memory, network=Network(internet=True)),
            disk=disk,
        ) as machine,
    ):
        try:
            session.run(machine, image.folder / "kubeconfig.yaml")
        except KeyboardInterrupt:
            session.say("ended")


@click.command()
@tree_option
@profile_option
@out_option
@accel_option
@json_option
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write JUnit XML here.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the page here.")
@click.option(
    "--hardware",
    is_flag=False,
    flag_value="all",
    default=None,
    metavar="[PAIR]",
    help=f"Also boot from other disk controllers: all, or one of {', '.join(PAIRS)}.",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice((*SCENARIOS, ALL, LIST)),
    metavar="NAME",
    is_eager=True,
    callback=_list,
    help=f"Run these only; may be given several times [standard]. {ALL}: every one, {LIST}: what there is.",
)
@click.option(
    "--test-images",
    "images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The pods' images, an archive made by ci/runtime.",
)
@click.option("--keep", is_flag=True, help="Keep the machines' disks beside the report.")
def verify(
    tree: Tree,
    profile: str,
    out: Path | None,
    accel: str,
    as_json: bool,
    junit: Path | None,
    html: Path | None,
    hardware: str | None,
    scenarios: tuple[str, ...],
    images: Path | None,
    keep: bool,
) -> int:
    """Boot a profile's image in QEMU and prove that it works. Exit code 5 when a check fails."""
    image = released.load(image_folder(tree, profile, out=out), profile)
    box = toolbox.find(tree, target=image.arch.debian)
    if ALL in scenarios:
        scenarios = for_board(image.board)
    if set(CLUSTERS).intersection(scenarios):
        lab.enter(sys.argv)
    folder = make_folder(image.folder / "verify")
    options = run.Options(
        scenarios=_scenarios(scenarios, hardware, image.board),
        pairs=_pairs(hardware),
        test_images=images or testimages.find(tree, image.arch),
        keep=folder,
        keep_disks=keep,
    )
    wanted = load_profile(tree, profile).profile
    if seed := throwaway.seed(wanted.cluster, registries=wanted.k3s.registries):
        options = replace(options, credentials=seed.credentials, notes=seed.notes)
    with ends_in_order():
        found = run.verify(image, box, tree, chosen_accel(accel, box, tree, image.arch), options)
    pages = [report.save(html or folder / "report.html", to_html(found))]
    pages.append(report.save(folder / "report.json", report.to_json(found)))
    if junit is not None:
        pages.append(report.save(junit, report.to_junit(found)))
    for page in pages:
        give_to_caller(page)
    if as_json:
        click.echo(report.to_json(found))
    else:
        _print(found, image)
        click.echo("\n".join(f"  {page}" for page in pages))
    return 0 if found.ok else 5


def _scenarios(chosen: tuple[str, ...], hardware: str | None, board: Board) -> tuple[str, ...]:
    wanted = chosen or USUAL[board]
    return wanted if hardware is None or HARDWARE in wanted else (*wanted, HARDWARE)


def _pairs(hardware: str | None) -> tuple[str, ...]:
    if hardware in (None, "all"):
        return tuple(PAIRS)
    if hardware not in PAIRS:
        raise UsageError(f"there is no pair {hardware}", hint=f"Pairs are {', '.join(PAIRS)}; or all.")
    return (str(hardware),)


def chosen_accel(wanted: str, box: Toolbox, tree: Tree, arch: Arch) -> Accel:
    """Who runs a guest: as `wanted`, with `auto` by what this machine was seen to do."""
    if binfmt.MACHINES[arch.debian] != platform.machine():
        if wanted == "kvm":
            raise UsageError(
                f"KVM on {platform.machine()} cannot run a guest of {arch.debian}",
                hint="Leave --accel out: the machine is emulated then.",
            )
        return Accel.TCG
    if wanted != "auto":
        return Accel(wanted)
    answer = kvm.works(box, tree)
    if not answer.works:
        line(f"no KVM ({answer.why}): the machine is emulated, several times slower")
    return Accel.KVM if answer.works else Accel.TCG


def _print(found: Report, image: ReleasedImage) -> None:
    """The report for a person at a terminal: each group a row, the times, and what failed as the last."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("checks")
    for column in (*COLUMNS, "seconds"):
        table.add_column(column, justify="right")
    for group in dict.fromkeys(check.group for check in found.checks):
        checks = [check for check in found.checks if check.group == group]
        counts = [sum(check.outcome is outcome for check in checks) for outcome in COLUMNS.values()]
        seconds = f"{sum(check.seconds for check in checks):.1f}"
        table.add_row(group, *(str(count or "") for count in counts), seconds)
    console.print(table)
    console.print()
    for text in (
        timeline.as_text(found.timeline),
        *(f"{name}: {value}" for name, value in found.numbers.items()),
        *found.notes,
    ):
        console.print(Text(text), soft_wrap=True)
    how = "KVM" if found.accel == Accel.KVM else "emulated (TCG)"
    console.print(Text(f"{image.name}, {how}, {found.seconds:.0f} s, sha256 {found.sha256}"), soft_wrap=True)
    for check in found.checks:
        if check.outcome in (Outcome.FAILED, Outcome.ERROR):
            console.print(Text(f"\n✗ {check.name}", style="bold red"), soft_wrap=True)
            for text in check.evidence.splitlines()[:20]:
                console.print(Text(f"    {text}"), soft_wrap=True)
    console.print(Text(found.verdict, style="bold green" if found.ok else "bold red"), soft_wrap=True)


COMMANDS: tuple[click.Command, ...] = (boot, verify)
