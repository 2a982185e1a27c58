"""The kubeconfig of a cluster: known before any node is powered, because the CA is."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import yaml

from k3img.node.names import PORT, server_name

if TYPE_CHECKING:
    from k3img.cluster.ca import Pair


def url(address: str, port: int = PORT) -> str:
    """Where an API is; `address` is a name or an address, of IPv6 too."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def text(cluster: str, ca: bytes, admin: Pair, *, address: str, port: int = PORT) -> str:
    """A kubeconfig with one context; `ca` is the server CA, PEM, `address` a name or an address."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": cluster,
                "cluster": {
                    "server": url(address, port),
                    "tls-server-name": server_name(cluster),
                    "certificate-authority-data": _packed(ca),
                },
            }
        ],
        "users": [
            {
                "name": f"{cluster}-admin",
                "user": {
                    "client-certificate-data": _packed(admin.certificate),
                    "client-key-data": _packed(admin.key),
                },
            }
        ],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": f"{cluster}-admin"}}],
        "current-context": cluster,
    }
    return yaml.safe_dump(content, sort_keys=False)


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode()
