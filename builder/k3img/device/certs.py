"""k3img-certs: k3s renews its certificates only when it starts. A box that is never restarted must be.

Leaf certificates live a year; k3s renews them at a start within their last 120 days. Once a week this looks
whether one has less than 90 days left, and restarts k3s; on a server only while all servers are healthy.
"""

from __future__ import annotations

import binascii
import calendar
import re
from typing import TYPE_CHECKING

from k3img.device import files, outcome, probe
from k3img.node import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.device.kube import Client
    from k3img.device.place import Place
    from k3img.device.system import System

DAYS_LEFT = 90
DAY = 86400
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


def expires(pem: bytes) -> int | None:
    """When the first certificate of a PEM file ends, in Unix seconds; None when there is none to read."""
    body = pem.partition(_BEGIN)[2].partition(_END)[0]
    try:
        certificate = _inside(binascii.a2b_base64(body), 0x30)
        parts = list(_items(_inside(certificate, 0x30)))
        # version [0], serial, algorithm, issuer, validity, ... (RFC 5280, 4.1); the version may be absent
        validity = parts[4 if parts[0][0] == 0xA0 else 3]
        kind, text = list(_items(validity[1]))[1]
        return _time(kind, text.decode())
    except (ValueError, IndexError):
        return None


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER values in `data`: tag and content."""
    at = 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[start : start + count], "big")
            start += count
        yield tag, data[start : start + size]
        at = start + size


def _inside(data: bytes, tag: int) -> bytes:
    found = next(_items(data), None)
    if found is None or found[0] != tag:
        raise ValueError("not the expected DER value")
    return found[1]


def _time(kind: int, text: str) -> int:
    """UTCTime (two digits of the year, 50 and above are the last century) or GeneralizedTime."""
    if kind == 0x17:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    match = re.fullmatch(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z", text)
    if match is None:
        raise ValueError("no time")
    year, month, day, hour, minute, second = map(int, match.groups())
    return calendar.timegm((year, month, day, hour, minute, second))


def soonest(place: Place) -> tuple[int, Path] | None:
    """The leaf certificate that ends first, and when. CAs, which live for decades, do not count."""
    found = []
    for folder in ("server/tls", "server/tls/etcd", "agent"):
        for path in sorted((place.k3s / folder).glob("*.crt")):
            if path.name.endswith("-ca.crt"):
                continue
            when = expires(files.read(path) or b"")
            if when is not None:
                found.append((when, path))
    return min(found, default=None)


def run(place: Place, system: System, client: Client | None = None) -> int:
    """Restart k3s if a certificate is about to end and nothing speaks against it."""
    result = outcome.load(place)
    first = soonest(place)
    if result is None or not outcome.runs(place, result) or first is None:
        system.log("k3s has no certificates here")
        return 0
    when, path = first
    left = int(when - system.now()) // DAY
    if left >= DAYS_LEFT:
        system.log(f"the first certificate to end is {path.name}, in {left} days")
        return 0
    if result.role == "server" and (why := _others_fault(place, client)) is not None:
        system.log(f"{path.name} ends in {left} days, but k3s is not restarted now: {why}")
        return 0
    system.log(f"{path.name} ends in {left} days: k3s is restarted, which renews it")
    done = system.run(["systemctl", "--no-block", "try-restart", names.unit(result.role)])
    return 0 if done.status == 0 else 1


def _others_fault(place: Place, client: Client | None) -> str | None:
    """Why a server must not be restarted now: another one is down already. None: it may."""
    from k3img.device.kube import Client, KubeError  # noqa: PLC0415 - TLS is slow to import

    try:
        client = client or Client(place)
        client.get("/readyz")
        listed = client.json("/api/v1/nodes?labelSelector=node-role.kubernetes.io/control-plane")
        servers = {str(item["metadata"]["name"]): probe.node_state(item) for item in listed["items"]}
    except (KubeError, KeyError, TypeError) as error:
        return f"the API does not answer: {error}"
    down = sorted(name for name, state in servers.items() if not state.ready)
    return f"{', '.join(down)} is not Ready" if down else None
