"""Kubernetes' API as a client outside sees it: HTTPS, by a kubeconfig, which pins the cluster's CA.

Asking from the host costs the guest almost nothing; `kubectl` in it costs seconds when emulated.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from k3img.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = "application/json"
CONTENT = {"PATCH": "application/merge-patch+json"}
"""How bodies are to be understood, by method."""


class ApiError(VerifyError):
    """The API gave no answer, or not the one that was needed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP status and the body as text."""

    status: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body, parsed. Raises `ApiError` when it is not JSON."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise ApiError("the API's answer is not JSON", details=self.text[:400]) from error


class Api:
    """One client with one connection, kept open. Not for several threads: each makes its own."""

    def __init__(
        self, kubeconfig: str, port: int, *, address: str = "127.0.0.1", timeout: float = 30
    ) -> None:
        self._context, name = _context(kubeconfig)
        self._name = name or address
        self._address, self._port = address, port
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """One request. Raises `ApiError` when there is no answer; any HTTP status is an answer."""
        content = None if body is None else json.dumps(body)
        if self._connection is None:
            self._connection = _Named(
                self._address, self._port, context=self._context, timeout=self._timeout, name=self._name
            )
        try:
            self._connection.request(
                method,
                path,
                content,
                {"Content-Type": CONTENT.get(method, JSON), "Accept": "application/json, text/plain"},
            )
            answer = self._connection.getresponse()
            return Answer(status=answer.status, text=answer.read().decode(errors="replace"))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ApiError(f"{method} {path}: {str(error) or type(error).__name__}") from error

    def get(self, path: str) -> Any:
        """The JSON behind a path. Raises `ApiError` unless the API says 200."""
        answer = self.request("GET", path)
        if not answer.ok:
            raise ApiError(f"GET {path}: HTTP {answer.status}", details=answer.text[:400])
        return answer.json()

    def ready(self) -> bool:
        """Whether /readyz says so now. No connection is simply not ready."""
        with suppress(ApiError):
            return self.request("GET", "/readyz").status == http.HTTPStatus.OK
        return False

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def takes_in(address: str, port: int, *, name: str, ca: bytes, token: str, timeout: float = 10) -> bool:
    """Whether the server at an address takes nodes in by a join token (`K10...::USER:PASSWORD`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.decode())
    basic = base64.b64encode(token.partition("::")[2].encode()).decode()
    link = _Named(address, port, context=context, timeout=timeout, name=name)
    try:
        link.request("GET", "/v1-k3s/config", headers={"Authorization": f"Basic {basic}"})
        return link.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


class _Named(http.client.HTTPSConnection):
    """A connection to an address whose certificate is of another name (a kubeconfig's tls-server-name)."""

    def __init__(self, host: str, port: int, *, context: ssl.SSLContext, timeout: float, name: str) -> None:
        super().__init__(host, port, context=context, timeout=timeout)
        self._tls = context
        self._name = name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def condition(thing: Mapping[str, Any], kind: str) -> str:
    """The status (`True`, `False`, `Unknown`, or '' when absent) of one condition of a Node or Pod."""
    conditions = thing.get("status", {}).get("conditions") or ()
    return next((str(c.get("status")) for c in conditions if c.get("type") == kind), "")


def with_server(kubeconfig: str, server: str) -> str:
    """A kubeconfig whose clusters are all reached at `server`."""
    content = yaml.safe_load(kubeconfig)
    for cluster in content["clusters"]:
        cluster["cluster"]["server"] = server
    return yaml.safe_dump(content, sort_keys=False)


def _context(kubeconfig: str) -> tuple[ssl.SSLContext, str]:
    """TLS that trusts the kubeconfig's CA alone and shows its client certificate; and the server's name."""
    try:
        content = yaml.safe_load(kubeconfig)
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        authority, certificate, key = (
            base64.b64decode(text, validate=True)
            for text in (
                cluster["certificate-authority-data"],
                user["client-certificate-data"],
                user["client-key-data"],
            )
        )
        context = ssl.create_default_context(cadata=authority.decode())
        # The ssl module takes a client's key from a file only; ours is gone at once.
        with tempfile.TemporaryDirectory(prefix="k3img-") as folder:
            pem = Path(folder, "client.pem")
            pem.touch(mode=0o600)
            pem.write_bytes(certificate + b"\n" + key)
            context.load_cert_chain(pem)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError, binascii.Error, OSError) as error:
        raise ApiError(f"the node's kubeconfig cannot be used: {type(error).__name__}: {error}") from error
    return context, str(cluster.get("tls-server-name") or "")
