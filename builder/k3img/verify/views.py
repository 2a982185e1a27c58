"""What a laptop on the lab's network sees of a cluster under test: asked once, or until it answers."""

from __future__ import annotations

import datetime as dt
import secrets
from abc import abstractmethod
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from k3img.cluster.api import ApiError
from k3img.verify import writes
from k3img.vm.verbs import Waits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.cluster.api import Answer, Api

ONCE = 10
"""Seconds for an answer to a question that is asked again and again."""

ANSWER = 60
"""Seconds (stretched) until a server that is Ready has to have answered: an emulated one may miss `ONCE`."""


class Views(Waits):
    """What is asked of the cluster's servers, by their names."""

    @abstractmethod
    def api(self, name: str, *, timeout: float = 30) -> Api:
        """A server's API, by the kubeconfig that the builder made."""

    def listed(self, name: str) -> dict[str, Any]:
        """The Nodes that a server lists now, by name; empty when it does not answer."""
        api = self.api(name, timeout=ONCE)
        try:
            return {item["metadata"]["name"]: item for item in api.get("/api/v1/nodes")["items"]}
        except ApiError:
            return {}
        finally:
            api.close()

    def nodes(self, name: str) -> dict[str, Any]:
        """The Nodes that a server lists, by name. Raises `WaitError` when it does not answer at all."""
        return self.wait_until(f"the Nodes that {name} lists", lambda: self.listed(name), timeout=ANSWER)

    def uid(self, name: str) -> str:
        """The cluster's own identity, that of kube-system, as a server tells it."""
        answer = self._ask(name, "GET", "/api/v1/namespaces/kube-system", good=(HTTPStatus.OK,))
        return str(answer.json()["metadata"]["uid"])

    def keep(self, what: str, *, through: str) -> None:
        """Write a ConfigMap through a server; see `has`. That it is there already is as good."""
        made = (HTTPStatus.CREATED, HTTPStatus.CONFLICT)
        self._ask(through, "POST", writes.PATH, writes.configmap(what, "here"), good=made)

    def has(self, what: str, *, seen_by: str) -> bool:
        """Whether a server knows what `keep` wrote."""
        known = (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
        answer = self._ask(seen_by, "GET", f"{writes.PATH}/{what}", good=known)
        return answer.status == HTTPStatus.OK

    def _ask(
        self,
        name: str,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        good: tuple[HTTPStatus, ...],
    ) -> Answer:
        """The answer to a request that may be repeated, once it is a good one."""
        said = ""

        def probe() -> Answer | None:
            nonlocal said
            api = self.api(name)
            try:
                answer = api.request(method, path, body)
            except ApiError as error:
                said = error.brief
                return None
            finally:
                api.close()
            said = f"HTTP {answer.status}: {answer.text[:400]}"
            return answer if answer.status in good else None

        return self.wait_until(
            f"{name}'s answer to {method} {path}", probe, timeout=ANSWER, evidence=lambda: said
        )

    def answers(self, name: str, size: int = 1, *, timeout: float = ONCE) -> bool:
        """Whether a server's API takes a write of so many bytes now, and has it afterwards."""
        written = f"asked-{secrets.token_hex(8)}"
        api = self.api(name, timeout=timeout)
        try:
            made = api.request("POST", writes.PATH, writes.configmap(written, "x" * size))
            return made.status == 201 and api.request("GET", f"{writes.PATH}/{written}").status == 200
        except ApiError:
            return False
        finally:
            api.close()

    def reported(self, name: str, *, seen_by: str) -> dt.datetime | None:
        """When a node's kubelet last renewed its lease, by that node's clock; None without an answer."""
        lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        api = self.api(seen_by, timeout=ONCE)
        try:
            return dt.datetime.fromisoformat(api.get(lease)["spec"]["renewTime"])
        except ApiError:
            return None
        finally:
            api.close()
