"""Numbers and their goals: seconds of a build beside plain mkosi's, bytes of an image, seconds of a boot.

Builds are measured with a cache of their own (out/bench/cache), which holds the same for k3img and for
plain mkosi: cold, the tools tree and Debian's .deb files; incremental, also what an earlier build left.
Measurements alternate, and the median counts. "Plain mkosi" installs the packages of the same list into a
disk image with mkosi's own initrd, packed at the same level; it knows nothing of k3s, verity or trimming.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ci import bench_media, full, limit
from ci.bench_rows import FAST, OUT, SMALL, Row, Samples, in_words, megabytes, packed, table
from ci.steps import Context, PartError, copy_project, do, empty, linked, say, verify

from k3img.tools import toolbox
from k3img.tree import Tree, give_to_caller

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RANDOM_RUNTIME = 81_000_000
"""Bytes of k3s' own file, nearly all of it compressed already."""

PLAIN = """\
[Distribution]
{distribution}
[Output]
Format=disk
Output=plain
CompressOutput=zstd
CompressLevel=1
ManifestFormat=json
[Build]
Incremental=yes
SandboxTrees=mkosi.sandbox
WithNetwork=yes
History=no
[Content]
Bootable=yes
WithDocs=no
Packages=
{packages}
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where builds are measured: a copy of the project to change, a cache, and a plain mkosi project."""

    ctx: Context

    @property
    def cache(self) -> Path:
        """K3IMG_CACHE of the measured builds."""
        return OUT / "cache"

    @property
    def project(self) -> Path:
        """Profiles and overlays to change."""
        return OUT / "project"

    @property
    def plain(self) -> Path:
        """The project of plain mkosi."""
        return OUT / "plain"

    @property
    def plain_work(self) -> Path:
        """Plain mkosi's output and workspace: mkosi wants none of them in the folder of its sources."""
        return OUT / "plain-work"

    def lay_out(self) -> None:
        """Copy the project, and into the cache what both sides start from."""
        for folder in (self.cache, self.project, self.plain, self.plain_work):
            empty(folder)
        copy_project(self.ctx, self.project)
        for name in ("tools", "packages"):
            do("cp", "--archive", self.ctx.cache / name, self.cache / name)

    def forget(self) -> None:
        """Make both sides cold again."""
        for name in ("initrd", "trees", "runtime-unpacked", "work", "k3s", "plain-tree"):
            empty(self.cache / name)
        empty(OUT / "image")

    def k3img(self) -> None:
        """Build the copy of the project with k3img, at the fast level."""
        self.build(self.project, OUT / "image", FAST)

    def build(self, project: Path, out: Path, level: Sequence[str]) -> dict[str, Any]:
        """Build a project's x86 with our cache; returns the manifest."""
        command: list[str | Path] = ["k3img", "build", "--tree", project, "--profile", "x86", "--out", out]
        do(*command, *self.ctx.runtime, *level, env={"K3IMG_CACHE": str(self.cache)})
        manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        return manifest

    def mkosi(self) -> None:
        """Build with plain mkosi."""
        box = toolbox.find(Tree(root=self.project, cache=self.cache))
        do(
            *box.mkosi,
            "--directory", self.plain,
            "--tools-tree", box.tools_tree,
            "--output-directory", self.plain_work / "output",
            "--workspace-directory", self.plain_work / "tmp",
            "--package-cache-dir", self.cache / "packages",
            "--cache-directory", self.cache / "plain-tree",
            "--force",
            "build",
        )  # fmt: skip

    def write_plain(self) -> None:
        """The plain project, from what k3img's own said: distribution, sources and packages are the same."""
        (image,) = (self.cache / "work").glob("x86-*/image")
        for folder in (
            self.plain_work / "output",
            self.plain_work / "tmp",
            self.plain / "mkosi.extra/usr/share",
        ):
            folder.mkdir(parents=True)
        shutil.copytree(image / "mkosi.sandbox", self.plain / "mkosi.sandbox")
        ours = (image / "mkosi.conf").read_text(encoding="utf-8")
        distribution = ours.partition("[Distribution]\n")[2].partition("\n\n")[0]
        packages = ours.partition("\nPackages=\n")[2].partition("KernelCommandLine=")[0].rstrip()
        text = PLAIN.format(distribution=distribution, packages=packages)
        (self.plain / "mkosi.conf").write_text(text, encoding="utf-8")

    def change(self, number: int) -> None:
        """Change one file that both images hold."""
        for folder in (self.project / "overlays/base", self.plain / "mkosi.extra"):
            (folder / "usr/share").mkdir(parents=True, exist_ok=True)
            (folder / "usr/share/k3img-bench").write_text(f"change {number}\n", encoding="utf-8")


def measure_builds(ctx: Context, repeat: int) -> list[Row]:
    """Cold and incremental builds, k3img's and plain mkosi's in turn."""
    bench, cold, warm = Bench(ctx=ctx), Samples(), Samples()
    bench.lay_out()
    say("\n== once each, not measured: afterwards all packages are in the cache")
    bench.forget()
    bench.k3img()
    bench.write_plain()
    bench.mkosi()
    for _ in range(repeat):
        bench.forget()
        cold.take("cold build, k3img", bench.k3img)
        cold.take("cold build, plain mkosi", bench.mkosi)
    phases = json.loads((OUT / "image/manifest.json").read_text(encoding="utf-8"))["seconds"]
    for number in range(repeat + 1):
        bench.change(number)
        warm.take("one changed file, k3img", bench.k3img)
        warm.take("one changed file, plain mkosi", bench.mkosi)
    steps = json.loads((OUT / "image/manifest.json").read_text(encoding="utf-8"))["seconds"]
    ours, theirs = cold.row("cold build, k3img"), cold.row("cold build, plain mkosi")
    return [
        dataclasses.replace(ours, note=in_words(phases)),
        theirs,
        Row(name="cold build, k3img : plain mkosi", value=ours.value / theirs.value, unit="x", goal=1.1),
        warm.row("one changed file, k3img", goal=15, note=in_words(steps)),
        warm.row("one changed file, plain mkosi"),
    ]  # fmt: skip


def measure_sizes(ctx: Context, _repeat: int) -> list[Row]:
    """The compressed image at the small level, and the same with a runtime that does not compress."""
    bench = Bench(ctx=ctx)
    if not (bench.cache / "tools").is_dir():
        bench.lay_out()
    empty(OUT / "small")
    about = bench.build(ctx.root, OUT / "small", SMALL)
    size = packed(about)
    other = packed(with_random_runtime(bench))
    rest = other - RANDOM_RUNTIME
    usr: dict[str, int] = about["sizes"]["usr"]
    branches = sorted(usr, key=lambda name: -usr[name])[:6]
    unpacked = ", ".join(f"{name} {usr[name] / 1e6:.0f}" for name in branches)
    microcode = sum(size for name, size in usr.items() if "ucode" in name)
    note = f"microcode, {microcode / 1e6:.0f} MB, counted apart; never above 135"
    return [
        megabytes(".raw.zst", size - microcode, goal=120, note=note),
        megabytes("  of it the runtime", size - rest, note="that image less what remains without a runtime"),
        megabytes("  of it the UKI", about["files"][about["uki"]]["size"], note="as a file, packed already"),
        megabytes("  of it the initrd", about["sizes"]["initrd"], note="without kernel modules"),
        megabytes("/usr in its slot", about["slot"]["used"], note=f"biggest, unpacked, in MB: {unpacked}"),
        megabytes(".raw.zst, runtime of 81 MB random bytes", other, note="built so; it cannot boot"),
    ]


def with_random_runtime(bench: Bench) -> dict[str, Any]:
    """Build with random bytes in the place of the runtime's programs; returns the manifest.

    A build takes a runtime that lies unpacked in its cache as it is, so it is changed there, for a while.
    """
    (runtime,) = (bench.cache / "runtime-unpacked").glob("*/k3s")
    for file in runtime.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.write_bytes(b"")
    (runtime / "bin/k3s").write_bytes(random.Random(81).randbytes(RANDOM_RUNTIME))
    empty(OUT / "random")
    try:
        return bench.build(bench.ctx.root, OUT / "random", SMALL)
    finally:
        empty(bench.cache / "runtime-unpacked")
        empty(OUT / "random")


def measure_boots(ctx: Context, repeat: int) -> list[Row]:
    """Seconds after power on of the first and of the second boot, and memory, from verify's report."""
    reports = []
    for number in range(repeat):
        mine = dataclasses.replace(ctx, work=OUT / f"boot{number}")
        empty(mine.work)
        reports.append(verify(mine, "x86", linked(mine)))
    return boot_rows(reports)


MEMORY_GOALS = {"memory used": 700, "memory of k3img's own services": 0}
"""MiB, by the number's name in a report."""


def boot_rows(reports: Sequence[dict[str, Any]]) -> list[Row]:
    """Rows of several reports of the same image: the median of each moment of each boot."""
    # The second time that the power comes on. A reboot is slower under emulation, for nothing that the
    # image does: the kernel alone takes 9 s then, 4 s in a QEMU that was started anew.
    goals = {("first boot", "node Ready"): 90.0, ("after the power cut", "node Ready"): 60.0}
    taken: dict[tuple[str, str], list[float]] = {}
    memory: dict[str, list[float]] = {}
    for report in reports:
        for boot in report["timeline"]:
            for name, at in moments(boot).items():
                taken.setdefault((boot["boot"], name), []).append(at)
        for name in MEMORY_GOALS.keys() & report["numbers"].keys():
            memory.setdefault(name, []).append(float(report["numbers"][name].split()[0]))
    rows = [
        Row(name=f"{boot}: {name}", value=round(statistics.median(times), 1), unit="s",
            goal=goals.get((boot, name)), samples=tuple(times), note=reports[0]["accel"])
        for (boot, name), times in taken.items()
    ]  # fmt: skip
    for name, used in sorted(memory.items()):
        value, goal = statistics.median(used), MEMORY_GOALS[name]
        rows.append(Row(name=f"{name}, idle", value=value, unit="MiB", goal=goal, samples=tuple(used)))
    return rows


def moments(boot: dict[str, Any]) -> dict[str, float]:
    """Seconds after power on: all units up (an image has no login prompt), API ready, node Ready."""
    found = {mark["name"]: float(mark["at"]) for mark in boot["marks"]}
    ends = [float(span["end"]) for span in boot["spans"] if span["kind"] == "userspace"]
    return ({"multi-user": ends[-1]} if ends else {}) | found


BENCHES = {
    "build": measure_builds,
    "size": measure_sizes,
    "boot": measure_boots,
    **bench_media.BENCHES,
}
ABOUT = {
    "build": "seconds of builds, k3img's and plain mkosi's; about 60 minutes",
    "size": "bytes of the image, also with a runtime that does not compress; about 12 minutes",
    "boot": "seconds of boots, memory; about 10 minutes for each repetition",
    **bench_media.ABOUT,
}


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for. 1 only when something cannot be built or verified."""
    parser = argparse.ArgumentParser(prog="ci/bench", description="Numbers of k3img beside their goals.")
    parser.add_argument("--only", action="append", default=[], choices=[*BENCHES], metavar="NAME")
    parser.add_argument("--repeat", type=int, default=2, metavar="N", help="runs of each measurement [2]")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--json", action="store_true", help="print JSON; the progress goes to stderr")
    options = parser.parse_args(arguments)
    chosen = [name for name in BENCHES if not options.only or name in options.only]
    print("\n".join(f"{name:6} {ABOUT[name]}" for name in chosen), file=sys.stderr)
    if options.list:
        return 0
    limit.adopt_orphans()
    os.environ["PATH"] = f"{full.ROOT}/.venv/bin{os.pathsep}{os.environ['PATH']}"
    load = os.getloadavg()[0]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            context, image = full.prepare("auto", build=True)
            rows = [row for name in chosen for row in BENCHES[name](context, options.repeat)]
    except PartError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        limit.end_descendants()
        print("interrupted", file=sys.stderr)
        return 130
    result = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}",
        "load at the start": round(load, 1),
        "image": image,
        "rows": [dataclasses.asdict(row) | {"met": row.met} for row in rows],
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "bench.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    give_to_caller(OUT)
    print(json.dumps(result, indent=1) if options.json else "\n".join(table(rows)))
    if load > 1:
        print(f"note: something else was running here (load {load:.1f} at the start)", file=sys.stderr)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
