"""The table of k3s options, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from k3img.node import flags
from k3img.node.check import OWNED_OPTIONS

VERSION = "v1.36.3+k3s1"


def test_the_table_is_whole() -> None:
    table = flags.table(VERSION)
    assert len(table) > 110
    assert flags.known(VERSION)
    assert not flags.known("v1.35.1+k3s1")
    assert flags.table("v1.35.1+k3s1") is flags.newest()
    assert set(OWNED_OPTIONS) <= set(table)


def test_hidden_options_are_known() -> None:
    for name in ("disable-apiserver", "disable-etcd", "disable-agent", "kine-tls", "airgap-extra-registry"):
        assert name in flags.table(VERSION)


def test_what_all_servers_must_agree_on() -> None:
    equal = {flag.name for flag in flags.table(VERSION).values() if flag.equal}
    assert len(equal) == 15
    assert {"cluster-cidr", "embedded-registry", "secrets-encryption-provider"} <= equal


@pytest.mark.parametrize(
    ("name", "value", "agent", "what"),
    [
        ("tls-san", ["a"], False, None),
        ("tls-san", "a", False, None),
        ("tls-san", ["a"], True, "is an option of servers only, an agent dies of it"),
        ("tls-san", [1], False, "is no list of texts"),
        ("kubelet-arg", ["max-pods=50"], True, None),
        ("kubelet-arg", {"a": "b"}, True, "is no list of texts"),
        ("debug", True, True, None),
        ("debug", "true", True, "is neither true nor false"),
        ("https-listen-port", 6443, False, None),
        ("https-listen-port", True, False, "is no whole number"),
        ("etcd-s3-timeout", "1h30m", False, None),
        ("etcd-s3-timeout", "90", False, "is no duration"),
        ("pause-image", 1, True, "is no text"),
        ("data-dir", "/x", False, "is set by k3img"),
        ("tls-sna", ["a"], False, "k3s v1.36 has no option tls-sna"),
    ],
)
def test_faults(name: str, value: Any, agent: bool, what: str | None) -> None:
    fault = flags.fault(name, value, VERSION, agent=agent)
    assert (fault.what if fault else None) == what


def test_an_agent_is_not_pointed_to_a_server_option() -> None:
    fault = flags.fault("tls-sans", ["a"], VERSION, agent=True)
    assert fault is not None
    assert "tls-san." not in fault.hint
