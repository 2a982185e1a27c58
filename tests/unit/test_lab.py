"""What a lab refuses, and how what a killed one left is told from what a running one needs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from k3img import scratch
from k3img.cli.lab import lab_command
from k3img.errors import MissingToolError, UsageError
from k3img.node.model import DatastoreKind, Network, Role
from k3img.profile.model import Cluster, Datastore
from k3img.verify import workshop
from k3img.verify.lab import MEMORY, agent, server
from k3img.vm import lab as network

if TYPE_CHECKING:
    from pathlib import Path

SHOP = Cluster(name="shop", nodes=(server("a-1", initializer=True), agent("a-2")))
NEEDED = MEMORY[Role.SERVER] + MEMORY[Role.AGENT]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "PLACE", tmp_path)
    return tmp_path


def test_a_folder_goes_with_its_block(place: Path) -> None:
    with scratch.folder() as made:
        assert made.parent == place
        assert made.stat().st_mode & 0o077 == 0
        assert scratch.clean() == ()
        assert made.is_dir()
    assert list(place.iterdir()) == []


def test_what_a_killed_run_left_is_removed(place: Path) -> None:
    left, foreign = place / "k3img-left", place / "k3img-unlocked"
    for folder in (left, foreign):
        folder.mkdir()
    (left / scratch.LOCK).touch()
    (left / "disk.raw").write_text("large")
    with scratch.folder() as running:
        shown = CliRunner().invoke(lab_command, ["--clean"])
        assert shown.exit_code == 0
        assert running.is_dir()
    assert list(place.iterdir()) == [foreign], "only what has a lock is known to be ours"


def test_another_users_folder_is_left(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "k3img-left").mkdir()
    (place / "k3img-left" / scratch.LOCK).touch()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert scratch.clean() == ()


def test_a_cluster_that_fits(place: Path) -> None:
    workshop.check(SHOP, NEEDED)
    workshop.check(Cluster(name="alone"), MEMORY[Role.SERVER])


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (replace(SHOP, datastore=Datastore(kind=DatastoreKind.EXTERNAL)), "has no database"),
        (replace(SHOP, nodes=(replace(agent("v"), network=Network(vlan=7)),)), "no VLANs and bonds: v"),
        (
            replace(SHOP, nodes=(*SHOP.nodes, agent("a-3"))),
            f"3 machines need {NEEDED + MEMORY[Role.AGENT]} MiB",
        ),
    ],
)
def test_a_cluster_that_does_not(cluster: Cluster, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        workshop.check(cluster, NEEDED)


def test_without_socat(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k3img.verify.workshop.proc.which", lambda _: None)
    with pytest.raises(MissingToolError, match="needs socat"), workshop.door():
        pass
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("made", "words"), [(False, "modprobe tun"), (True, "chmod 0666")])
def test_a_lab_says_what_its_machines_cards_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bool, words: str
) -> None:
    tun = tmp_path / "tun"
    if made:
        tun.touch()
    monkeypatch.setattr(network, "TUN", tun)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("k3img.proc.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv(network.INSIDE, raising=False)
    with pytest.raises(MissingToolError) as caught:
        network.enter(["k3img", "lab"])
    assert words in caught.value.hint


def test_the_time_server_leaves_the_hosts_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chronyd, as root, removes what lies where it puts its pid file: /dev/null, once."""
    started: list[tuple[str, ...]] = []

    class FakeChild:
        def __init__(self, argv: tuple[str, ...], **_: object) -> None:
            started.append(argv)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(network, "Child", FakeChild)
    monkeypatch.setattr(network, "_ip", lambda *_: None)
    monkeypatch.setattr("k3img.proc.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv(network.INSIDE, "1")
    with ExitStack() as stack:
        network.Lab(stack, tmp_path).serve_time()
    (chronyd,) = (argv for argv in started if argv[0].endswith("chronyd"))
    assert f"pidfile {tmp_path / 'chronyd.pid'}" in chronyd
    assert "bindcmdaddress /" in chronyd
    assert not any("/dev/null" in word for word in chronyd)
