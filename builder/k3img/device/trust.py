"""Is a server what it says? The pinned CA and the cluster's name decide; then, whether it takes our token."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.device import files
from k3img.device.kube import KubeError, exchange, request, trusting
from k3img.node.medium import TOKEN
from k3img.node.names import PORT

if TYPE_CHECKING:
    from k3img.device.discover import Search
    from k3img.device.place import Place

LIMIT = 5.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether an address is a server of our cluster; if not, why, and how telling that is (`weight`).

    `slow` says that only a person can change it: it is asked for again less often.
    """

    good: bool = False
    text: str = ""
    todo: str = ""
    weight: int = 0
    slow: bool = False


def fetch_ca(address: str) -> bytes:
    """The CA file that a server shows to anybody. Raises `OSError`, `KubeError`."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address, PORT), timeout=LIMIT) as plain,
        anybody.wrap_socket(plain) as link,
    ):
        return exchange(link, address, "/cacerts")


def pinned(search: Search, address: str) -> str:
    """The CA file if it is the one that the seed names. Raises `LookupError` when it is another."""
    bundle = fetch_ca(address)
    if hashlib.sha256(bundle).hexdigest() != search.ca_hash:
        raise LookupError(address)
    return bundle.decode()


def check(place: Place, search: Search, address: str) -> Verdict:
    """Prove an address, then try our token on it."""
    try:
        bundle = pinned(search, address)
    except LookupError:
        return Verdict(
            text=f"{address} belongs to another cluster (its CA is not ours)",
            todo="If that is the server, this node was seeded for another cluster: seed it again.",
            weight=1,
            slow=True,
        )
    except (OSError, KubeError):
        return Verdict(text=f"{address} does not answer on port {PORT}", todo="Power the server on.")
    try:
        path = "/v1-k3s/server-bootstrap" if search.role == "server" else "/v1-k3s/config"
        token = files.read_text(place.seed / TOKEN) or ""
        status = ask(address, search.name, bundle, token, "GET", path)
    except (OSError, ValueError, KubeError) as error:
        return Verdict(
            text=f"{address} cannot prove to be {search.name}: {error}",
            todo="Another machine has the server's address.",
            weight=2,
            slow=True,
        )
    if status in {401, 403} and not place.has_joined():
        return Verdict(
            text=f"{address} refuses this node's token",
            todo=f"Seed it again: `k3img seed --node {search.node}`.",
            weight=3,
            slow=True,
        )
    return Verdict(good=True)


def ask(
    address: str,
    name: str,
    bundle: str,
    token: str,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    timeout: float = LIMIT,
) -> int:
    """The status of what only nodes with a token (`K10<hash>::user:password`) may ask a server for."""
    basic = base64.b64encode(token.strip().partition("::")[2].encode()).decode()
    headers = (f"Authorization: Basic {basic}", *(("Content-Type: application/json",) if body else ()))
    with (
        socket.create_connection((address, PORT), timeout=timeout) as plain,
        trusting(bundle).wrap_socket(plain, server_hostname=name) as link,
    ):
        return request(link, name, method, path, body, headers=headers)[0]
