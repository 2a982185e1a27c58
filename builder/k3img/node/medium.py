"""Names on a medium that the builder writes and the node reads: the seed partition's files and marks."""

from __future__ import annotations

from typing import Final

SEED_LABEL: Final = "K3IMG"
"""Name of the seed partition in the GPT, and label of its FAT."""

NODE_FILE: Final = "node.yaml"
SECRETS: Final = "secrets"
"""Folder of what the node must keep to itself; moved to the root partition on first boot."""

AGENTS: Final = "agents"
"""Of a seed that agents share: `agents/KEY/node.yaml` and `secrets/agents/KEY/` for each, KEY from
`names.match_key`. A machine takes the one that is its own."""

TOKEN: Final = "token"
"""In `secrets/`: the token a node joins by (`K10...::server:...`, for agents `K10...::node:...`)."""

AGENT_TOKEN: Final = "agent-token"
"""In `secrets/`, servers only: the token that agents join by."""

NODE_PASSWORD: Final = "node-password"
"""In `secrets/`: what proves to a server that a re-flashed node is the one it was."""

ADMIN: Final = "admin"
"""In `secrets/`, etcd servers only, with `.crt` and `.key`: an administrator's certificate. By it a server
whose disk is new makes room for itself among the members."""

DATASTORE_ENDPOINT: Final = "datastore-endpoint"
"""In `secrets/`: the URL of an external datastore, with its password."""

TLS: Final = "tls"
"""In `secrets/`, servers only: CA files, laid out as in k3s' `server/tls/`."""

STATUS: Final = "status.txt"
STATUS_SIZE: Final = 4096
"""Bytes of `status.txt`: the node overwrites it in place, so that its FAT entry never changes size."""

README: Final = "README.txt"
KUBECONFIG: Final = "kubeconfig.yaml"
"""Written by an unseeded node once it is Ready."""

BOOTSTRAP_DONE: Final = "bootstrap.done"
"""Beside node.yaml: the right to make a datastore has been used."""

FACTORY_RESET: Final = "factory-reset"
CLUSTER_RESET: Final = "cluster-reset"

CREDENTIAL: Final = "k3img.seed"
"""The systemd credential that seeds a virtual machine: a node.yaml, or a tar (gzip allowed) of the files
that would lie on the seed partition (`node.yaml`, `secrets/...`)."""

SEEDED_BIT: Final = 1 << 48
"""GPT attribute of the seed partition on a medium that was seeded: it survives the FAT being emptied."""
