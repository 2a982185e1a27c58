"""A network for several machines: a bridge, DHCP and DNS, in a network name space that holds nothing else.

The whole process lives in the name space (`enter`), and in a process name space of its own: nothing leaves
it, and when the process ends, however it ends, the kernel ends every program in it and forgets the bridge.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import MissingToolError
from k3img.tools import host
from k3img.vm.child import Child, dies_with_us
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from types import FrameType

INSIDE = "K3IMG_LAB"
"""In the environment of a process that is in a name space of its own."""

BRIDGE = "lab0"
NETWORK = "10.77.0."
ROUTER = f"{NETWORK}1"
"""This host on the bridge: gateway, DNS and, like any laptop there, a place to look for nodes from."""

SUBNET = "10.78.0."
"""A network behind the router: `subnet`."""

TUN = Path("/dev/net/tun")
"""Where the machines' network cards are made. Anybody may: it takes the right to do so in a name space."""

LEASE = 120
"""Seconds; dnsmasq allows no less."""


def enter(argv: Sequence[str]) -> None:
    """Start this program again in name spaces of its own, unless it is in them; then this never returns.

    Raises `MissingToolError` when the host lacks a program or a device for the network.
    """
    if os.environ.get(INSIDE):
        _ip("link", "set", "lo", "up")  # single machines' ports are forwarded from there
        return
    for program, package in host.LAB:
        if proc.which(program) is None:
            raise MissingToolError(f"the lab needs {program}", hint=f"apt-get install {package}")
    if not TUN.exists():
        raise MissingToolError(f"the lab needs {TUN}", hint="As root: modprobe tun")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise MissingToolError(
            f"the lab needs {TUN}, which you may not open",
            hint=f"As root, as udev does elsewhere: chmod 0666 {TUN}",
        )
    unshare = str(proc.which("unshare"))
    rootless = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    spaces = ("--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
    sys.stdout.flush()
    environment = {**os.environ, INSIDE: "1"}
    words = [*dies_with_us(), unshare, *rootless, *spaces, "--", sys.executable, *argv]
    sys.exit(_follow(os.posix_spawn(words[0], words, environment)))


def _follow(pid: int) -> int:
    """Wait for unshare's end, and hand on what it ignores itself: SIGTERM and a closed terminal."""

    def forward(number: int, _frame: FrameType | None) -> None:
        for started in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(started), number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the child as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - status if status < 0 else status


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A machine's place in the network: DHCP always gives it this address."""

    mac: str
    address: str
    tap: str


class Lab:
    """The network. `stack` ends what it starts; `folder` has room for logs and leases."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        if not os.environ.get(INSIDE):
            raise MachineError("a lab needs a network name space of its own: see enter()")
        self._folder = folder
        self._leases: dict[str, Lease] = {}
        self._answered: set[str] = set()
        self._stack = stack
        kind = ("type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
        self._add(BRIDGE, "link", "add", BRIDGE, *kind)
        _ip("address", "add", f"{ROUTER}/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        # mDNS and IPv6 find their way by multicast; there is no default route that would do.
        _ip("route", "add", "224.0.0.0/4", "dev", BRIDGE)
        self._hosts = folder / "hosts"
        self._hosts.write_text("")
        self._dhcp: Child | None = None
        self._time = False
        stack.callback(self._stop_dhcp)
        self.serve()

    def _add(self, link: str, *command: str) -> None:
        """A network device until the lab ends: the next one in this name space makes its own."""
        _ip(*command)
        self._stack.callback(_ip, "link", "delete", link)

    def serve(self, *, router: bool = True) -> None:
        """Start the DHCP and DNS server (again): with or without a default route for the machines."""
        self._stop_dhcp()
        gateway = f"option:router,{ROUTER}" if router else "option:router"
        argv = (
            str(proc.which("dnsmasq")), "--keep-in-foreground", "--log-facility=-", "--log-dhcp",
            "--conf-file=/dev/null", "--user=root", "--group=", "--pid-file=",
            f"--interface={BRIDGE}", "--bind-interfaces", "--except-interface=lo",
            "--no-resolv", "--no-hosts", "--domain=lab", "--dhcp-authoritative",
            f"--dhcp-range={NETWORK}100,{NETWORK}199,{LEASE}", f"--dhcp-option={gateway}",
            *((f"--dhcp-option=option:ntp-server,{ROUTER}",) if self._time else ()),
            f"--dhcp-hostsfile={self._hosts}", f"--dhcp-leasefile={self._folder / 'leases'}",
        )  # fmt: skip
        log = self._folder / "dnsmasq.log"
        self._dhcp = Child(argv, log=log, cwd=self._folder, name="dnsmasq")

    def serve_time(self) -> None:
        """Answer NTP with this host's clock, which DHCP names from now on. Raises `MissingToolError`."""
        chronyd = proc.which("chronyd")
        if chronyd is None:
            raise MissingToolError("NTP in a lab needs chronyd", hint="apt-get install chrony")
        # -x: never touch this host's clock. -U: also where we are root of a user name space alone.
        # chronyd removes what lies at its pid file's and its socket's place: neither may be the host's.
        argv = (
            str(chronyd), "-x", "-d", "-U", "-u", "root",
            "local stratum 3", "allow all", f"bindaddress {ROUTER}",
            "cmdport 0", "bindcmdaddress /", f"pidfile {self._folder / 'chronyd.pid'}",
        )  # fmt: skip
        self._stack.callback(
            Child(argv, log=self._folder / "chrony.log", cwd=self._folder, name="chronyd").stop
        )
        self._time = True
        self.serve()

    def _stop_dhcp(self) -> None:
        if self._dhcp is not None:
            self._dhcp.stop()
        self._dhcp = None

    def answer(self, address: str) -> None:
        """Be a router of another network on the bridge as well, such as 192.168.7.1/24."""
        if address not in self._answered:
            self._answered.add(address)
            _ip("address", "add", address, "dev", BRIDGE)

    def join(self, name: str, *, mac: str = "", address: str = "dhcp") -> Lease:
        """A place for a machine; the same one when it comes again.

        `mac` is that of its card when it matters; `address` one that it gives itself, not DHCP.
        """
        if name not in self._leases:
            number = len(self._leases) + 1
            lease = Lease(
                mac=mac or f"52:54:00:77:00:{number:02x}",
                address=f"{NETWORK}{10 + number}" if address == "dhcp" else address,
                tap=f"lab-tap{number}",
            )
            self._add(lease.tap, "tuntap", "add", lease.tap, "mode", "tap")
            _ip("link", "set", lease.tap, "master", BRIDGE, "up")
            self._leases[name] = lease
            self._write_hosts()
        return self._leases[name]

    def move(self, name: str, address: str) -> Lease:
        """Give a machine another address from its next lease on."""
        old = self._leases[name]
        self._leases[name] = Lease(mac=old.mac, address=address, tap=old.tap)
        self._write_hosts()
        return self._leases[name]

    def _write_hosts(self) -> None:
        own = [lease for lease in self._leases.values() if lease.address.startswith(NETWORK)]
        lines = [f"{lease.mac},{lease.address}\n" for lease in own]
        self._hosts.write_text("".join(lines))
        if self._dhcp is not None:
            self._dhcp.hang_up()

    def cut(self, name: str) -> None:
        """Take a machine off the bridge; its own card does not notice."""
        _ip("link", "set", self._leases[name].tap, "nomaster")

    def heal(self, name: str) -> None:
        """Put it back."""
        _ip("link", "set", self._leases[name].tap, "master", BRIDGE)

    def subnet(self) -> tuple[str, ...]:
        """A second network behind this router, without the first one's multicast; call it once.

        Returns the words that start a program on a machine there.
        """
        here, there = "lab-sub0", "lab-sub1"
        argv = (str(proc.which("unshare")), "--net", "--", "sleep", "infinity")
        machine = Child(argv, log=self._folder / "subnet.log", cwd=self._folder, name="the second network")
        self._stack.callback(machine.stop)
        inside = (str(proc.which("nsenter")), "--net", "--target", str(machine.pid), "--")
        self._add(here, "link", "add", here, "type", "veth", "peer", "name", there)
        while Path(f"/proc/{machine.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.05)  # unshare has not got that far
        _ip("link", "set", there, "netns", str(machine.pid))
        _ip("address", "add", f"{SUBNET}1/24", "dev", here)
        _ip("link", "set", here, "up")
        for words in (
            ("address", "add", f"{SUBNET}2/24", "dev", there),
            ("link", "set", there, "up"),
            ("route", "add", "default", "via", f"{SUBNET}1"),
        ):
            proc.run([*inside, "ip", *words])
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        return inside

    def check(self) -> None:
        """Raise `MachineError` when the DHCP server has ended."""
        if self._dhcp is not None:
            self._dhcp.check()


def _ip(*words: str) -> str:
    return proc.run(["ip", *words])
