"""`k3img boot`: a machine for a person, its console on the terminal and its API on 127.0.0.1."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import threading
import tty
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from k3img.cluster.api import Api, with_server
from k3img.log import line
from k3img.tree import give_to_caller
from k3img.verify.life import KUBECONFIG, node_is_ready
from k3img.vm.channel import ChannelTimeoutError
from k3img.vm.faults import MachineError
from k3img.vm.spec import API_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.vm.machine import Machine


def run(machine: Machine, kubeconfig: Path) -> None:
    """Start a machine and stay with it until it switches itself off, or Ctrl-C.

    `kubeconfig` is written once the API can be used, and removed at the end: it is of no use then.
    Raises `MachineError` when QEMU fails.
    """
    with ExitStack() as stack:
        machine.start()
        stack.enter_context(console(machine.spec.sockets.console, sys.stdout.buffer))
        stack.callback(kubeconfig.unlink, missing_ok=True)
        port = machine.forwarded(API_PORT)
        say(f"the API will be at https://127.0.0.1:{port}; Ctrl-C ends the machine")
        watch = Watch(machine, kubeconfig, port)
        while not machine.ended(0.5):
            watch.look()
        say("the machine has switched itself off")


class Watch:
    """Looks, a step at a time, how far the cluster is, and says what is new."""

    def __init__(self, machine: Machine, kubeconfig: Path, port: int) -> None:
        self._machine = machine
        self._kubeconfig = kubeconfig
        self._port = port
        self._api: Api | None = None
        self._told = False

    def look(self) -> None:
        """One look. Nothing that is not there yet is an error."""
        if self._told:
            return
        with suppress(ChannelTimeoutError):
            if self._api is None:
                self._find_kubeconfig()
            elif node_is_ready(self._api, self._machine.channel.boot):
                say(f"node Ready {self._machine.seconds():.0f} s after power on")
                self._api.close()
                self._told = True

    def _find_kubeconfig(self) -> None:
        machine = self._machine
        machine.channel.wait_for_boot(0.5)
        found = machine.execute(f"cat {KUBECONFIG}", timeout=20)
        if not found.ok or not found.stdout:
            return
        api = Api(found.stdout, self._port, timeout=10)
        if not api.ready():
            api.close()
            return
        text = with_server(found.stdout, f"https://127.0.0.1:{self._port}")
        self._kubeconfig.touch(mode=0o600)
        self._kubeconfig.write_text(text, encoding="utf-8")
        give_to_caller(self._kubeconfig)
        self._api = api
        say(f"API ready {machine.seconds():.0f} s after power on")
        say(f"kubectl --kubeconfig {os.path.relpath(self._kubeconfig)} get nodes")


def say(text: str) -> None:
    """A line of ours between the guest's, on a terminal whose cursor may stand anywhere."""
    line(f"\r\n[k3img] {text}\r")


@contextmanager
def console(path: Path, out: BinaryIO) -> Iterator[None]:
    """Connect the terminal with a machine's serial console, both ways."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with ExitStack() as stack:
        stack.callback(link.close)
        try:
            link.connect(str(path))
        except OSError as error:
            raise MachineError(f"the console's socket {path}: {error}") from error
        keys = stack.enter_context(_keys())
        wake_read, wake_write = os.pipe()
        stack.callback(os.close, wake_read)
        thread = threading.Thread(
            target=_relay, args=(link, keys, out, wake_read), name="terminal", daemon=True
        )
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.close, wake_write)  # its end wakes the thread
        yield


@contextmanager
def _keys() -> Iterator[int | None]:
    """The terminal's keys, each as it is pressed; Ctrl-C stays ours. None when nobody types."""
    if not sys.stdin.isatty():
        yield None
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _relay(link: socket.socket, keys: int | None, out: BinaryIO, wake: int) -> None:
    sources: list[int | socket.socket] = [link, wake, *([keys] if keys is not None else [])]
    while True:
        ready, _, _ = select.select(sources, [], [])
        try:
            if link in ready:
                said = link.recv(65536)
                if not said:
                    return
                out.write(said)
                out.flush()
            if keys is not None and keys in ready:
                link.sendall(os.read(keys, 4096))
        except OSError:
            return  # QEMU went, or our output did: both end the session elsewhere
        if wake in ready:
            return
