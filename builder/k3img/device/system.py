"""What touches the machine itself: programs, the clock, the host's name. Tests hand in another one."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


SIOCGIFADDR = 0x8915
"""netdevice(7)."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a program ended: its exit status (negative: by a signal) and what it said on both streams."""

    status: int
    output: str = ""


class System:
    """The machine that we run on."""

    def run(self, argv: Sequence[str], *, timeout: float = 90, path: str | None = None) -> Ended:
        """Run a program to its end. A missing program ends with 127, one that takes too long with -9.

        `path` is its PATH, where the system's own will not do.
        """
        import subprocess  # noqa: PLC0415 - a slow import under emulation, and not every boot needs it

        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
                env={"PATH": path or "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
            )
        except FileNotFoundError:
            return Ended(status=127, output=f"{argv[0]} is not in this image")
        except subprocess.TimeoutExpired:
            return Ended(status=-9, output=f"{argv[0]} took longer than {timeout:.0f} s")
        return Ended(status=done.returncode, output=done.stdout.decode(errors="replace").strip())

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def since_boot(self) -> float:
        """Seconds since power on; no setting of the clock changes it."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def set_clock(self, seconds: float) -> None:
        """Set the clock."""
        time.clock_settime(time.CLOCK_REALTIME, seconds)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def sync(self) -> None:
        """Make all that was written durable."""
        os.sync()

    def set_hostname(self, name: str) -> None:
        """Set the running kernel's host name."""
        Path("/proc/sys/kernel/hostname").write_text(name)

    def poke(self, address: str) -> None:
        """Send a datagram that nobody reads (RFC 863), so that the kernel asks who has the address."""
        import socket  # noqa: PLC0415 - only some services need it

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle, suppress(OSError):
            handle.sendto(b"", (address, 9))

    def ipv4(self, interface: str) -> str | None:
        """The interface's first IPv4 address, asked of the kernel without starting a program."""
        import fcntl  # noqa: PLC0415 - only some services need these two
        import socket  # noqa: PLC0415

        request = interface.encode()[:15].ljust(40, b"\0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            try:
                answer = fcntl.ioctl(handle.fileno(), SIOCGIFADDR, request)
            except OSError:
                return None
        return socket.inet_ntoa(answer[20:24])

    def log(self, text: str) -> None:
        """One line to the journal (standard error of a unit)."""
        os.write(2, f"{text}\n".encode(errors="replace"))
