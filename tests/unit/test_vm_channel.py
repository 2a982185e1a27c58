"""The channel's protocol, against a guest that is a thread and may misbehave."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from k3img.vm import channel
from k3img.vm.channel import Channel, ChannelTimeoutError, Result
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def coded(text: bytes) -> bytes:
    return base64.b64encode(text)


class Guest:
    """The other end of the channel: says what a test makes it say to each command."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self.commands: list[tuple[bytes, bytes, bytes, bytes]] = []
        self.answer: Callable[[bytes, bytes], bytes] = lambda number, _: answer(number, 0, b"ok\n")
        self.greeting = b"\nk3img hello boot-1\n"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            link, _ = self._listener.accept()
        except OSError:
            return
        # The host may hang up at any time.
        with link, link.makefile("rb") as lines, suppress(OSError):
            link.sendall(self.greeting)
            for line in lines:
                number, boot, seconds, command = line.split()
                self.commands.append((number, boot, seconds, base64.b64decode(command)))
                said = self.answer(number, command)
                if not said:
                    return
                for start in range(0, len(said), 7):  # in pieces, as a port gives them
                    link.sendall(said[start : start + 7])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # where no host has come yet
        self._thread.join(2)
        self._listener.close()


def answer(number: bytes, rc: int, out: bytes = b"", err: bytes = b"") -> bytes:
    return b"k3img %s %d %s %s\n" % (number, rc, coded(out), coded(err))


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path / "c")
    yield made
    made.close()


@pytest.fixture
def connect(guest: Guest, tmp_path: Path) -> Iterator[Callable[[], Channel]]:
    with ExitStack() as stack:

        def make() -> Channel:
            made = Channel(tmp_path / "c")
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def host(connect: Callable[[], Channel]) -> Channel:
    return connect()


def test_runs_a_command(guest: Guest, host: Channel) -> None:
    assert host.wait_for_boot(5) == "boot-1"
    guest.answer = lambda number, _: answer(number, 3, "grün\n".encode(), b"oh\n")
    assert host.run("echo grün", timeout=7) == Result(
        command="echo grün", rc=3, stdout="grün\n", stderr="oh\n"
    )
    assert guest.commands == [(b"1", b"boot-1", b"7", "echo grün".encode())]


def test_output_that_is_not_text(guest: Guest, host: Channel) -> None:
    host.wait_for_boot(5)
    guest.answer = lambda number, _: answer(number, 0, b"\xff\0a")
    assert host.run("cat /dev/mem").stdout == "\ufffd\0a"


def test_garbage_is_skipped(guest: Guest, connect: Callable[[], Channel]) -> None:
    guest.greeting = b"\x1b[2Jk3img\n\xff\xfe\nk3img hello\nk3img hello boot-1 too\nk3img hello boot-1\r\n"
    host = connect()
    host.wait_for_boot(5)
    guest.answer = lambda number, _: (
        b"k3img\n\0\0\nk3img " + number + b" x = =\nk3img " + number + b" 0 !!! -\n"
        b"k3img 999 0 " + coded(b"another") + b" \n" + answer(number, 0, b"right")
    )
    assert host.run("true").stdout == "right"


def test_late_answer_to_a_command_that_was_given_up(
    guest: Guest, host: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "MARGIN", 0.0)
    host.wait_for_boot(5)
    guest.answer = lambda number, _: b"hm\n"
    with pytest.raises(ChannelTimeoutError):
        host.run("sleep 9", timeout=0.2)
    monkeypatch.setattr(channel, "MARGIN", 5.0)
    guest.answer = lambda number, _: answer(b"1", 0, b"late") + answer(number, 0, b"mine")
    assert host.run("true").stdout == "mine"


def test_restart_while_a_command_runs(guest: Guest, host: Channel) -> None:
    host.wait_for_boot(5)
    guest.answer = lambda number, _: b"k3img hello boot-2\n"
    with pytest.raises(ChannelTimeoutError, match="restarted while it ran: reboot"):
        host.run("reboot")
    assert host.boot == "boot-2"


def test_waits_for_another_boot(guest: Guest, connect: Callable[[], Channel]) -> None:
    guest.greeting = b"k3img hello boot-1\nk3img hello boot-1\nk3img hello boot-2\n"
    host = connect()
    assert host.wait_for_boot(5) == "boot-1"
    assert host.wait_for_boot(5, other_than="boot-1") == "boot-2"


def test_nobody_there(guest: Guest, connect: Callable[[], Channel]) -> None:
    guest.greeting = b"x"
    host = connect()
    with pytest.raises(ChannelTimeoutError):
        host.wait_for_boot(0.1)
    with pytest.raises(MachineError, match="no guest has answered"):
        host.run("true")


def test_forgotten_boot_is_not_talked_to(guest: Guest, host: Channel) -> None:
    host.wait_for_boot(5)
    host.forget_boot()
    with pytest.raises(MachineError, match="no guest has answered"):
        host.run("true")


def test_closed_by_qemu(guest: Guest, host: Channel) -> None:
    host.wait_for_boot(5)
    guest.answer = lambda number, _: b""
    with pytest.raises(MachineError, match="closed the test channel"):
        host.run("true")


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="socket"):
        Channel(tmp_path / "none")


def test_credentials_carry_the_loop() -> None:
    found = channel.credentials()
    unit = found["systemd.extra-unit.k3img-test.service"].decode()
    assert "ConditionPathExists=!/etc/initrd-release" in unit
    assert r"dev-virtio\x2dports-k3img.test.device" in unit
    assert "${CREDENTIALS_DIRECTORY}/k3img.loop" in unit
    assert b"/dev/virtio-ports/k3img.test" in found["k3img.loop"]


def test_result_as_evidence() -> None:
    good = Result(command="true", rc=0, stdout="a\n", stderr="")
    bad = Result(command="false", rc=1, stdout="", stderr="no\n")
    assert str(good) == "$ true\na"
    assert str(bad) == "$ false   -> exit status 1\nno"
