"""Cluster reset: a copy first, once, and told; k3s is another program that does it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.nodes import FakeSystem

from k3img.device import clusterreset, outcome
from k3img.device.main import main
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place
from k3img.device.system import Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

RESET = "/usr/lib/k3s/bin/k3s server --cluster-reset"


@dataclass
class Server(FakeSystem):
    """An etcd server whose `cp` and `rm` work on the scratch folder, and whose k3s empties etcd's log."""

    full: bool = False

    def run(self, argv: Sequence[str], *, timeout: float = 90, path: str | None = None) -> Ended:
        answer = super().run(argv, timeout=timeout, path=path)
        if argv[0] == "rm":
            shutil.rmtree(argv[-1], ignore_errors=True)
        elif argv[0] == "cp":
            if self.full:
                Path(argv[-1]).mkdir()
                return Ended(status=1, output="No space left on device")
            shutil.copytree(argv[-2], argv[-1])
        elif self.calls[-1] == RESET and answer.status == 0:
            (self.db / "etcd/member/wal/0").write_text("alone")
            (self.db / "reset-flag").write_text("")
        return answer

    def sync(self) -> None:
        """Nothing to flush."""

    @property
    def db(self) -> Path:
        return self.place.k3s / "server/db"

    @property
    def copied(self) -> str:
        return (self.db / clusterreset.COPY / "member/wal/0").read_text()

    @property
    def notes(self) -> tuple[str, ...]:
        found = outcome.load(self.place)
        assert found is not None
        return found.notes


@pytest.fixture
def fat(tmp_path: Path) -> Path:
    folder = tmp_path / "fat"
    folder.mkdir()
    (folder / "cluster-reset").write_text("")
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Server:
    found = Server(place=Place(root=tmp_path / "root"))
    (found.db / "etcd/member/wal").mkdir(parents=True)
    (found.db / "etcd/member/wal/0").write_text("three")
    found.place.state.mkdir(parents=True)
    outcome.save(found.place, Outcome(go=Go.RUN, node="s-1"))
    return found


def test_asked_for_copied_done_and_told(server: Server, fat: Path) -> None:
    assert clusterreset.ask(server.place, fat) == (True, ())
    assert main(["cluster-reset"], place=server.place, system=server) == 0
    assert server.copied == "three"
    assert any("only member" in note for note in server.notes)
    assert clusterreset.ask(server.place, fat) == (False, ("the cluster reset is done",))
    assert [path.name for path in fat.iterdir()] == ["cluster-reset.done"]
    assert clusterreset.ask(server.place, fat) == (False, ())
    clusterreset.run(server.place, server)
    assert server.calls.count(RESET) == 1


def test_a_power_cut_after_the_reset_does_not_reset_twice(server: Server, fat: Path) -> None:
    clusterreset.ask(server.place, fat)
    clusterreset.run(server.place, server)
    # The next boot came before the file was renamed, and its own renaming failed as well.
    clusterreset.run(server.place, server)
    assert server.calls.count(RESET) == 1


def test_a_second_try_keeps_the_copy_of_before_the_first(server: Server, fat: Path) -> None:
    server.answers[RESET] = Ended(status=1, output="etcd\nfatal: no address")
    clusterreset.ask(server.place, fat)
    assert clusterreset.run(server.place, server) == 1
    assert any("tried again at the next boot: fatal: no address" in note for note in server.notes)
    (server.db / "etcd/member/wal/0").write_text("half reset")
    server.answers.clear()
    assert clusterreset.ask(server.place, fat) == (True, ())
    assert clusterreset.run(server.place, server) == 0
    assert server.copied == "three"


def test_a_second_reset_is_another_one(server: Server, fat: Path) -> None:
    for _ in range(2):
        (fat / "cluster-reset").write_text("")
        assert clusterreset.ask(server.place, fat)[0]
        assert not (server.db / "reset-flag").exists() or server.calls
        clusterreset.run(server.place, server)
        clusterreset.ask(server.place, fat)
    assert server.calls.count(RESET) == 2
    assert server.copied == "alone"


def test_without_room_for_the_copy_nothing_is_reset(server: Server, fat: Path) -> None:
    server.full = True
    clusterreset.ask(server.place, fat)
    assert clusterreset.run(server.place, server) == 1
    assert RESET not in server.calls
    assert any("no room" in note for note in server.notes)
    assert not (server.db / clusterreset.COPY).exists()


def test_taken_back(server: Server, fat: Path) -> None:
    clusterreset.ask(server.place, fat)
    (fat / "cluster-reset").unlink()
    assert clusterreset.ask(server.place, fat) == (False, ())
    clusterreset.run(server.place, server)
    assert server.calls == []


def test_a_card_without_etcd_says_so(server: Server, fat: Path) -> None:
    shutil.rmtree(server.db)
    asked, notes = clusterreset.ask(server.place, fat)
    assert not asked
    assert "no etcd data" in notes[0]
