"""Bring a cluster back that lost its quorum or all its addresses: asked for by a file `cluster-reset`.

k3s makes this server etcd's only member, with the data that it has (`k3s server --cluster-reset`; facts: k3s,
9); the data as they were stay beside it. The other servers then join as re-flashed ones do. Each step is
remembered on root, so that a power cut neither loses the copy nor resets twice.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from k3img.device import files, outcome
from k3img.device.seedpart import look_for
from k3img.node.medium import CLUSTER_RESET

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.device.place import Place
    from k3img.device.system import System

ASKED, COPIED, DONE = "asked", "copied", "done"
"""In `/var/lib/k3img/cluster-reset`: how far it is."""

COPY = "etcd-before-cluster-reset"
"""Beside k3s' `etcd`: the data of before the last reset."""

LIMIT = 900.0
"""Seconds for k3s to do it."""


def ask(place: Place, folder: Path) -> tuple[bool, tuple[str, ...]]:
    """See whether the seed partition asks for a reset: whether one is to be done now, and what to tell."""
    request, state = look_for(folder, CLUSTER_RESET), _state(place)
    if request is None:
        files.remove(place.state / CLUSTER_RESET)
        return False, ()
    if state == DONE:
        request.replace(folder / f"{CLUSTER_RESET}.done")
        files.sync_folder(folder)
        files.remove(place.state / CLUSTER_RESET)
        return False, ("the cluster reset is done",)
    if not (place.k3s / "server/db/etcd/member/wal").exists():
        return False, (f"{CLUSTER_RESET} does nothing here: this card holds no etcd data",)
    if state != COPIED:
        files.write(place.state / CLUSTER_RESET, ASKED)
    return True, ()


def run(place: Place, system: System) -> int:
    """Do what was asked for, before k3s starts. Returns 1 when k3s could not, which people are told."""
    if _state(place) == ASKED:
        if not _copy(system, place.k3s / "server/db"):
            _tell(place, "the cluster reset was not begun: there is no room for a copy of etcd's data")
            return 1
        files.write(place.state / CLUSTER_RESET, COPIED)
    if _state(place) != COPIED:
        return 0
    # k3s refuses a second reset while it finds the flag of an earlier one.
    files.remove(place.k3s / "server/db/reset-flag")
    k3s = "/usr/lib/k3s/bin/k3s"
    done = system.run([k3s, "server", "--cluster-reset"], timeout=LIMIT, path=os.environ.get("PATH"))
    if done.status == 0:
        files.write(place.state / CLUSTER_RESET, DONE)
        _tell(place, "the cluster was reset: this server is etcd's only member; write the other servers anew")
        return 0
    system.log(done.output[-2000:])
    last = done.output.splitlines()[-1][-200:] if done.output else f"status {done.status}"
    _tell(place, f"the cluster reset failed and is tried again at the next boot: {last}")
    return 1


def _state(place: Place) -> str:
    return files.read_text(place.state / CLUSTER_RESET) or ""


def _copy(system: System, db: Path) -> bool:
    whole, part = db / COPY, db / f"{COPY}.part"
    system.run(["rm", "-rf", str(part)])
    done = system.run(["cp", "-a", str(db / "etcd"), str(part)], timeout=LIMIT)
    if done.status != 0:
        system.log(done.output[-500:])
        return False
    system.run(["rm", "-rf", str(whole)])
    part.rename(whole)
    system.sync()
    return True


def _tell(place: Place, note: str) -> None:
    if (known := outcome.load(place)) is not None:
        outcome.save(place, replace(known, notes=(*known.notes, note)))
