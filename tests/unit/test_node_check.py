"""What a person may write about a node."""

from __future__ import annotations

import pytest

from k3img.node import check
from k3img.node.model import Network, Node, NodeConfig, Role


@pytest.mark.parametrize("name", ["a", "pi-1", "0", "x" * 63, "a--b", "123"])
def test_names_that_are_labels(name: str) -> None:
    assert check.dns_label(name) is None


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "pi_1", "pi.1", "x" * 64, "ü", "a b", "pi-1\n", "a/b", "..", "pi‐1"]
)
def test_names_that_are_no_labels(name: str) -> None:
    assert check.dns_label(name) is not None


@pytest.mark.parametrize("name", ["k3s.example.org", "a", "Pi.LOCAL", "k3s.example.org.", "10-1.x"])
def test_host_names(name: str) -> None:
    assert check.dns_name(name) is None
    assert check.host(name) is None


@pytest.mark.parametrize("name", ["", "..", "a..b", "1.2.3", "-a.b", "a b", "x" * 254, "https://a"])
def test_no_host_names(name: str) -> None:
    assert check.dns_name(name) is not None


def test_hosts_may_be_addresses() -> None:
    assert check.host("192.168.7.1") is None
    assert check.host("fd00::1") is None
    assert check.host("1.2.3.256") is not None


@pytest.mark.parametrize(
    "text", ["dhcp", "192.168.7.12/24", "10.0.0.2/8", "10.0.0.0/31", "10.0.0.1/32", "fd00::2/64"]
)
def test_addresses(text: str) -> None:
    assert check.address(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("192.168.7.12", "lacks the length"),
        ("192.168.7.0/24", "the network's own"),
        ("192.168.7.255/24", "broadcast"),
        ("192.168.7.300/24", "no address"),
        ("192.168.7.12/33", "no address"),
        ("192.168.7.12/255.255.255.0x", "no address"),
        ("127.0.0.1/8", "no node can have"),
        ("224.0.0.1/24", "no node can have"),
        ("0.0.0.0/0", "no node can have"),
        ("DHCP", "no address"),
        ("", "no address"),
        ("static", "no address"),
    ],
)
def test_no_addresses(text: str, word: str) -> None:
    fault = check.address(text)
    assert fault is not None
    assert word in fault.what


@pytest.mark.parametrize(
    ("router", "own", "word"),
    [
        ("192.168.7.1", "192.168.7.12/24", None),
        ("192.168.8.1", "192.168.7.12/24", "outside"),
        ("192.168.7.12", "192.168.7.12/24", "own address"),
        ("192.168.7.1", "dhcp", "fixed address"),
        ("fd00::1", "192.168.7.12/24", "outside"),
        ("router", "192.168.7.12/24", "no IP"),
        ("192.168.7.1", "nonsense", None),
    ],
)
def test_gateways(router: str, own: str, word: str | None) -> None:
    fault = check.gateway(router, own)
    assert (fault is None) is (word is None)
    if fault and word:
        assert word in fault.what


@pytest.mark.parametrize("text", ["dc:a6:32:00:00:02", "DC:A6:32:00:00:02", "02:00:00:00:00:01"])
def test_macs(text: str) -> None:
    assert check.mac(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dc-a6-32-00-00-02",
        "dc:a6:32:00:00",
        "01:00:5e:00:00:01",
        "00:00:00:00:00:00",
        "zz:a6:32:00:00:02",
    ],
)
def test_no_macs(text: str) -> None:
    assert check.mac(text) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("zone", "a"),
        ("example.org/zone", ""),
        ("topology.kubernetes.io/zone", "a"),
        ("node.kubernetes.io/x", "1"),
    ],
)
def test_labels(key: str, value: str) -> None:
    assert check.label(key, value) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", "a"),
        ("/a", "a"),
        ("a/", "a"),
        ("a/b/c", "x"),
        ("a b", "x"),
        ("zone", "a b"),
        ("zone", "x" * 64),
        ("-zone", "x"),
        ("node-role.kubernetes.io/worker", "true"),
        ("kubernetes.io/hostname", "x"),
        ("UPPER_PREFIX/a", "x"),
    ],
)
def test_no_labels(key: str, value: str) -> None:
    assert check.label(key, value) is not None


def test_taints() -> None:
    assert check.taint("dedicated=db:NoSchedule") is None
    assert check.taint("example.org/dedicated:NoExecute") is None
    for text in ("", "a", "a=b", "a=b:Never", ":NoSchedule", "a=b c:NoSchedule"):
        assert check.taint(text) is not None


def test_options_that_k3img_sets_are_refused_with_what_to_use() -> None:
    assert check.option("kubelet-arg") is None
    assert check.option("kubelet-arg+") is None
    for name in ("node-name", "token", "data-dir", "--debug", "", "a b", "Debug"):
        assert check.option(name) is not None
    fault = check.option("node-label")
    assert fault is not None
    assert fault.hint == "Use labels."


def test_ssh_keys() -> None:
    assert check.ssh_key(f"ssh-ed25519 {'A' * 68} me@laptop") is None
    for text in (
        "",
        "AAAA",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-ed25519 short",
        f'command="x" ssh-rsa {"A" * 99}',
    ):
        assert check.ssh_key(text) is not None
    assert check.ssh_key(f"ssh-ed25519 {'A' * 68} a\nssh-rsa {'B' * 68}") is not None


def test_a_node_reports_all_its_faults_by_key() -> None:
    net = Network(address="10.0.0.1/8", gateway="11.0.0.1", dns=("x",), mac="x", vlan=5000, bond=("eth0",))
    node = Node(
        name="Bad", role=Role.AGENT, initializer=True, network=net, labels={"a b": "c"}, taints=("x",)
    )
    keys = [key for key, _ in check.node(node)]
    assert keys == [
        "name",
        "gateway",
        "dns[0]",
        "mac",
        "vlan",
        "bond",
        "mac",
        "labels.a b",
        "taints[0]",
        "initializer",
    ]


def test_a_config_checks_names_together() -> None:
    config = NodeConfig(
        node=Node(name="n" * 30), cluster="c" * 30, bootstrap=True, ca_hash="x", endpoint="a b"
    )
    assert [key for key, _ in check.config(config)] == ["cluster", "bootstrap", "ca-hash", "endpoint"]
