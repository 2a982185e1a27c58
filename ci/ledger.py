"""The ledger of ci/full: one JSON line for each part that ran, and what --resume makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run of one part.

    `began` is UTC, ISO 8601; `state` the commit, with a digest of what was not committed; `image` the
    sha256 of the x86 image, empty for a part that needs none; `why` says why it failed.
    """

    part: str
    began: str
    seconds: float
    state: str
    image: str
    passed: bool
    log: str
    why: str = ""


def read(path: Path) -> tuple[Entry, ...]:
    """All entries, oldest first. A line that cannot be read (a run was killed) is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            found.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return tuple(found)


def append(path: Path, entry: Entry) -> None:
    """Add an entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(entry)) + "\n")


def merged(*ledgers: Iterable[Entry]) -> tuple[Entry, ...]:
    """The entries of several ledgers, each once, oldest first."""
    every = dict.fromkeys(entry for entries in ledgers for entry in entries)
    return tuple(sorted(every, key=lambda entry: entry.began))


def write(path: Path, entries: Iterable[Entry]) -> None:
    """Write a whole ledger, in the place of what was there."""
    lines = [json.dumps(dataclasses.asdict(entry)) + "\n" for entry in entries]
    part = path.with_name(path.name + ".part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(path)


def passed(entries: Iterable[Entry], part: str, *, state: str, image: str) -> Entry | None:
    """The part's last run for this very state and image, if it passed; a later failure undoes a pass."""
    last = None
    for entry in entries:
        if (entry.part, entry.state, entry.image) == (part, state, image):
            last = entry
    return last if last is not None and last.passed else None


def history(entries: Iterable[Entry]) -> list[str]:
    """For people: each part with each image, its passes in a row up to now, and every failure on the way."""
    runs: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        runs.setdefault((entry.image, entry.part), []).append(entry)
    lines = [f"{'image':14}{'part':28}{'runs':>5}  passes in a row"]
    for (image, part), each in runs.items():
        failures = [number for number, entry in enumerate(each, 1) if not entry.passed]
        row = len(each) - (failures[-1] if failures else 0)
        lines.append(f"{image[:12] or '-':14}{part:28}{len(each):5}  {row}")
        lines += [
            f"{'':14}{each[n - 1].began} FAILED: {each[n - 1].why}  ({each[n - 1].log})" for n in failures
        ]
    return lines


def minutes(entries: Iterable[Entry], part: str, default: float) -> float:
    """How long the part will take: as long as when it passed here last, else `default`."""
    seconds = [entry.seconds for entry in entries if entry.part == part and entry.passed]
    return seconds[-1] / 60 if seconds else default


def state_of(root: Path) -> str:
    """The commit of a checkout; with changes `COMMIT+DIGEST`, the digest of them all."""

    def git(*words: str) -> bytes:
        argv = ["git", "-c", "safe.directory=*", "-C", str(root), *words]
        return subprocess.run(argv, check=True, capture_output=True).stdout

    commit = git("rev-parse", "HEAD").decode().strip()
    total = hashlib.sha256(git("diff", "--binary", "HEAD"))
    new = [name for name in git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0") if name]
    for name in sorted(new):
        path = root / name.decode()
        total.update(name + b"\0" + (path.read_bytes() if path.is_file() else b""))
    clean = not new and not git("diff", "--name-only", "HEAD")
    return commit if clean else f"{commit}+{total.hexdigest()[:12]}"
