"""The node's own name on the network: systemd-resolved publishes it, and may think that it is taken.

It takes its own probe for another machine's when addresses come while it asks (systemd issue 42072; emulated
machines do it often), and goes on under a name that nobody looks for. Started anew, with its
addresses there, it keeps the name; a machine that really has a twin loses it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files, resolve

if TYPE_CHECKING:
    from k3img.device.place import Place
    from k3img.device.system import System

TRIES = "mdns-restarts"
"""In `/run/k3img`: how often the name was claimed again in this boot."""

LIMIT = 5


def published(place: Place, hostname: str) -> bool:
    """Whether systemd-resolved answers for this name itself, or finds who does."""
    return bool(resolve.addresses(place, f"{hostname}.local"))


def claim(place: Place, system: System, hostname: str) -> None:
    """Have the name published again when it is not; a few times at most."""
    tries = len(files.read(place.run / TRIES) or b"")
    if tries >= LIMIT or published(place, hostname):
        return
    files.write(place.run / TRIES, b"." * (tries + 1), durable=False)
    system.log(f"nobody answers as {hostname}.local: systemd-resolved is restarted")
    system.run(["systemctl", "try-restart", "systemd-resolved.service"])
