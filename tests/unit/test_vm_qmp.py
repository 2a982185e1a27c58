"""The control socket, against a QEMU that is a thread."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from qemu.qmp import QMPClient

from k3img.vm.faults import MachineError
from k3img.vm.qmp import Qmp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREETING = {
    "QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 13}, "package": ""}, "capabilities": []}
}
USERNET = """\
Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  13       127.0.0.1 40123       10.0.2.15  6443     0     0
  TCP[ESTABLISHED]   15       127.0.0.1 40123       10.0.2.15  6443     0     0
  TCP[HOST_FORWARD]  14       127.0.0.1 40124       10.0.2.15    22     0     0
"""


def _objects(link: socket.socket) -> Iterator[dict[str, Any]]:
    """JSON objects as the client writes them: one after the other, with nothing between."""
    text = ""
    while more := link.recv(4096).decode():
        text += more
        while text:
            try:
                found, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:].lstrip()
            yield found


class Server:
    """Answers each command from a table; an answer may be a list, whose other items are events before it."""

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.seen: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        link, _ = self._listener.accept()
        with link:

            def say(what: dict[str, Any]) -> None:
                link.sendall(json.dumps(what).encode() + b"\r\n")

            say(GREETING)
            for asked in _objects(link):
                mark = {"id": asked["id"]} if "id" in asked else {}
                self.seen.append(asked)
                name = asked["execute"]
                if name == "quit":
                    return
                for event in self.answers.get(f"{name}:events", []):
                    say(event)
                if name in self.answers.get("errors", ()):
                    say({"error": {"class": "GenericError", "desc": "no such device"}} | mark)
                else:
                    say({"return": self.answers.get(name, {})} | mark)

    def close(self) -> None:
        self._listener.close()
        self._thread.join(2)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "q", {})
    yield made
    made.close()


@pytest.fixture
def qmp(server: Server, tmp_path: Path) -> Iterator[Qmp]:
    made = Qmp(tmp_path / "q", timeout=5)
    yield made
    made.close()


def event(name: str, seconds: int, **data: Any) -> dict[str, Any]:
    return {"event": name, "data": data, "timestamp": {"seconds": seconds, "microseconds": 500000}}


def test_status_and_version(server: Server, qmp: Qmp) -> None:
    server.answers |= {
        "query-status": {"status": "prelaunch", "running": False},
        "query-version": GREETING["QMP"]["version"],
        "query-kvm": {"enabled": False, "present": True},
    }
    assert (qmp.status(), qmp.version(), qmp.kvm()) == ("prelaunch", "10.0.13", False)


def test_forwarded_ports_are_read_back(server: Server, qmp: Qmp) -> None:
    server.answers["human-monitor-command"] = USERNET
    assert qmp.forwarded() == {6443: 40123, 22: 40124}
    assert server.seen[-1]["arguments"] == {"command-line": "info usernet"}


def test_cable(server: Server, qmp: Qmp) -> None:
    qmp.link(up=False)
    assert server.seen[-1] == {
        "execute": "set_link",
        "arguments": {"name": "nic0", "up": False},
        "id": server.seen[-1]["id"],
    }


def test_events_are_counted(server: Server, qmp: Qmp) -> None:
    server.answers["cont:events"] = [
        event("RESET", 10, guest=True, reason="guest-reset"),
        event("RTC_CHANGE", 11, offset=0),
        event("RESET", 12, guest=True, reason="guest-reset"),
    ]
    qmp.resume()
    assert qmp.count("RESET") == 2
    assert qmp.count("RESET") == 2, "asking again must not lose or double them"
    assert [(e.name, e.seconds) for e in qmp.events()] == [
        ("RESET", 10.5),
        ("RTC_CHANGE", 11.5),
        ("RESET", 12.5),
    ]
    assert qmp.events()[0].data["reason"] == "guest-reset"


def test_refused_command(server: Server, qmp: Qmp) -> None:
    server.answers["errors"] = ["set_link"]
    with pytest.raises(MachineError, match="QMP set_link: no such device"):
        qmp.link(up=True)


def test_byte_that_cannot_be_written(server: Server, qmp: Qmp) -> None:
    server.answers["human-monitor-command"] = ""
    qmp.write_byte("disk0", 4096, 7)
    assert server.seen[-1]["arguments"]["command-line"] == 'qemu-io disk0 "write -q -P 7 4096 1"'
    server.answers["human-monitor-command"] = "Error: no such node\r\n"
    with pytest.raises(MachineError, match="no such node"):
        qmp.write_byte("disk0", 4096, 7)


def test_quit_needs_no_answer(qmp: Qmp) -> None:
    qmp.quit()
    with pytest.raises(MachineError):
        qmp.status()


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="QMP connect"):
        Qmp(tmp_path / "none")


def test_a_socket_that_listens_a_moment_later(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU binds its socket first: whoever is quick is refused."""
    early = tmp_path / "early"
    tries: list[str] = []
    real = QMPClient.connect

    async def connect(self: QMPClient, address: str) -> None:
        tries.append(address)
        if len(tries) == 3:
            early.unlink()
            early.symlink_to(tmp_path / "q")
        await real(self, address)

    monkeypatch.setattr(QMPClient, "connect", connect)
    monkeypatch.setattr("k3img.vm.qmp.PAUSE", 0)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(early))
        Qmp(early).close()
    assert len(tries) == 3


def test_a_socket_that_never_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("k3img.vm.qmp.PAUSE", 0)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "dead"))
        with pytest.raises(MachineError, match="refused"):
            Qmp(tmp_path / "dead")
