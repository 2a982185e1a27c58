"""Numbers of finished images: sizes for ARM, seconds of flash beside dd, of a node's seed, of inspect."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci import media
from ci.bench_rows import OUT, Row, Samples, megabytes, packed
from ci.parts import on_arm
from ci.steps import Context, build, copy_project, do, empty, linked, say, verify

from k3img.cluster import model, seed
from k3img.flash import personalise
from k3img.image import gpt
from k3img.profile.load import load
from k3img.tools import toolbox
from k3img.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

MEDIUM = 8_000_000_000
CARD = {"write": 20 << 20, "read": 40 << 20}
"""Bytes a second that a good SD card takes and gives in a USB reader."""
THROTTLE = Path("/sys/fs/cgroup/blkio/blkio.throttle.{}_bps_device")

NODE = """\
extends: x86
cluster: {nodes: {one: {}, two: {role: agent}}}
"""


def measure_arm(ctx: Context, _repeat: int) -> list[Row]:
    """Both ARM images at the level that their profiles name, which is the small one."""
    on_arm(ctx)
    rows = []
    for profile in ("arm64", "rpi4"):
        about = build(ctx, profile, level="small")
        rows.append(megabytes(f"{profile}: .raw.zst", packed(about), goal=120, note="never above 140"))
        uki = about["files"][about["uki"]]["size"]
        rows.append(megabytes(f"{profile}: UKI", uki, goal=50 if profile == "rpi4" else None))
    return rows


def measure_media(ctx: Context, repeat: int) -> list[Row]:
    """Flash and dd onto one loop device in turn, both until all is on the disk; personalise; inspect."""
    work = OUT / "media"
    empty(work)
    image = media.raw(ctx)
    with (work / "medium").open("wb") as file:
        file.truncate(MEDIUM)
    times = Samples()
    with media.loop(work / "medium") as device:
        for _ in range(repeat + 1):
            written(ctx, device, image, times)
    for _ in range(repeat):
        times.take("inspect", lambda: do("k3img", "inspect", image))
    seeds = personalised(ctx, work, image, repeat)
    flash, plain = times.row("flash", note="with reading all of it back"), times.row("dd")
    return [
        flash,
        plain,
        Row(name="flash : dd, medium in memory", value=flash.value / plain.value, unit="x", goal=1 / 3),
        *at_the_speed_of_a_card(ctx, work / "medium", image),
        Row(name="a node's seed", value=statistics.median(seeds), unit="s", goal=0.1, samples=seeds),
        times.row("inspect", goal=10),
    ]  # fmt: skip


def written(ctx: Context, device: str, image: Path, times: Samples) -> None:
    """Write an image by flash and by dd, each until all of it is on the disk."""
    times.take("flash", lambda: media.write(ctx, device, "--force"))
    dd = ("dd", f"if={image}", f"of={device}", "bs=4M", "conv=fsync", "status=none")
    times.take("dd", lambda: do(*dd))


def at_the_speed_of_a_card(ctx: Context, medium: Path, image: Path) -> list[Row]:
    """Flash and dd once each, onto a loop device that the kernel slows down to what a good SD card does."""
    if not THROTTLE.with_name(THROTTLE.name.format("write")).exists():
        say("not measured at the speed of a card: that needs the blkio controller of cgroup v1")
        return []
    times = Samples()
    with media.loop(medium) as device, throttled(device):
        written(ctx, device, image, times)
    note = ", ".join(f"{way}s {rate >> 20} MiB/s" for way, rate in CARD.items())
    flash, plain = times.row("flash", note=note), times.row("dd", note=note)
    return [
        replace(flash, name="flash, to a card"),
        replace(plain, name="dd, to a card"),
        Row(name="flash : dd, to a card", value=flash.value / plain.value, unit="x", goal=1 / 3),
    ]


@contextmanager
def throttled(device: str) -> Iterator[None]:
    """Let nobody write or read a disk faster than a card (Linux, blkio-controller.rst of cgroup v1)."""
    number = Path(f"/sys/class/block/{Path(device).name}/dev").read_text().strip()
    files = {THROTTLE.with_name(THROTTLE.name.format(way)): rate for way, rate in CARD.items()}
    for file, rate in files.items():
        file.write_text(f"{number} {rate}\n")
    try:
        yield
    finally:
        for file in files:
            file.write_text(f"{number} 0\n")


def personalised(ctx: Context, work: Path, image: Path, repeat: int) -> tuple[float, ...]:
    """Seconds for the seed partition of a node, without starting Python."""
    tree = Tree(root=work, cache=ctx.cache)
    copy_project(ctx, work)
    (work / "profiles/bench.yaml").write_text(NODE)
    cluster = load(work / "profiles/bench.yaml", tree).profile.cluster
    secrets = model.create(cluster.name, model.lifetime(datetime.now(UTC)))
    place = gpt.read(image)[1]
    box = toolbox.find(tree)
    taken = []
    for _ in range(repeat + 1):
        began = time.monotonic()
        with image.open("rb") as file:
            file.seek(place.start)
            empty_seed = file.read(place.size)
        content = seed.files(cluster, seed.member(cluster, "two"), secrets, bootstrap=False, issued=1)
        personalise.fat(empty_seed, content, box.argv)
        taken.append(round(time.monotonic() - began, 3))
    return tuple(taken)


FLEET = """\
extends: x86
cluster:
  nodes:
    first: {address: 10.255.0.1/8}
"""
MEMBER = "    n{number}: {{role: agent, address: 10.{upper}.{lower}.2/8, labels: {{shop: s{number}}}}}\n"


def measure_fleets(ctx: Context, repeat: int) -> list[Row]:
    """Seeds and the check of profiles with many nodes."""
    work = OUT / "fleet"
    empty(work)
    tree = Tree(root=work, cache=ctx.cache)
    copy_project(ctx, work)
    secrets = model.create("fleet", model.lifetime(datetime.now(UTC)))
    rows, checks = [], Samples()
    for count in (10, 100, 1000):
        nodes = (MEMBER.format(number=n, upper=n // 250, lower=n % 250) for n in range(count))
        (work / f"profiles/fleet{count}.yaml").write_text(FLEET + "".join(nodes))
        cluster = load(work / f"profiles/fleet{count}.yaml", tree).profile.cluster
        taken = []
        for _ in range(repeat):
            began = time.monotonic()
            for node in seed.members(cluster):
                seed.files(cluster, node, secrets, bootstrap=False, issued=1)
            taken.append(round((time.monotonic() - began) / (count + 1) * 1000, 2))
        rows.append(
            Row(name=f"a seed, of {count} nodes", value=statistics.median(taken), unit="ms", goal=100)
        )
    for _ in range(repeat + 1):
        checks.take("check of 1000 nodes", lambda: do("k3img", "check", "--tree", work, "fleet1000"))
    return [*rows, checks.row("check of 1000 nodes", goal=1)]


CLUSTER_NUMBERS = {
    "join": "all Ready after power on",
    "ha": "three servers and an agent Ready after power on",
}
"""What a scenario's report says, in seconds."""


def measure_clusters(ctx: Context, repeat: int) -> list[Row]:
    """Seconds from power on of the last machine of a cluster until all of its nodes are Ready."""
    rows, folder = [], linked(ctx)
    for scenario, number in CLUSTER_NUMBERS.items():
        taken = []
        for _ in range(repeat):
            report = verify(ctx, "x86", folder, "--scenario", scenario)
            taken.append(float(report["numbers"][number].split()[0]))
        name = f"{scenario}: all Ready"
        rows.append(Row(name=name, value=statistics.median(taken), unit="s", samples=tuple(taken)))
    return rows


BENCHES: dict[str, Any] = {
    "arm": measure_arm,
    "media": measure_media,
    "fleet": measure_fleets,
    "cluster": measure_clusters,
}
ABOUT = {
    "arm": "bytes of the ARM images; about 40 minutes",
    "media": "seconds of flash beside dd, of a node's seed, of inspect; about 3 minutes",
    "cluster": "seconds until a cluster is Ready; about 25 minutes for each repetition",
    "fleet": "seconds of a seed and of a check, for many nodes; seconds",
}
