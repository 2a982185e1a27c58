"""Writes to the cluster that go on until the power is cut, remembered by the host once acknowledged."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from k3img.cluster.api import Api, ApiError
from k3img.errors import K3imgError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

NAMESPACE = "default"
LABEL = "k3img-test=writes"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


class Writer:
    """Makes ConfigMap after ConfigMap, from a thread of its own, through its own connection."""

    def __init__(self, kubeconfig: str, port: int) -> None:
        self._api = Api(kubeconfig, port)
        self._acknowledged: dict[str, str] = {}
        self._stop = threading.Event()
        self._failure = ""
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._api.close()

    @property
    def acknowledged(self) -> Mapping[str, str]:
        """Name and content of each that the API said it had stored (HTTP 201)."""
        return dict(self._acknowledged)

    def wait_for(self, count: int, *, timeout: float) -> None:
        """Return while writing goes on, once `count` are acknowledged. Raises `ApiError` if that fails."""
        deadline = time.monotonic() + timeout
        while len(self._acknowledged) < count:
            if time.monotonic() > deadline or not self._thread.is_alive():
                done = len(self._acknowledged)
                raise ApiError(f"{done} of {count} writes in {timeout:.0f} s", details=self._failure)
            time.sleep(0.02)

    def _write(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            name, content = f"k3img-write-{number:05}", f"{number} " * 64
            try:
                answer = self._api.request("POST", PATH, configmap(name, content))
            except K3imgError as error:
                self._failure = error.brief  # expected: this is how a power cut looks from outside
                return
            if answer.ok:
                self._acknowledged[name] = content
            else:
                self._failure = f"HTTP {answer.status}: {answer.text[:200]}"
                self._stop.wait(0.5)


def configmap(name: str, content: str) -> Mapping[str, object]:
    """The ConfigMap that is written."""
    key, _, value = LABEL.partition("=")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {key: value}},
        "data": {"content": content},
    }


def stored(api: Api) -> Mapping[str, str]:
    """Name and content of all of them that the cluster has."""
    items = api.get(f"{PATH}?labelSelector={LABEL.replace('=', '%3D')}")["items"]
    return {str(item["metadata"]["name"]): str(item["data"]["content"]) for item in items}


def lost(acknowledged: Mapping[str, str], found: Mapping[str, str]) -> tuple[str, ...]:
    """The acknowledged writes that are missing or differ."""
    return tuple(name for name, content in acknowledged.items() if found.get(name) != content)
