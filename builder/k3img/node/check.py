"""The rules for what a person may write about a node, on plain values.

The profile's checker uses them on the builder, `k3img.node.load` on the node: one rule, one wording.
Each function returns a `Fault`, or None when the value is fine.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from k3img.node.model import Network, Node, NodeConfig

MAX_LABEL = 63
"""Characters of an RFC 1123 label."""

MAX_CLUSTER_AND_NODE = 56
"""Characters of cluster and node name together: `<node>-<6 hex digits>` must stay one DNS label."""

# RFC 1123 without upper case: k3s lowers host names, and two spellings of one name confuse people.
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
# Kubernetes: apimachinery/pkg/util/validation, qualified names and label values.
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INTERFACE = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,14}")
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

OWNED_OPTIONS: Mapping[str, str] = {
    "node-name": "The node's name is its key under cluster.nodes.",
    "with-node-id": "Names are fixed: re-flashing a node must bring it back under its name.",
    "node-label": "Use labels.",
    "node-taint": "Use taints.",
    "node-ip": "Use address.",
    "resolv-conf": "Use dns.",
    "private-registry": "Use registries.",
    "server": "Joining is worked out from cluster.nodes and cluster.endpoint.",
    "token": "Secrets are made by `k3img cluster create` and never written in a profile.",
    "token-file": "Secrets are made by `k3img cluster create` and never written in a profile.",
    "agent-token": "Secrets are made by `k3img cluster create` and never written in a profile.",
    "agent-token-file": "Secrets are made by `k3img cluster create` and never written in a profile.",
    "cluster-init": "Use cluster.datastore and initializer.",
    "cluster-reset": "Put a file named cluster-reset on the node's K3IMG partition.",
    "cluster-reset-restore-path": "Put a file named cluster-reset on the node's K3IMG partition.",
    "datastore-endpoint": "Use cluster.datastore.",
    "datastore-cafile": "Use cluster.datastore.",
    "datastore-certfile": "Use cluster.datastore.",
    "datastore-keyfile": "Use cluster.datastore.",
    "data-dir": "The image keeps k3s' data in /var/lib/rancher/k3s.",
    "config": "The image writes k3s' configuration itself.",
    "write-kubeconfig": "The image reads the kubeconfig at its usual place.",
    "prefer-bundled-bin": "The image sets the order of programs itself.",
}
"""k3s options that k3img sets itself, and what to use in their place."""


class Fault(NamedTuple):
    """What is wrong with a value, and what to do about it."""

    what: str
    hint: str = ""


def dns_label(text: str) -> Fault | None:
    """A name of a node or a cluster: one RFC 1123 label in lower case."""
    if not text:
        return Fault("is empty", "Write a name such as pi-1.")
    if len(text) > MAX_LABEL:
        return Fault(f"has {len(text)} characters, {MAX_LABEL} are allowed")
    if not _DNS_LABEL.fullmatch(text):
        return Fault(
            f"{text!r} is no RFC 1123 name",
            "Use a-z, 0-9 and '-'; the first and the last character must be a letter or a digit.",
        )
    return None


def dns_name(text: str) -> Fault | None:
    """A host name of one or more labels, such as `k3s.example.org`."""
    if not text or len(text) > 253:
        return Fault(f"{text!r} is no host name")
    parts = text.lower().rstrip(".").split(".")
    if any(dns_label(part) for part in parts) or all(part.isdigit() for part in parts):
        return Fault(f"{text!r} is no host name", "Write a name such as k3s.example.org, or an IP address.")
    return None


def host(text: str) -> Fault | None:
    """A host name or an IP address."""
    return (
        None if ip(text) is None or dns_name(text) is None else Fault(f"{text!r} is neither a name nor an IP")
    )


def cluster_and_node(cluster: str, node: str) -> Fault | None:
    """Both names together: the OS host name is made of the node's name, mDNS names of both."""
    if len(cluster) + len(node) <= MAX_CLUSTER_AND_NODE:
        return None
    return Fault(
        f"cluster {cluster!r} and node {node!r} have {len(cluster) + len(node)} characters together,"
        f" {MAX_CLUSTER_AND_NODE} are allowed",
        "Shorten one of the names.",
    )


def ip(text: str) -> Fault | None:
    """One IPv4 or IPv6 address, without a prefix length."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return Fault(f"{text!r} is no IP address", "Write one such as 192.168.7.1.")
    return None


def address(text: str) -> Fault | None:
    """`dhcp`, or an address with its prefix length that a host can have."""
    if text == "dhcp":
        return None
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        return Fault(
            f"{text!r} is no address", "Write dhcp, or an address with its network such as 192.168.7.12/24."
        )
    if "/" not in text:
        return Fault(
            f"{text!r} lacks the length of its network", f"Write {text}/24 if the netmask is 255.255.255.0."
        )
    where, net = interface.ip, interface.network
    if where.is_loopback or where.is_multicast or where.is_unspecified:
        return Fault(f"{text!r} is an address that no node can have")
    # /31 and /32 (RFC 3021), and their IPv6 counterparts, have no network or broadcast address.
    if net.version == 4 and net.prefixlen < 31 and where in {net.network_address, net.broadcast_address}:
        kind = "the network's own" if where == net.network_address else "the broadcast"
        return Fault(f"{text!r} is {kind} address of {net}", "Write the address of the node itself.")
    return None


def gateway(text: str, node_address: str) -> Fault | None:
    """A router: an address, in the network of `node_address`, and another one than the node's."""
    if fault := ip(text):
        return fault
    if node_address == "dhcp":
        return Fault(
            "a gateway needs a fixed address", "Write address: as 192.168.7.12/24, or remove the gateway."
        )
    if address(node_address):
        return None  # reported at the address
    interface, router = ipaddress.ip_interface(node_address), ipaddress.ip_address(text)
    if router.version != interface.version or router not in interface.network:
        return Fault(f"{text} is outside {interface.network}", "The node could not reach this router.")
    if router == interface.ip:
        return Fault(f"{text} is the node's own address", "Write the router's address.")
    return None


def mac(text: str) -> Fault | None:
    """A card's hardware address, in lower case with colons, of one card (no multicast)."""
    if not _MAC.fullmatch(text.lower()):
        return Fault(f"{text!r} is no MAC address", 'Write it in quotes, such as "dc:a6:32:00:00:02".')
    if int(text[:2], 16) & 1 or text.replace(":", "") == "0" * 12:
        return Fault(f"{text!r} is no card's own address")
    return None


def interface_or_mac(text: str) -> Fault | None:
    """A network card: its name (`enp1s0`) or its MAC address."""
    if ":" in text:
        return mac(text)
    return None if _INTERFACE.fullmatch(text) else Fault(f"{text!r} is no name of a network card")


def label_key(text: str) -> Fault | None:
    """The key of a Kubernetes label or taint: `name`, or `prefix.example.org/name`."""
    prefix, slash, name = text.rpartition("/")
    if slash and (fault := dns_name(prefix)):
        return Fault(f"{text!r}: the part before '/' must be a DNS name: {fault.what}")
    if len(name) > MAX_LABEL or not _LABEL_NAME.fullmatch(name):
        return Fault(
            f"{text!r} is no label's name",
            "Use letters, digits, '-', '_' and '.'; at most 63 characters, ends with a letter or a digit.",
        )
    return None


def label(key: str, value: str) -> Fault | None:
    """One label of a Node. Keys that the kubelet may not set on itself are refused."""
    if fault := label_key(key):
        return fault
    if len(value) > MAX_LABEL or (value and not _LABEL_NAME.fullmatch(value)):
        return Fault(f"{value!r} is no label's value", "Use at most 63 letters, digits, '-', '_' and '.'.")
    prefix = key.rpartition("/")[0]
    # NodeRestriction lets a kubelet set only these of Kubernetes' own (see well_known_labels.go).
    own = prefix in {"kubernetes.io", "k8s.io"} or prefix.endswith((".kubernetes.io", ".k8s.io"))
    allowed = ("kubelet.kubernetes.io", "node.kubernetes.io", "topology.kubernetes.io")
    if (
        own
        and prefix not in allowed
        and not prefix.endswith((".kubelet.kubernetes.io", ".node.kubernetes.io"))
    ):
        return Fault(
            f"{key!r} cannot be set by the node itself",
            "Use a prefix of your own, or set it with kubectl label once the node is Ready.",
        )
    return None


def taint(text: str) -> Fault | None:
    """One taint, as k3s takes it: `key=value:Effect` or `key:Effect`."""
    head, colon, effect = text.rpartition(":")
    if not colon or effect not in TAINT_EFFECTS:
        return Fault(
            f"{text!r} is no taint", f"Write key=value:Effect, Effect is one of {', '.join(TAINT_EFFECTS)}."
        )
    key, _, value = head.partition("=")
    if fault := label_key(key):
        return fault
    if len(value) > MAX_LABEL or (value and not _LABEL_NAME.fullmatch(value)):
        return Fault(f"{value!r} is no taint's value", "Use at most 63 letters, digits, '-', '_' and '.'.")
    return None


def option(name: str) -> Fault | None:
    """The name of a k3s option that a node (or a profile) may set: not one that k3img sets itself."""
    if name in OWNED_OPTIONS:
        return Fault(f"{name} is set by k3img", OWNED_OPTIONS[name])
    if not _OPTION.fullmatch(name.removesuffix("+")):
        return Fault(f"{name!r} is no k3s option", "Write the long option's name without its dashes.")
    return None


def ca_hash(text: str) -> Fault | None:
    """The sha256 of a CA file, in hex."""
    return None if _HEX_SHA256.fullmatch(text) else Fault("is no sha256 (64 hex digits in lower case)")


def network(net: Network) -> Iterator[tuple[str, Fault]]:
    """All that is wrong with a node's network: `(key, fault)`, keys as they are written in YAML."""
    if fault := address(net.address):
        yield "address", fault
    if net.gateway is not None and (fault := gateway(net.gateway, net.address)):
        yield "gateway", fault
    for index, server in enumerate(net.dns):
        if fault := ip(server):
            yield f"dns[{index}]", fault
    for index, server in enumerate(net.ntp):
        if fault := host(server):
            yield f"ntp[{index}]", fault
    yield from _cards(net)
    if net.dhcp_reserved and net.address != "dhcp":
        yield "dhcp-reserved", Fault("has no meaning with a fixed address", "Remove it.")


def _cards(net: Network) -> Iterator[tuple[str, Fault]]:
    if net.mac is not None and (fault := mac(net.mac)):
        yield "mac", fault
    if net.vlan is not None and not 1 <= net.vlan <= 4094:
        yield "vlan", Fault(f"{net.vlan} is no VLAN id", "Write a number from 1 to 4094.")
    for index, card in enumerate(net.bond):
        if fault := interface_or_mac(card):
            yield f"bond[{index}]", fault
    if len(set(net.bond)) != len(net.bond):
        yield "bond", Fault("names one card twice")
    if len(net.bond) == 1:
        yield "bond", Fault("a bond needs two cards or more", "Use mac: for a single card.")
    if net.bond and net.mac is not None:
        yield "mac", Fault("mac: and bond: exclude each other", "List the cards under bond:.")


def node(item: Node) -> Iterator[tuple[str, Fault]]:
    """All that is wrong with a node, whatever its cluster: `(key, fault)`, keys as written in YAML."""
    if fault := dns_label(item.name):
        yield "name", fault
    yield from network(item.network)
    for key, value in item.labels.items():
        if fault := label(key, value):
            yield f"labels.{key}", fault
    for index, text in enumerate(item.taints):
        if fault := taint(text):
            yield f"taints[{index}]", fault
    for name in item.options:
        if fault := option(name):
            yield f"options.{name}", fault
    if item.initializer and item.role != "server":
        yield "initializer", Fault("only a server makes the datastore", "Remove it, or write role: server.")


def config(item: NodeConfig) -> Iterator[tuple[str, Fault]]:
    """All that is wrong with a whole node.yaml: `(key, fault)`, keys as written in YAML."""
    yield from node(item.node)
    if fault := dns_label(item.cluster) or cluster_and_node(item.cluster, item.node.name):
        yield "cluster", fault
    if item.bootstrap and not item.node.initializer:
        yield "bootstrap", Fault("only the initializer makes the datastore", "Write false.")
    if item.ca_hash is not None and (fault := ca_hash(item.ca_hash)):
        yield "ca-hash", fault
    if item.endpoint is not None and (fault := host(item.endpoint)):
        yield "endpoint", fault
    for index, name in enumerate(item.servers):
        if fault := dns_label(name):
            yield f"servers[{index}]", fault
    for index, key in enumerate(item.ssh_keys):
        if fault := ssh_key(key):
            yield f"ssh-keys[{index}]", fault


def ssh_key(text: str) -> Fault | None:
    """One public key as in `authorized_keys`, without options before it."""
    kinds = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@", "sk-ecdsa-sha2-")
    parts = text.split()
    if "PRIVATE KEY" in text:
        return Fault("is a private key", "Write the public one, from the file that ends in .pub.")
    if "\n" in text.strip() or len(parts) < 2 or not parts[0].startswith(kinds) or len(parts[1]) < 60:
        return Fault("is no public ssh key", "Write one line such as: ssh-ed25519 AAAA... name")
    return None
