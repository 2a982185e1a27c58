"""node.yaml: read with every problem at once, written so that it reads back the same."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from k3img.errors import ProfileError
from k3img.node.load import dump, load, scalar
from k3img.node.model import DatastoreKind, Network, Node, NodeConfig, Role

FULL = NodeConfig(
    node=Node(
        name="pi-2",
        role=Role.SERVER,
        initializer=True,
        network=Network(
            address="192.168.7.12/24",
            gateway="192.168.7.1",
            dns=("192.168.7.1", "fd00::1"),
            ntp=("time.example.org",),
            vlan=7,
            bond=("dc:a6:32:00:00:02", "enp2s0"),
        ),
        serial="0012",
        labels={"example.org/zone": "1.30", "on": "yes"},
        taints=("dedicated=db:NoSchedule",),
        options={"kubelet-arg": ["max-pods=50"], "debug": True, "v": 2},
    ),
    cluster="shop-42",
    datastore=DatastoreKind.ETCD,
    bootstrap=True,
    issued=1795564980,
    ca_hash="a" * 64,
    endpoint="k3s.example.org",
    servers=("pi-1", "pi-2"),
    registries={"mirrors": {"*": None, "docker.io": {"endpoint": ["https://r.example.org"]}}},
    ssh_keys=(f"ssh-ed25519 {'A' * 68} me: #1",),
)


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        load(text if isinstance(text, bytes) else text.encode(), "node.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("config", [FULL, NodeConfig(node=Node(name="a"), cluster="b")])
def test_what_is_written_reads_back_the_same(config: NodeConfig) -> None:
    assert load(dump(config).encode(), "x") == config
    assert dump(load(dump(config).encode(), "x")) == dump(config)


def test_windows_editors_are_welcome() -> None:
    data = b"\xef\xbb\xbf" + dump(FULL).replace("\n", "\r\n").encode()
    assert load(data, "node.yaml.txt") == FULL


def test_a_mac_in_base_sixty_is_what_it_looks_like() -> None:
    config = load(b"name: a\ncluster: b\nmac: 10:11:22:33:44:55\n", "x")
    assert config.node.network.mac == "10:11:22:33:44:55"


def test_issued_as_seconds_or_as_a_date() -> None:
    for text in ("1795564980", "2026-11-25T00:03:00Z", '"2026-11-25T00:03:00+00:00"', "2026-11-25 00:03:00"):
        assert load(f"name: a\ncluster: b\nissued: {text}\n".encode(), "x").issued == 1795564980


def test_every_problem_is_told_with_its_line() -> None:
    text = "\n".join(
        [
            "name: Pi_1",
            "name: pi-2",
            "rolle: server",
            "address: 192.168.7.300/24",
            "on: 3",
            "labels: {zone: 1.30}",
            "cluster: no",
            "taints: foo",
            "bootstrap: yes",
            "dns: {a: b}",
        ]
    )
    found = problems(text)
    for expected in (
        "node.yaml:2: name: is given twice, first on line 1. Remove one.",
        "node.yaml:3: rolle: unknown key. Did you mean 'role'?",
        "node.yaml:4: address: '192.168.7.300/24' is no address.",
        'node.yaml:5: on: YAML reads this key as true or false. Write "on".',
        'node.yaml:6: labels.zone: YAML reads 1.30 as a number. Write "1.30".',
        'node.yaml:7: cluster: YAML reads no as true or false. Write "no".',
        "node.yaml:8: taints[0]: 'foo' is no taint.",
        "node.yaml:9: bootstrap: must be true or false, not 'yes'",
        "node.yaml:10: dns: must be a list, not `key: value`",
    ):
        assert any(line.startswith(expected) for line in found), (expected, found)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "node.yaml: is empty"),
        (b"# only a comment\n", "node.yaml: is empty"),
        (
            b"\xff\xfen\x00a\x00",
            "node.yaml:1: is not UTF-8. Save it as UTF-8 (in Notepad: Save as, Encoding).",
        ),
        (
            b"name: a\ncluster: \xe4\n",
            "node.yaml:2: is not UTF-8. Save it as UTF-8 (in Notepad: Save as, Encoding).",
        ),
        (b"- a", "node.yaml:1: must be a list of `key: value`, not a list"),
        (b"hello", "node.yaml:1: must be a list of `key: value`, not 'hello'"),
        (b"a: &x 1\nb: *x", "node.yaml:2: is no YAML: aliases (*name) are not allowed"),
        (b"[" * 100000, "node.yaml:1: is no YAML: it is nested too deeply"),
        (b"x" * (2 << 20), "node.yaml: has 2097152 bytes, 1 MiB is allowed"),
        (b"name: [a", "node.yaml:1: is no YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_what_is_no_node_yaml_at_all(data: bytes, expected: str) -> None:
    began = time.monotonic()
    assert problems(data) == [expected]
    assert time.monotonic() - began < 5


def test_tabs_are_named() -> None:
    assert "Use spaces" in problems("name: a\n\tcluster: b\n")[0]


@pytest.mark.parametrize("data", [bytes([byte]) * 40 for byte in range(256)])
def test_any_byte_gives_problems_and_no_traceback(data: bytes) -> None:
    assert problems(data)


@pytest.mark.parametrize("cut", range(0, len(dump(FULL)), 7))
def test_a_file_that_was_cut_off_never_raises_anything_else(cut: int) -> None:
    with suppress(ProfileError):
        load(dump(FULL).encode()[:cut], "node.yaml")


def test_secrets_do_not_belong_here() -> None:
    found = problems("name: a\ncluster: b\ntoken: K10abc\noptions: {token: x, server: y}\n")
    assert any("token: unknown key" in line for line in found)
    assert any("options.token: token is set by k3img" in line for line in found)
    assert any("options.server: server is set by k3img" in line for line in found)


def test_a_null_counts_as_absent() -> None:
    config = load(b"name: a\ncluster: b\nlabels:\ntaints:\ndns: ~\n", "x")
    assert config.node.labels == {}
    assert config.node.network.dns == ()


@pytest.mark.parametrize(
    "text", ["yes", "null", "1.30", "a: b", "#x", "", "ä", "x" * 300, "*a", "- a", "0x1f", "12e03"]
)
def test_scalars_survive(text: str) -> None:
    config = NodeConfig(node=Node(name="a", options={"v": text}), cluster="b")
    assert load(dump(config).encode(), "x").node.options["v"] == text
    assert "\n" not in scalar(text)
