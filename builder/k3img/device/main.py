"""`python3 -IS /usr/lib/k3img/start.py SERVICE`: what each unit runs. Nothing here ends in a traceback.

Only the module of the service is imported: under emulation, imports are most of a service's seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files, outcome
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place
from k3img.device.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NODE_CONFIG = "k3s/config.yaml.d/20-node.yaml"


def main(argv: Sequence[str], *, place: Place | None = None, system: System | None = None) -> int:
    """Run one service to its end and return its exit status."""
    place, system = place or Place(), system or System()
    services: dict[str, Callable[[Place, System], int]] = {
        "firstboot": _firstboot,
        "clock": _clock,
        "address": _address,
        "discover": _discover,
        "cluster-reset": _cluster_reset,
        "status": _status,
        "tokens": _tokens,
        "health": _health,
        "certs": _certs,
    }
    service = services.get(argv[0]) if argv else None
    if service is None:
        system.log(f"usage: start.py {'|'.join(services)}")
        return 2
    try:
        return service(place, system)
    except Exception as error:  # noqa: BLE001 - a traceback helps nobody at a console
        system.log(f"{argv[0]}: {describe(error)}")
        if argv[0] == "firstboot":
            _go_on_as_before(place, system, error)
        return 1


def describe(error: BaseException) -> str:
    """An error with the places it came through, on one line."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({' > '.join(places)})"


def _firstboot(place: Place, system: System) -> int:
    from k3img.device import firstboot  # noqa: PLC0415

    result = firstboot.run(place, system)
    system.log(f"{result.go}: node {result.node}, {result.what or 'k3s may start'}")
    for line in (*result.problems, *result.notes):
        system.log(line)
    if result.go is Go.REBOOT:
        system.run(["systemctl", "--no-block", "reboot"])
    return 0


def _go_on_as_before(place: Place, system: System, error: Exception) -> None:
    """First boot broke. A node that was configured by an earlier boot runs on with that; a new one stops."""
    known = (place.rancher / NODE_CONFIG).exists() and (place.has_datastore() or place.has_joined())
    role = "server" if place.has_datastore() else "agent"
    text = f"k3img-firstboot failed: {describe(error)}"
    result = Outcome(
        go=Go.RUN if known else Go.STOP,
        node=files.read_text(place.root / "etc/hostname") or "",
        role=role,
        what="" if known else text,
        todo="" if known else "Restart; if it fails again, write the medium anew and report this.",
        notes=(text,) if known else (),
    )
    try:
        outcome.save(place, result)
        if known:
            outcome.let_run(place, role)
    except OSError as second:
        system.log(describe(second))


def _clock(place: Place, system: System) -> int:
    from k3img.device import clock  # noqa: PLC0415

    clock.wait(place, system)
    return 0


def _address(place: Place, system: System) -> int:
    from k3img.device import address  # noqa: PLC0415

    try:
        address.apply(place, system)
    except LookupError as error:
        system.log(f"no address for k3s: {error}")
        return 1
    return 0


def _discover(place: Place, system: System) -> int:
    from k3img.device import discover  # noqa: PLC0415

    return discover.run(place, system)


def _cluster_reset(place: Place, system: System) -> int:
    from k3img.device import clusterreset  # noqa: PLC0415

    return clusterreset.run(place, system)


def _status(place: Place, system: System) -> int:
    from k3img.device import status  # noqa: PLC0415

    return status.run(place, system)


def _tokens(place: Place, system: System) -> int:
    from k3img.device import tokens  # noqa: PLC0415

    return tokens.run(place, system)


def _health(place: Place, system: System) -> int:
    from k3img.device import health  # noqa: PLC0415

    return health.run(place, system)


def _certs(place: Place, system: System) -> int:
    from k3img.device import certs  # noqa: PLC0415

    return certs.run(place, system)
