"""What the network may know of the node: its name, and what it waits for. systemd-resolved publishes both.

Nothing of it is secret. systemd-resolved takes its own probe for another machine's when addresses come while
it asks (systemd issue 42072; emulated machines do it often), and goes on under a name that nobody looks for.
Started anew, with its addresses there, it keeps the name; a machine that really has a twin loses it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files, resolve
from k3img.node import names

if TYPE_CHECKING:
    from k3img.device.place import Place
    from k3img.device.system import System

TRIES = "mdns-restarts"
"""In `/run/k3img`: how often the name was claimed again in this boot."""

LIMIT = 5

SERVICE = "run/systemd/dnssd/k3img.dnssd"
"""See systemd.dnssd(5). systemd-resolved reads it when it starts, and only then (version 257)."""

EVERY = 60.0
"""Seconds between two changes of what is published: each starts systemd-resolved anew."""

MAX_TEXT = 200
"""Bytes; with its key it must fit into a string of a TXT record, which has 255 (RFC 1035, 3.3.14)."""


def publish(place: Place, *, node: str, role: str, digits: str) -> None:
    """Let `k3img wait` find the node, once systemd-resolved starts. `digits` are the cluster's, of its CA."""
    text = (
        f"[Service]\nName=%H\nType=_k3img._tcp\nPort={names.PORT}\n"
        f"TxtText=node={node} role={role} cluster={digits}\n"
    )
    files.write(place.root / SERVICE, text, durable=False)


def tell(place: Place, system: System, state: str, what: str) -> bool:
    """Publish a state and what the node waits for; nothing once it is ready. Says whether that changed.

    That it starts is news only for who was told something else: an ordinary boot restarts nothing.
    """
    old = files.read_text(place.root / SERVICE)
    if old is None:
        return False
    base, told, _ = old.partition(" state=")
    new = base
    if state != "ready" and (told or state != "starting"):
        new += f' state={state} "waits-for={_quotable(what)}"'
    if new == old:
        return False
    files.write(place.root / SERVICE, f"{new}\n", durable=False)
    _restart(system)
    return True


def _quotable(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text.replace('"', "'").replace("\\", "/"))
    return plain.encode()[:MAX_TEXT].decode(errors="ignore")


def _restart(system: System) -> None:
    system.run(["systemctl", "try-restart", "systemd-resolved.service"])


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
    _restart(system)
