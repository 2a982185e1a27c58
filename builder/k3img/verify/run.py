"""The contents page of a verification: measure the image, run the scenarios, measure again, report."""

from __future__ import annotations

import itertools
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from k3img.errors import MissingToolError, VerifyError
from k3img.image import released
from k3img.log import line, step
from k3img.profile.boards import Board
from k3img.verify import boot, secrecy
from k3img.verify.life import Life
from k3img.verify.report import EMULATED_NOTE, PI_NOTE, STANDIN_NOTE, Check, Outcome, Report
from k3img.verify.scenarios import SCENARIOS, STANDARD, runs
from k3img.vm.spec import Accel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from k3img.image.released import ReleasedImage
    from k3img.tools.toolbox import Toolbox
    from k3img.tree import Tree
    from k3img.verify.boot import Hardware
    from k3img.verify.lab import Bed
    from k3img.verify.plugin import MakeBed, VerifyPlugin

_BETWEEN = "Image"  # the group of the checks that need no machine


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to verify.

    `pairs` are names of `hardware.PAIRS`, for the hardware scenario. `test_images` is the archive of the
    pods' images. `credentials` are given to every machine (a seed, for a profile with nodes), and `notes`
    say in the report what they stand for. `keep` is a folder for console and QEMU logs, with
    `keep_disks` also for what the machines wrote.
    """

    scenarios: tuple[str, ...] = (STANDARD,)
    pairs: tuple[str, ...] = ()
    test_images: Path | None = None
    credentials: Mapping[str, bytes] | None = None
    notes: tuple[str, ...] = ()
    keep: Path | None = None
    keep_disks: bool = False


def verify(image: ReleasedImage, toolbox: Toolbox, tree: Tree, accel: Accel, options: Options) -> Report:
    """Boot an image and check it; every answer is in the report, whether it is good or bad.

    Raises `VerifyError` when the image is not the one that was built, `MissingToolError` without pytest.
    """
    began, clock = datetime.now(UTC), time.monotonic()
    digest = released.measure(image)
    if options.keep is not None:
        boot.forget(options.keep)
    plugins = [_run(names, image, toolbox, tree, accel, options) for names in runs(options.scenarios)]
    checks = [check for plugin in plugins for check in plugin.checks]
    checks.append(_unchanged(image))
    console = tuple(entry for plugin in plugins for entry in plugin.console)
    secrets = {name: value for plugin in plugins for name, value in plugin.secrets.items()}
    if secrets:
        seen = secrecy.outputs(checks, console, options.keep)
        checks.append(secrecy.check(secrets, seen, group=_BETWEEN))
    lives = [life for plugin in plugins for life in plugin.lives]
    return Report(
        profile=image.profile,
        version=image.version,
        file=image.raw.name,
        sha256=digest,
        runtime=image.runtime,
        standin=image.standin,
        accel=str(accel),
        qemu=".".join(map(str, toolbox.version(boot.QEMU[image.arch]))),
        began=began.isoformat(timespec="seconds"),
        seconds=time.monotonic() - clock,
        checks=tuple(checks),
        timeline=tuple(one for life in lives for one in life.boots),
        numbers={name: value for life in lives for name, value in life.numbers.items()},
        notes=(
            *((STANDIN_NOTE,) if image.standin else ()),
            *((EMULATED_NOTE,) if accel is Accel.TCG else ()),
            *((PI_NOTE,) if image.board is Board.RPI4 else ()),
            *options.notes,
        ),
        console=console,
    )


def _run(
    names: Sequence[str],
    image: ReleasedImage,
    toolbox: Toolbox,
    tree: Tree,
    accel: Accel,
    options: Options,
) -> VerifyPlugin:
    """Run the checks of tests/image of scenarios that share a bed with pytest, in this process."""
    try:
        import pytest  # noqa: PLC0415 - only verify needs it

        from k3img.verify.plugin import VerifyPlugin  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingToolError(
            f"verify needs {error.name}", hint='pip install "k3img[verify]", or run ci/setup'
        ) from error
    folder = tree.root / "tests/image"
    paths = [folder / part for name in names for part in SCENARIOS[name].parts]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise VerifyError(f"there is no {missing[0]}", hint="The checks come with k3img's project tree.")

    count = itertools.count(1)

    @contextmanager
    def make_life(hardware: Hardware | None, credentials: Mapping[str, bytes] | None) -> Iterator[Life]:
        given = credentials or options.credentials
        label = f"{names[0]}-{next(count)}"
        with boot.machine(
            image,
            toolbox,
            disk=_kept_disk(options, label),
            accel=accel,
            hardware=hardware,
            images=options.test_images,
            credentials=given,
            folder=options.keep,
            label=label,
        ) as machine:
            yield Life(
                machine=machine,
                image=image,
                has_test_images=options.test_images is not None,
                seeded=bool(given),
            )

    plugin = VerifyPlugin(make_life, _bed_maker(image, toolbox, accel, options), pairs=options.pairs)
    with step(f"Scenario {' and '.join(names)} ({accel})") as running:
        status = _pytest(pytest.main, plugin, folder, paths)
        running.failed = status != pytest.ExitCode.OK
        if plugin.ended is not None:
            raise plugin.ended
        # pytest calls it an interruption, too, when a file of checks cannot be loaded.
        if status == pytest.ExitCode.INTERRUPTED and not plugin.harness_error:
            raise KeyboardInterrupt
    if plugin.harness_error or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise VerifyError(f"the checks in {folder} cannot be run", details=plugin.harness_error)
    return plugin


def _bed_maker(image: ReleasedImage, toolbox: Toolbox, accel: Accel, options: Options) -> MakeBed:
    """What opens a network of machines for a scenario of the lab."""
    from k3img.verify.lab import Bed  # noqa: PLC0415 - only these scenarios need it

    def make(stack: ExitStack, opened: Callable[[Life], None]) -> Bed:
        images, keep = options.test_images, options.keep
        return Bed(stack, image, toolbox, accel=accel, images=images, keep=keep, opened=opened)

    return make


def _pytest(main: Any, plugin: VerifyPlugin, folder: Path, paths: Sequence[Path]) -> int:
    """Run pytest away from any configuration but ours."""
    arguments = [
        *map(str, paths),
        "-c", os.devnull,
        "--rootdir", str(folder),
        "--confcutdir", str(folder),
        "--import-mode", "importlib",
        "--capture", "no",
        "-p", "no:cacheprovider",
        "-p", "k3img.verify.fixtures",
        "-p", "no:pytest11.testinfra",
    ]  # fmt: skip
    # pytest writes .pyc files of its own beside the checks; the project tree stays clean.
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return int(main(arguments, plugins=[plugin]))
    finally:
        sys.dont_write_bytecode = before


def _kept_disk(options: Options, name: str) -> Path | None:
    """Where a machine's disk is kept; one of an earlier run goes."""
    if options.keep is None or not options.keep_disks:
        return None
    path = options.keep / f"{name}.qcow2"
    path.unlink(missing_ok=True)
    return path


def _unchanged(image: ReleasedImage) -> Check:
    """The image file is, after all boots, still the one that was built."""
    name = "The image file is unchanged after all boots, and is the one in SHA256SUMS"
    began = time.monotonic()
    try:
        evidence, outcome = f"sha256 {released.measure(image)}  {image.raw.name}", Outcome.PASSED
    except VerifyError as error:
        evidence, outcome = f"{error.brief}\n{error.details}", Outcome.FAILED
        line(f"  ✗ {name}")
    return Check(
        name=name, group=_BETWEEN, outcome=outcome, evidence=evidence, seconds=time.monotonic() - began
    )
