r"""Commands in an unmodified guest, over a virtio-serial port.

The guest learns of it from outside only: three SMBIOS strings become systemd credentials, one of them a
unit, one a drop-in that pulls the unit in, one the shell loop that the unit runs. The loop answers:

    host:   ID BOOT SECONDS BASE64(command)\n          BOOT is the boot that the command is meant for
    guest:  k3img ID RC BASE64(stdout) BASE64(stderr)\n
    guest:  k3img hello BOOT\n                          whenever the loop starts

A command that was sent before a reboot is never run after it: its BOOT is not that boot's any more.
Lines that are not answers (a cut line, an answer to a command that was given up) are skipped.
Whoever starts a machine with these strings is root in it; QEMU's owner could read its memory anyway.
"""

from __future__ import annotations

import base64
import itertools
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.vm.faults import MachineError
from k3img.vm.spec import CHANNEL_PORT

if TYPE_CHECKING:
    from pathlib import Path

TIMED_OUT = 124
"""Exit status of a command that coreutils' `timeout` ended."""

MARGIN = 30.0
"""Seconds that an answer may take beyond the command's own time."""

_LOOP = rf"""
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb
read -r boot </proc/sys/kernel/random/boot_id
umask 077
mkdir -p /run/k3img-test
cd /run/k3img-test || exit 1
exec 3<>/dev/virtio-ports/{CHANNEL_PORT} </dev/null
printf '\nk3img hello %s\n' "$boot" >&3
while read -r id for seconds command <&3; do
  [ "$for" = "$boot" ] || continue
  printf %s "$command" | base64 -d >command || continue
  timeout -k 5 "$seconds" /bin/sh ./command >out 2>err 3>&-
  rc=$?
  {{ printf 'k3img %s %s ' "$id" "$rc"; base64 -w0 out; printf ' '; base64 -w0 err; printf '\n'; }} >&3
done
exit 1
"""

_UNIT = rf"""
[Unit]
Description=Test channel of k3img
DefaultDependencies=no
ConditionPathExists=!/etc/initrd-release
Wants=dev-virtio\x2dports-{CHANNEL_PORT}.device
After=sysinit.target dev-virtio\x2dports-{CHANNEL_PORT}.device
Conflicts=shutdown.target
Before=shutdown.target
[Service]
LoadCredential=k3img.loop
ExecStart=/bin/sh ${{CREDENTIALS_DIRECTORY}}/k3img.loop
Restart=on-failure
RestartSec=1
OOMScoreAdjust=-900
"""


def credentials() -> dict[str, bytes]:
    """The systemd credentials that put the channel into a guest."""
    return {
        "systemd.extra-unit.k3img-test.service": _UNIT.encode(),
        "systemd.unit-dropin.multi-user.target": b"[Unit]\nWants=k3img-test.service\n",
        "k3img.loop": _LOOP.encode(),
    }


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command in the guest ended. Its output is text; bytes that are not UTF-8 are replaced."""

    command: str
    rc: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it ended with 0."""
        return self.rc == 0

    def __str__(self) -> str:
        """As evidence: the command, its exit status when it failed, its output."""
        status = "" if self.ok else f"   -> exit status {self.rc}"
        return "\n".join(
            text for text in (f"$ {self.command}{status}", self.stdout.rstrip(), self.stderr.rstrip()) if text
        )


class ChannelTimeoutError(MachineError):
    """No answer came in time. The guest may be busy, hung or restarting."""


class Channel:
    """The host's end. Connect before power on: what a guest says to nobody is lost."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise MachineError(f"the channel's socket {path}: {error}") from error
        self._buffer = b""
        self._ids = itertools.count(1)
        self.boot: str | None = None
        """The boot id of the guest whose loop answers, or None while none has said hello."""

    def wait_for_boot(self, timeout: float, *, other_than: str | None = None) -> str:
        """Wait until a guest's loop says hello (a boot other than `other_than`); returns its boot id.

        Raises `ChannelTimeoutError` when `timeout` seconds pass first.
        """
        deadline = time.monotonic() + timeout
        while self.boot is None or self.boot == other_than:
            self._next_line(deadline)
        return self.boot

    def run(self, command: str, *, timeout: float = 60) -> Result:
        """Run a shell command in the guest; after `timeout` seconds the guest itself ends it (status 124).

        Raises `ChannelTimeoutError` when no answer comes, or when the guest restarted meanwhile.
        """
        boot = self.boot
        if boot is None:
            raise MachineError("no guest has answered on the test channel yet")
        number = str(next(self._ids))
        text = base64.b64encode(command.encode(errors="surrogateescape")).decode()
        try:
            self._socket.sendall(f"{number} {boot} {max(1, round(timeout))} {text}\n".encode())
        except OSError as error:
            raise MachineError(f"the test channel is closed: {error}") from error
        deadline = time.monotonic() + timeout + MARGIN
        while True:
            answer = _answer(self._next_line(deadline), number)
            if answer is not None:
                rc, out, err = answer
                return Result(command=command, rc=rc, stdout=_text(out), stderr=_text(err))
            if self.boot != boot:
                raise ChannelTimeoutError(f"the guest restarted while it ran: {command}")

    def forget_boot(self) -> None:
        """Say that the guest is gone (power cut, reboot): only a new hello makes the channel usable."""
        self.boot = None

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _next_line(self, deadline: float) -> bytes:
        """The next whole line; notes a hello by the way."""
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChannelTimeoutError("no answer on the test channel")
            self._socket.settimeout(left)
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                raise MachineError(f"the test channel broke: {error}") from error
            if not more:
                raise MachineError("QEMU closed the test channel")
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        words = line.strip().split(b" ")
        if words[:2] == [b"k3img", b"hello"] and len(words) == 3:
            self.boot = words[2].decode(errors="replace")
        return line


def _answer(line: bytes, number: str) -> tuple[int, bytes, bytes] | None:
    """Exit status and outputs, when a line is the whole answer to command `number`."""
    words = line.removesuffix(b"\r").split(b" ")
    if len(words) != 5 or words[:2] != [b"k3img", number.encode()]:
        return None
    try:
        out, err = (base64.b64decode(word, validate=True) for word in words[3:])
        return int(words[2]), out, err
    except ValueError:  # binascii.Error is one
        return None


def _text(output: bytes) -> str:
    return output.decode(errors="replace")
