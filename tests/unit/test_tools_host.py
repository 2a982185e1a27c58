"""What the host must give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from k3img import proc
from k3img.errors import K3imgError
from k3img.tools import host
from k3img.tools.finding import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import FakePrograms

TRIXIE = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: trixie\n"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("ann:100000:65536\n", State.OK),
        ("4711:100000:65536\n", State.OK),
        ("bob:1:70000\nann:100000:65536\n", State.OK),
        ("ann:100000:1000\n", State.MISSING),
        ("ann:100000:1000\nann:200000:65536\n", State.MISSING),  # mkosi takes the first line
        ("bob:100000:65536\n", State.MISSING),
        ("rubbish\nann:x:y\n", State.MISSING),
        ("", State.MISSING),
        (None, State.MISSING),
    ],
)
def test_subordinate_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, state: State
) -> None:
    monkeypatch.setattr("k3img.tools.host.pwd.getpwuid", lambda _: SimpleNamespace(pw_name="ann"))
    file = tmp_path / "subuid"
    if text is not None:
        file.write_text(text)
    finding = host.subordinate_ids(file, 4711)
    assert finding.state is state
    assert finding.how == "as root: usermod --add-subuids 100000-165535 ann"


def test_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("k3img.tools.host.pwd.getpwuid", nobody)
    (tmp_path / "subgid").write_text("4711:1:65536\n")
    assert host.subordinate_ids(tmp_path / "subgid", 4711).state is State.OK


@pytest.mark.parametrize(("kb", "state"), [(8_000_000, State.OK), (2_000_000, State.NOTE)])
def test_memory(kb: int, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    assert host.memory().state is State.NOTE
    host.MEMINFO.write_text(f"MemTotal: 1 kB\nMemAvailable:    {kb} kB\n")
    assert host.memory().state is state
    assert host.available_memory() == kb << 10


@pytest.mark.parametrize(("free", "state"), [(70e9, State.OK), (3e9, State.NOTE)])
def test_room_is_looked_for_where_the_folder_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: State
) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr("k3img.tools.host.shutil.disk_usage", usage)
    assert host.room("disk", tmp_path / "not/yet/there").state is state
    assert asked == [tmp_path]


@pytest.mark.parametrize(("uid", "words"), [(0, "--privileged"), (1000, "sysctl -w")])
def test_name_spaces_are_tried(
    fake_program: FakePrograms, monkeypatch: pytest.MonkeyPatch, uid: int, words: str
) -> None:
    monkeypatch.setattr("k3img.tools.host.os.geteuid", lambda: uid)
    fake_program.add("unshare")
    assert host.namespaces().state is State.OK
    fake_program.add("unshare", "echo 'unshare: Operation not permitted' >&2; exit 1")
    finding = host.namespaces()
    assert finding.state is State.MISSING
    assert finding.found == "unshare: Operation not permitted"
    assert words in finding.how
    assert ("--user" in fake_program.calls("unshare")[0]) is (uid != 0)


def test_the_mirror_is_asked_with_apts_own_downloader(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(host, "sources", lambda _: TRIXIE)

    def run(argv: Sequence[str]) -> str:
        asked.append(tuple(argv))
        return ""

    monkeypatch.setattr(proc, "run", run)
    finding = host.mirror()
    assert finding.state is State.OK
    assert finding.found == "http://mirror.example/debian (the host's)"
    assert "http://mirror.example/debian/dists/trixie/InRelease" in asked[0]


def test_a_mirror_that_does_not_answer_is_only_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_argv: object) -> str:
        raise K3imgError("no route")

    monkeypatch.setattr(host, "sources", lambda _: TRIXIE)
    monkeypatch.setattr(proc, "run", fail)
    finding = host.mirror()
    assert finding.state is State.NOTE
    assert "does not answer" in finding.found


def test_a_host_without_debians_mirror_is_a_missing_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> str:
        raise K3imgError("no Debian archive", hint="name a mirror")

    monkeypatch.setattr(host, "sources", none)
    finding = host.mirror()
    assert (finding.state, finding.found, finding.how) == (
        State.MISSING,
        "no Debian archive",
        "name a mirror",
    )


def test_root_installs_what_is_missing_in_one_go(fake_program: FakePrograms) -> None:
    fake_program.add("apt-get")
    host.install(["uidmap", "dpkg", "uidmap"])
    assert fake_program.calls("apt-get") == [
        "install --yes --quiet --no-install-recommends dpkg uidmap",
    ]
    host.install([])
    assert len(fake_program.calls("apt-get")) == 1
