"""What first boot decided, handed to the other services in `/run/k3img/node.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from k3img.device import files

if TYPE_CHECKING:
    from k3img.device.place import Place


class Go(StrEnum):
    """What happens next: k3s runs, something outside must come first, or a person must act.

    JOIN: k3s runs as soon as k3img-discover has found a server.
    """

    RUN = "run"
    JOIN = "join"
    WAIT = "wait"
    STOP = "stop"
    REBOOT = "reboot"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The node as it is in this boot.

    `what` is the one thing that it waits for or that stopped it, `todo` what a person can do. `problems`
    are those of a bad node.yaml. `notes` are things to know that stop nothing. `seed_device` is the seed
    partition's device node, empty when there is none; `source` says which seed was taken. `address` and
    `gateway` are those that node.yaml fixes, `gateway_line` where it does (`node.yaml:7`).
    """

    go: Go
    node: str = ""
    hostname: str = ""
    role: str = "server"
    cluster: str = ""
    standalone: bool = False
    what: str = ""
    todo: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    seed_device: str = ""
    bootstrap: bool = False
    address: str = ""
    gateway: str = ""
    gateway_line: str = ""


def runs(place: Place, outcome: Outcome) -> bool:
    """k3s has leave to run: its unit's condition is there."""
    return outcome.go is Go.RUN or (outcome.go is Go.JOIN and (place.run / f"run-{outcome.role}").exists())


def let_run(place: Place, role: str) -> None:
    """Give k3s leave to run: the condition of its unit."""
    files.write(place.run / f"run-{role}", "")


def save(place: Place, outcome: Outcome) -> None:
    """Write it for the other services."""
    files.write(place.run / "node.json", json.dumps(asdict(outcome), indent=1) + "\n")


def load(place: Place) -> Outcome | None:
    """What first boot decided; None before it has, or when the file is no such thing."""
    try:
        raw = json.loads((place.run / "node.json").read_text())
        for name in ("problems", "notes"):
            raw[name] = tuple(map(str, raw[name]))
        return Outcome(go=Go(raw.pop("go")), **raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
