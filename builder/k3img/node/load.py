"""node.yaml: read with every problem at once, and written in one canonical form.

The node's own keys are those of a profile's `cluster.nodes`, beside them lies what it must know of its
cluster. The same code runs on the builder and on the node.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from k3img.errors import ProfileError
from k3img.node import check
from k3img.node.model import DatastoreKind, Network, Node, NodeConfig, Role
from k3img.node.strictyaml import Reader, compose

if TYPE_CHECKING:
    import yaml

NODE_KEYS = (
    *("name", "role", "initializer", "address", "gateway", "dns", "ntp", "dhcp-reserved", "mac", "vlan"),
    *("bond", "serial", "labels", "taints", "options"),
)
"""Keys of the node itself."""

CLUSTER_KEYS = (
    *("cluster", "datastore", "bootstrap", "issued", "ca-hash", "endpoint", "servers", "registries"),
    "ssh-keys",
)
"""Keys of a node.yaml beside those of the node."""

_PLAIN = re.compile(r"[A-Za-z][-A-Za-z0-9_./]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def load(data: bytes, file: str) -> NodeConfig:
    """A node.yaml's bytes as a checked `NodeConfig`; `file` is how problems name it.

    Raises `ProfileError` with every problem of it.
    """
    root = compose(data, file)
    reader = Reader(file)
    fields = reader.mapping(root, "", (*NODE_KEYS, *CLUSTER_KEYS))
    if not fields and not reader.problems:
        reader.fault("", "has no `key: value` lines")
    for needed in ("name", "cluster") if fields else ():
        if needed not in fields and not any(problem.path == needed for problem in reader.problems):
            reader.fault(needed, "is missing", f"Write {needed}: as it is in the profile.")
    config = _config(reader, fields)
    reader.check((key, fault) for key, fault in check.config(config) if _given(key, fields))
    if reader.problems:
        raise ProfileError(reader.problems)
    return config


def _given(key: str, fields: dict[str, yaml.Node]) -> bool:
    return re.split(r"[.\[]", key, maxsplit=1)[0] in fields


def _config(reader: Reader, fields: dict[str, yaml.Node]) -> NodeConfig:
    def text(key: str) -> str | None:
        return reader.text(fields[key], key) if key in fields else None

    def texts(key: str) -> tuple[str, ...]:
        return reader.texts(fields[key], key) if key in fields else ()

    kind = None
    if "datastore" in fields:
        kind = reader.choice(fields["datastore"], "datastore", list(DatastoreKind))
    registries = reader.plain(fields["registries"], "registries") if "registries" in fields else {}
    if not isinstance(registries, dict):
        reader.fault("registries", "must be a list of `key: value`")
        registries = {}
    return NodeConfig(
        node=_node(reader, fields),
        cluster=text("cluster") or "",
        datastore=DatastoreKind(kind or DatastoreKind.SQLITE),
        bootstrap=reader.flag(fields["bootstrap"], "bootstrap") if "bootstrap" in fields else False,
        issued=_issued(reader, fields["issued"]) if "issued" in fields else 0,
        ca_hash=text("ca-hash"),
        endpoint=text("endpoint"),
        servers=texts("servers"),
        registries=registries,
        ssh_keys=texts("ssh-keys"),
    )


def _node(reader: Reader, fields: dict[str, yaml.Node]) -> Node:
    role = reader.choice(fields["role"], "role", list(Role)) if "role" in fields else None
    labels = {
        key: text
        for key, value in (reader.mapping(fields["labels"], "labels") if "labels" in fields else {}).items()
        if (text := reader.text(value, f"labels.{key}")) is not None
    }
    options = {
        key: reader.plain(value, f"options.{key}")
        for key, value in (
            reader.mapping(fields["options"], "options") if "options" in fields else {}
        ).items()
    }
    return Node(
        name=(reader.text(fields["name"], "name") if "name" in fields else None) or "",
        role=Role(role or Role.SERVER),
        initializer=reader.flag(fields["initializer"], "initializer") if "initializer" in fields else False,
        network=_network(reader, fields),
        serial=reader.text(fields["serial"], "serial", lenient=True) if "serial" in fields else None,
        labels=labels,
        taints=reader.texts(fields["taints"], "taints") if "taints" in fields else (),
        options=options,
    )


def _network(reader: Reader, fields: dict[str, yaml.Node]) -> Network:
    # Lenient: YAML 1.1 takes 10:11:22:33:44:55 for a number in base 60; its spelling is what counts.
    def text(key: str) -> str | None:
        return reader.text(fields[key], key, lenient=True) if key in fields else None

    def texts(key: str) -> tuple[str, ...]:
        return reader.texts(fields[key], key, lenient=True) if key in fields else ()

    mac = text("mac")
    return Network(
        address=text("address") or "dhcp",
        gateway=text("gateway"),
        dns=texts("dns"),
        ntp=texts("ntp"),
        dhcp_reserved=reader.flag(fields["dhcp-reserved"], "dhcp-reserved")
        if "dhcp-reserved" in fields
        else False,
        mac=mac.lower() if mac else None,
        vlan=reader.number(fields["vlan"], "vlan") if "vlan" in fields else None,
        bond=tuple(card.lower() if ":" in card else card for card in texts("bond")),
    )


def _issued(reader: Reader, node: yaml.Node) -> int:
    text = reader.text(node, "issued", lenient=True)
    if text is None:
        return 0
    if text.isdecimal():
        return int(text)
    try:
        when = dt.datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
        return int(when.timestamp())
    except (ValueError, OverflowError):
        reader.fault("issued", f"{text!r} is no date", "Write one such as 2026-11-25T08:00:00Z.")
        return 0


def dump(config: NodeConfig) -> str:
    """The canonical text of a node.yaml; `load` gives back the same `NodeConfig`."""
    node, net = config.node, config.node.network
    issued = dt.datetime.fromtimestamp(config.issued, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pairs: list[tuple[str, Any]] = [
        ("name", node.name),
        ("role", str(node.role)),
        ("cluster", config.cluster),
        ("datastore", str(config.datastore)),
        ("initializer", node.initializer),
        ("bootstrap", config.bootstrap),
        ("address", net.address),
        ("gateway", net.gateway),
        ("dns", list(net.dns)),
        ("ntp", list(net.ntp)),
        ("dhcp-reserved", net.dhcp_reserved),
        ("mac", net.mac),
        ("vlan", net.vlan),
        ("bond", list(net.bond)),
        ("serial", node.serial),
        ("labels", dict(node.labels)),
        ("taints", list(node.taints)),
        ("options", dict(node.options)),
        ("endpoint", config.endpoint),
        ("servers", list(config.servers)),
        ("ca-hash", config.ca_hash),
        ("registries", dict(config.registries)),
        ("ssh-keys", list(config.ssh_keys)),
        ("issued", issued if config.issued else None),
    ]
    always = {"name", "role", "cluster", "datastore", "address"}
    lines = [f"{key}: {scalar(value)}" for key, value in pairs if key in always or value]
    return "\n".join(lines) + "\n"


def scalar(value: Any) -> str:
    """One value on one line of YAML: simple words plain, everything else as JSON, which YAML can read."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
