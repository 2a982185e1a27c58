"""The long checks: what they are, how long they take, running them one after the other, and the ledger."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ci import ledger, limit
from ci.parts import PARTS, Part
from ci.steps import Context, PartError, do, empty

from k3img.tree import cache_dir, give_to_caller

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ci.ledger import Entry

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "out/ci-full"
LEDGER = OUT / "ledger.jsonl"
KEPT = ROOT / "ci/ledger.jsonl"
"""Runs of all machines, committed: two passes of everything take longer than a machine is there."""

MINUTES = 80
"""What a part may take."""

# ci/lib.sh knows which runtime is used; its answer, each on a line.
_RUNTIME = """
. ci/lib.sh
choose_runtime "$1" ""
printf "%s\\n" "$runtime_name" "$test_images" "${runtime_args[@]}"
"""


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for. 1 when a part failed, 130 when interrupted."""
    options = parse(arguments)
    entries = ledger.merged(ledger.read(KEPT), ledger.read(LEDGER))
    parts = chosen(options.only)
    if options.keep:
        ledger.write(KEPT, entries)
        print(f"{KEPT.relative_to(ROOT)}: {len(entries)} runs; commit it")
        return 0
    if options.history:
        names = {part.name for part in parts}
        print("\n".join(ledger.history(entry for entry in entries if entry.part in names)))
        return 0
    print("\n".join(estimate(parts, entries)), flush=True)
    if options.list:
        return 0
    limit.adopt_orphans()
    os.environ["PATH"] = f"{ROOT}/.venv/bin{os.pathsep}{os.environ['PATH']}"
    try:
        context, image = prepare(options.runtime, build=any(part.needs_image for part in parts))
        state = ledger.state_of(ROOT)
        if "+" in state:
            print("note: not everything is committed; parts that work in a clone see the commit only")
        done = [one(part, context, state, image, entries, resume=options.resume) for part in parts]
    except PartError as error:
        print(f"FAILED before the first part: {error}")
        return 1
    except KeyboardInterrupt:
        limit.end_descendants()
        give_to_caller(OUT)
        print("interrupted; --resume goes on with the part that ran")
        return 130
    give_to_caller(OUT)
    print("\n".join(table(done)))
    return 0 if all(entry.passed for entry in done) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="ci/full", description="The long checks of k3img.")
    names = [part.name for part in PARTS]
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="NAME", choices=names, help="run this; again for more")
    add("--resume", action="store_true", help="leave out what passed for this commit and this image")
    add("--list", action="store_true", help="only say what there is and how long it takes")
    add(
        "--history", action="store_true", help="only say what the ledger has: runs, passes in a row, failures"
    )
    add("--keep", action="store_true", help="only put what ran here into ci/ledger.jsonl, to be committed")
    add("--runtime", default="auto", choices=["auto", "k3s", "standin"], help="as for ci/test")
    return parser.parse_args(arguments)


def chosen(only: Iterable[str]) -> tuple[Part, ...]:
    """The parts of these names, or all, in the order in which they run: the short ones first."""
    names = set(only)
    return tuple(part for part in PARTS if not names or part.name in names)


def estimate(parts: Sequence[Part], entries: Sequence[Entry]) -> list[str]:
    """A line for each part with its minutes, and their sum; a part that passed here took as long then."""
    minutes = {part: ledger.minutes(entries, part.name, part.minutes) for part in parts}
    lines = [f"{minutes[part]:5.0f} min  {part.name:26} {part.about}" for part in parts]
    return [*lines, f"{sum(minutes.values()):5.0f} min  all; each part is ended after {MINUTES}"]


def prepare(runtime: str, *, build: bool) -> tuple[Context, str]:
    """Set up; if parts need the x86 image get the runtime and build it, and return its sha256 too."""
    do("ci/setup", cwd=ROOT)
    context = Context(root=ROOT, cache=cache_dir(), work=OUT / "work")
    if not build:
        return context, ""
    answer = subprocess.run(
        ["bash", "-euc", _RUNTIME, "ci/full", runtime],
        check=False,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    if answer.returncode:
        raise PartError(f"there is no runtime (exit status {answer.returncode})")
    name, images, *options = answer.stdout.splitlines()
    do("ci/runtime", cwd=ROOT)  # parts take the stand-in, even where k3s can be had
    print(f"runtime: {name}", flush=True)
    context = dataclasses.replace(
        context, mirror=Path(images).parent, runtime=tuple(options), images=Path(images)
    )
    do("k3img", "build", "--profile", "x86", *options, cwd=ROOT)
    manifest = json.loads((context.image / "manifest.json").read_text(encoding="utf-8"))
    return context, str(manifest["image"]["sha256"])


def one(
    part: Part, context: Context, state: str, image: str, entries: Sequence[Entry], *, resume: bool
) -> Entry:
    """Run a part, or find that it has passed; the ledger has it then."""
    image = image if part.needs_image else ""
    if resume and (before := ledger.passed(entries, part.name, state=state, image=image)):
        print(f"\n== {part.name}: passed on {before.began}", flush=True)
        return before
    print(f"\n== {part.name}: {part.about}", flush=True)
    began = datetime.now(UTC)
    work = OUT / "work" / part.name
    log = OUT / "logs" / f"{part.name}-{began:%Y%m%dT%H%M%S}.log"
    empty(work)
    log.parent.mkdir(parents=True, exist_ok=True)
    mine = dataclasses.replace(context, work=work).to_json()
    argv = [sys.executable, "-B", "-m", "ci.parts", part.name, mine]
    ended = limit.run(argv, log=log, seconds=MINUTES * 60)
    entry = ledger.Entry(
        part=part.name,
        began=began.isoformat(timespec="seconds"),
        seconds=round(ended.seconds, 1),
        state=state,
        image=image,
        passed=not ended.why,
        log=str(log.relative_to(ROOT)),
        why=last_word(log) if ended.status == 1 else ended.why,
    )
    ledger.append(LEDGER, entry)
    if entry.passed:
        keep_reports(work)
    return entry


def last_word(log: Path) -> str:
    """What the part itself said of its failure."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = [line for line in lines if line.startswith("FAILED ")]
    return said[-1].partition(": ")[2] if said else (lines or ["?"])[-1]


def keep_reports(work: Path) -> None:
    """Of a part that passed its reports stay; clones, caches and images go. A failed one keeps all."""
    for folder in work.glob("*/verify"):
        kept = OUT / "reports" / work.name
        empty(kept)
        for file in folder.iterdir():
            file.rename(kept / file.name)
    empty(work)
    work.rmdir()


def table(done: Sequence[Entry]) -> list[str]:
    """How each part ended."""
    lines = ["", f"{'part':26}{'minutes':>8}  result"]
    for entry in done:
        result = "passed" if entry.passed else f"FAILED: {entry.why}  ({entry.log})"
        lines.append(f"{entry.part:26}{entry.seconds / 60:8.1f}  {result}")
    failed = sum(not entry.passed for entry in done)
    lines.append(f"{len(done) - failed} passed, {failed} failed; image {done[-1].image[:12] or '-'}")
    return lines


if __name__ == "__main__":
    # Whoever ends us by a signal wants the machines ended too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    status = main(sys.argv[1:])
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(status)
