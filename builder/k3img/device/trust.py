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
        status = _ask(search, address, bundle, _credentials(place))
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


def _credentials(place: Place) -> str:
    """`user:password` out of the seed's token `K10<hash>::user:password`."""
    return (files.read_text(place.seed / TOKEN) or "").strip().partition("::")[2]


def _ask(search: Search, address: str, bundle: str, credentials: str) -> int:
    """The status of a path that only nodes with the token may ask for."""
    path = "/v1-k3s/server-bootstrap" if search.role == "server" else "/v1-k3s/config"
    basic = base64.b64encode(credentials.encode()).decode()
    with (
        socket.create_connection((address, PORT), timeout=LIMIT) as plain,
        trusting(bundle).wrap_socket(plain, server_hostname=search.name) as link,
    ):
        return request(link, search.name, "GET", path, headers=(f"Authorization: Basic {basic}",))[0]
