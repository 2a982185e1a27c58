"""The kinds that are written in a shape of their own: datastore, nodes, k3s options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from k3img.node import check, flags
from k3img.node.model import DatastoreKind, Network, Node, Role
from k3img.profile.kinds import BAD, Choice, Flag, Integer, Kind, Text
from k3img.profile.source import Scalar
from k3img.profile.tables import Free, Key, ListOf, MapOf, Section, default_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k3img.profile.sink import Sink
    from k3img.profile.source import Value


class Scheme(StrEnum):
    """The databases that k3s can keep its state in (facts: k3s 2.4); https and http are etcd's."""

    POSTGRES = "postgres"
    MYSQL = "mysql"
    NATS = "nats"
    HTTPS = "https"
    HTTP = "http"


class _Embedded(StrEnum):
    SQLITE = "sqlite"
    ETCD = "etcd"


_ENDPOINT_KEYS = {
    "scheme": Key(kind=Choice(of=Scheme), doc="The kind of database."),
    "file": Key(kind=Text(), doc="A file on the builder that holds the endpoint's URL.", default=None),
    "env": Key(
        kind=Text(pattern="[A-Z_][A-Z0-9_]*", says="a variable's name such as DATASTORE_URL"),
        doc="An environment variable of the builder that holds the endpoint's URL.",
        default=None,
    ),
}


def _endpoint(**given: str | None) -> Mapping[str, str]:
    return MappingProxyType({name: str(text) for name, text in given.items() if text is not None})


@dataclass(frozen=True, kw_only=True)
class DatastoreEntry(Kind):
    """`sqlite`, `etcd`, or `{endpoint: {scheme: postgres, file: secrets/dsn}}`."""

    make: Callable[..., Any]

    def _endpoint_section(self) -> Section:
        return Section(make=_endpoint, keys=_ENDPOINT_KEYS)

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """A datastore; a URL in clear is refused, for it tends to hold a password."""
        if not isinstance(value, Scalar):
            outer = Section(
                make=lambda endpoint: endpoint,
                keys={"endpoint": Key(kind=self._endpoint_section(), doc="a reference to the endpoint.")},
            )
            endpoint = outer.read(value, path, sink)
            return BAD if endpoint is BAD else self.make(kind=DatastoreKind.EXTERNAL, endpoint=endpoint or {})
        if "://" in value.text:
            sink.problem(
                path,
                "names its endpoint in clear",
                "Write {endpoint: {scheme: postgres, file: FILE}}, and the URL into that file.",
            )
            return BAD
        word = Choice(of=_Embedded).read(value, path, sink)
        return BAD if word is BAD else self.make(kind=DatastoreKind(str(word)))

    def show(self, data: Any) -> Any:
        """As it is written."""
        return {"endpoint": dict(data.endpoint)} if data.kind == DatastoreKind.EXTERNAL else str(data.kind)

    def schema(self) -> dict[str, Any]:
        """A word or an object."""
        endpoint = self._endpoint_section().schema()
        outer = {"type": "object", "properties": {"endpoint": endpoint}, "required": ["endpoint"]}
        return {"anyOf": [Choice(of=_Embedded).schema(), outer | {"additionalProperties": False}]}


def _node_keys() -> dict[str, Key]:
    """The keys of a node. Their defaults are those of the dataclasses, which `node.yaml` shares."""
    host = Text(wanted="a name or an IP address")
    kinds: dict[str, tuple[Kind, str]] = {
        "role": (Choice(of=Role), "server, or agent."),
        "initializer": (Flag(), "Whether this server makes the datastore; the others join it."),
        "address": (Text(wanted="an address"), "dhcp, or an address with its network: 192.168.7.12/24."),
        "gateway": (Text(wanted="an address"), "The router, with a fixed address."),
        "dns": (ListOf(item=Text(wanted="an address")), "Name servers."),
        "ntp": (ListOf(item=host), "Time servers of this node."),
        "dhcp-reserved": (Flag(), "Promise that DHCP always gives this node the same address."),
        "mac": (Text(wanted="a MAC address"), "The network card's address, in quotes."),
        "vlan": (Integer(low=1, high=4094), "The VLAN that the node is in."),
        "bond": (ListOf(item=Text()), "Network cards, by name or MAC address, that work as one."),
        "serial": (Text(), "The machine's serial number."),
        "labels": (MapOf(item=Text()), "Labels of the Node."),
        "taints": (ListOf(item=Text()), "Taints, as key=value:Effect."),
        "options": (OptionsEntry(), "k3s options of this node alone."),
    }
    fields = {f.name.replace("_", "-"): f for cls in (Node, Network) for f in dataclasses.fields(cls)}
    return {
        name: Key(kind=kind, doc=doc, default=default_of(fields[name])) for name, (kind, doc) in kinds.items()
    }


def _make_node(**given: Any) -> Node:
    names = {f.name for f in dataclasses.fields(Network)}
    # As `k3img.node.load` does: what the kernel reports is in lower case.
    given["mac"] = given["mac"].lower() if given["mac"] else None
    given["bond"] = tuple(card.lower() if ":" in card else card for card in given["bond"])
    network = Network(**{name: data for name, data in given.items() if name in names})
    return Node(network=network, **{name: data for name, data in given.items() if name not in names})


@dataclass(frozen=True, kw_only=True)
class _NodeSection(Section):
    """A node, whose network keys are written beside the others."""

    def show(self, data: Any) -> Any:
        """All keys; those of the network are a level deeper in the dataclass."""
        flat = {f.name: getattr(data.network, f.name) for f in dataclasses.fields(Network)}
        flat |= {f.name: getattr(data, f.name) for f in dataclasses.fields(Node)}
        return {
            name: None if (item := flat[name.replace("-", "_")]) is None else known.kind.show(item)
            for name, known in self.keys.items()
        }


@dataclass(frozen=True, kw_only=True)
class NodesEntry(Kind):
    """Nodes by their names; a tuple once read. What is wrong with one is for `k3img.node.check`."""

    blank: Any = ()

    def _section(self) -> Section:
        return _NodeSection(make=_make_node, keys=_node_keys())

    def read(self, value: Value, path: str, sink: Sink) -> Any:
        """All nodes, also those with bad keys."""
        each = _Named(item=self._section()).read(value, path, sink)
        return BAD if each is BAD else tuple(each.values())

    def show(self, data: Any) -> Any:
        """A mapping."""
        return {node.name: self._section().show(node) for node in data}

    def schema(self) -> dict[str, Any]:
        """An object of nodes."""
        return MapOf(item=self._section()).schema()


@dataclass(frozen=True, kw_only=True)
class _Named(MapOf):
    """A mapping whose keys become the `name` of what they hold."""

    item: Section

    def read_item(self, name: str, item: Value, path: str, sink: Sink) -> Any:
        """Read one with its name."""
        return self.item.read(item, path, sink, name=name)


@dataclass(frozen=True, kw_only=True)
class OptionsEntry(MapOf):
    """k3s options. `k3img.profile.check` holds them against the table of the pinned version."""

    item: Kind = field(default_factory=Free)
    agent_only: bool = False

    def schema(self) -> dict[str, Any]:
        """An object with the options of the newest table, for editors."""
        table = flags.newest()
        properties: dict[str, Any] = {}
        for flag in table.values():
            if flag.name in check.OWNED_OPTIONS or (self.agent_only and flag.server_only):
                continue
            properties[flag.name] = _FLAG_SCHEMAS[flag.kind]
            if flag.kind == flags.FlagKind.LIST:
                properties[f"{flag.name}+"] = _FLAG_SCHEMAS[flag.kind]
        return {"type": "object", "properties": properties, "additionalProperties": False}


_TEXTS = {"type": "array", "items": {"type": "string"}}
_FLAG_SCHEMAS: dict[flags.FlagKind, dict[str, Any]] = {
    flags.FlagKind.BOOL: {"type": "boolean"},
    flags.FlagKind.TEXT: {"type": "string"},
    flags.FlagKind.INTEGER: {"type": "integer"},
    flags.FlagKind.DURATION: {"type": "string", "pattern": f"^(?:{flags.DURATION})$"},
    flags.FlagKind.LIST: {"anyOf": [{"type": "string"}, _TEXTS]},
}
