"""Runs a command with a time limit and leaves nothing of it behind, whatever sessions its children made.

k3img, mkosi and QEMU put their children into sessions of their own, so a process group is not enough: we
become the foster parent of all orphans below us (prctl(2), PR_SET_CHILD_SUBREAPER) and end them by descent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PR_SET_CHILD_SUBREAPER = 36

# As Ctrl-C first: k3img and mkosi then remove what they began. Seconds of patience after each.
_ROUNDS = ((signal.SIGINT, 20.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended. `status` is None when its time was over; `left` names what it left running."""

    status: int | None
    seconds: float
    left: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """What was wrong, empty when nothing was."""
        if self.status is None:
            return f"not done after {self.seconds / 60:.0f} minutes, so it was ended"
        if self.status:
            return f"exit status {self.status}"
        return f"left running: {', '.join(self.left)}" if self.left else ""


def run(argv: Sequence[str], *, log: Path, seconds: float, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command, its output here and in `log`; whatever of it still runs at the end is ended.

    An interrupt ends it too, and is passed on.
    """
    adopt_orphans()
    began = time.monotonic()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=env,
    )
    assert child.stdout is not None
    with log.open("wb") as sink:
        reader = threading.Thread(target=_copy, args=(child.stdout, sink), daemon=True)
        reader.start()
        status: int | None = None
        left: tuple[str, ...] = ()
        try:
            status = child.wait(timeout=seconds)
            left = tuple(_name(pid) for pid in _lasting())
        except subprocess.TimeoutExpired:
            pass
        finally:
            end_descendants()
            child.wait()
            _reap()
            reader.join(timeout=10)
    return Ended(status=status, seconds=time.monotonic() - began, left=left)


def adopt_orphans() -> None:
    """From now on, whoever loses its parent below us becomes our child."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int) -> tuple[int, ...]:
    """Process ids of all living processes below `root`, without those that only wait to be reaped."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) and stat[0] != "Z":
            children.setdefault(stat[1], []).append(int(entry.name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return tuple(found)


def _lasting(grace: float = 5) -> tuple[int, ...]:
    """What is still below us after a moment: helpers may end a little later than who started them."""
    deadline = time.monotonic() + grace
    while (found := descendants(os.getpid())) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def end_descendants() -> None:
    """End all processes below us, the patient way first."""
    for number, patience in _ROUNDS:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not descendants(os.getpid()):
                return
            time.sleep(0.2)


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # a program's name may hold spaces and brackets
    return words[0], int(words[1])


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return str(pid)
    return f"{Path(words[0].decode(errors='replace')).name} ({pid})"


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _copy(source: IO[bytes], sink: IO[bytes]) -> None:
    while block := os.read(source.fileno(), 65536):
        sink.write(block)
        sink.flush()
        sys.stderr.buffer.write(block)
        sys.stderr.buffer.flush()
