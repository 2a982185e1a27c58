"""Names of this network's machines, asked of systemd-resolved over its socket: no program is started."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k3img.device.place import Place

SOCKET = "run/systemd/resolve/io.systemd.Resolve"
METHOD = "io.systemd.Resolve.ResolveHostname"
MAX_ANSWER = 1 << 16


def addresses(place: Place, name: str, *, timeout: float = 6.0) -> tuple[str, ...]:
    """The IPv4 addresses of a host name, `.local` ones by mDNS; empty when nobody has that name."""
    request = {"method": METHOD, "parameters": {"name": name, "family": int(socket.AF_INET), "flags": 0}}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            link.connect(str(place.root / SOCKET))
            # Varlink: JSON, ended by a zero byte (varlink.org).
            link.sendall(json.dumps(request).encode() + b"\0")
            answer = bytearray()
            while not answer.endswith(b"\0") and len(answer) < MAX_ANSWER and (piece := link.recv(4096)):
                answer += piece
        found = json.loads(answer.rstrip(b"\0"))["parameters"].get("addresses") or []
        return tuple(socket.inet_ntoa(bytes(item["address"])) for item in found if item["family"] == 2)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
