"""Asking Kubernetes, with the kubeconfig that k3s wrote on this node and nothing but the library.

HTTP/1.0 by hand: `http.client` pulls in the whole e-mail package, which costs a second under emulation.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.device.place import Place

MERGE = "application/merge-patch+json"
"""What a PATCH of ours sends: what is not in it stays as it is."""

MAX_ANSWER = 8 << 20
_FIELD = re.compile(
    r"^\s*(server|(?:certificate-authority|client-certificate|client-key)(?:-data)?):\s*(\S+)", re.M
)


class KubeError(Exception):
    """The API server did not answer, or not with what was asked for."""


def split_url(url: str) -> tuple[str, int]:
    """Host and port of an `https://` URL."""
    host, _, port = url.removeprefix("https://").rstrip("/").rpartition(":")
    return host.strip("[]"), int(port)


def fields(kubeconfig: str) -> dict[str, str]:
    """The four values of a kubeconfig with one cluster and one user; certificates may be files' paths."""
    return dict(_FIELD.findall(kubeconfig))


class Client:
    """Requests to the API server: as the administrator on a server, as the kubelet on an agent."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._stamp: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None
        self._server = ("127.0.0.1", 6443)

    def get(self, path: str, *, timeout: float = 10) -> bytes:
        """The answer's body. Raises `KubeError` when there is none, or its status is not 200."""
        return self._send("GET", path, timeout=timeout)

    def annotate(self, path: str, annotations: Mapping[str, str]) -> None:
        """Add to an object's annotations. Raises `KubeError` when that is not allowed."""
        body = json.dumps({"metadata": {"annotations": dict(annotations)}}).encode()
        self._send("PATCH", path, body, (f"Content-Type: {MERGE}",))

    def _send(
        self, method: str, path: str, body: bytes = b"", headers: tuple[str, ...] = (), *, timeout: float = 10
    ) -> bytes:
        try:
            context = self._prepare()
            with (
                socket.create_connection(self._server, timeout=timeout) as plain,
                context.wrap_socket(plain, server_hostname=self._server[0]) as link,
            ):
                return exchange(link, self._server[0], path, method=method, body=body, headers=headers)
        except (OSError, ValueError, KeyError) as error:
            raise KubeError(str(error)) from error

    def json(self, path: str) -> Any:
        """The answer as JSON."""
        try:
            return json.loads(self.get(path))
        except ValueError as error:
            raise KubeError(str(error)) from error

    def _prepare(self) -> ssl.SSLContext:
        """The TLS context of the present kubeconfig; k3s writes a new one when it renews certificates."""
        path = self._place.api_access()
        stat = path.stat()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if self._context is None or stamp != self._stamp:
            found = fields(path.read_text())
            self._context = _context(self._place, found)
            self._server = split_url(found["server"])
            self._stamp = stamp
        return self._context


def trusting(bundle: str) -> ssl.SSLContext:
    """TLS that trusts these certificates (PEM) and no others."""
    # Not create_default_context: its strictness of Python 3.13 refuses CAs such as k3s makes.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=bundle)
    return context


def _context(place: Place, found: dict[str, str]) -> ssl.SSLContext:
    context = trusting(_pem(place, found, "certificate-authority").decode())
    # The library reads a key from a file only; this one has no name and goes with the process.
    handle = os.memfd_create("k3img", os.MFD_CLOEXEC)
    try:
        both = (_pem(place, found, "client-certificate"), _pem(place, found, "client-key"))
        os.write(handle, b"\n".join(both))
        context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return context


def _pem(place: Place, found: dict[str, str], name: str) -> bytes:
    if (text := found.get(f"{name}-data")) is not None:
        return base64.b64decode(text)
    return (place.root / found[name].lstrip("/")).read_bytes()


def request(
    link: socket.socket,
    host: str,
    method: str,
    path: str,
    data: bytes = b"",
    *,
    headers: tuple[str, ...] = (),
) -> tuple[int, bytes]:
    """Send one request over a connection, return status and body. Raises `KubeError` for no HTTP."""
    lines = [f"{method} {path} HTTP/1.0", f"Host: {host}", "Accept: application/json", "User-Agent: k3img"]
    lines += [*headers, *([f"Content-Length: {len(data)}"] if data else [])]
    link.sendall("\r\n".join([*lines, "", ""]).encode() + data)
    answer = bytearray()
    while len(answer) < MAX_ANSWER and (piece := link.recv(1 << 16)):
        answer += piece
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not status or not status[0].isdigit():
        raise KubeError(f"{path}: {head[:80].decode(errors='replace')!r}")
    return int(status[0]), body


def exchange(
    link: socket.socket,
    host: str,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    headers: tuple[str, ...] = (),
) -> bytes:
    """Send one request, return the body of a 200. Raises `KubeError` for another status."""
    status, answer = request(link, host, method, path, body, headers=headers)
    if status != 200:
        raise KubeError(f"{path}: status {status}")
    return answer


def plain_get(host: str, port: int, path: str, *, context: ssl.SSLContext | None = None) -> bytes:
    """A GET without the kubeconfig: kubelet's and etcd's own health. Raises `KubeError`."""
    try:
        with socket.create_connection((host, port), timeout=10) as plain:
            if context is None:
                return exchange(plain, host, path)
            with context.wrap_socket(plain, server_hostname=host) as link:
                return exchange(link, host, path)
    except OSError as error:
        raise KubeError(str(error)) from error
