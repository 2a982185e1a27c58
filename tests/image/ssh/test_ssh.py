"""ssh with a real client."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from k3img.errors import ProgramError
from k3img.node.model import Node
from k3img.proc import run
from k3img.profile.model import Cluster
from k3img.verify import throwaway
from k3img.verify.boot import Hardware
from k3img.vm.spec import API_PORT, Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from k3img.verify.life import Life
    from k3img.verify.plugin import VerifyPlugin
    from k3img.vm.machine import Machine

SSH_PORT = 22
HOST_KEY = "/var/lib/k3img/ssh/ssh_host_ed25519_key"
ANSWER = 30
"""Seconds (stretched) for one connection: the server starts with it, and its handshake is emulated."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a login came to: ssh ends with 255 when it does not get in. `said` are its -vv lines."""

    status: int
    stdout: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def refusal(self) -> str:
        """The client's last words; fails when it got in."""
        assert self.status == 255, f"it got in: {self.stdout}"
        return self.said[-1].strip()

    @property
    def offered(self) -> set[str]:
        """How the server let people prove who they are."""
        lines = [line for line in self.said if "Authentications that can continue:" in line]
        return {line.partition("continue:")[2].strip() for line in lines}


@dataclass(frozen=True, kw_only=True)
class Client:
    """An ssh client with two keys in its folder: `right` is in the node's seed, `wrong` is not."""

    folder: Path

    def public(self, name: str) -> str:
        return (self.folder / f"{name}.pub").read_text(encoding="utf-8").strip()

    def run(self, machine: Machine, command: str, *options: str, key: str = "right") -> Answer:
        """Log in as root with one key and nothing else; of an option that is given twice the first counts."""
        settings = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
            "ConnectTimeout": str(int(ANSWER * machine.stretch)),
        }
        said: list[str] = []
        argv = [
            *("ssh", "-vv", "-F", "/dev/null", "-i", str(self.folder / key), *options),
            *(f"-o{name}={value}" for name, value in settings.items()),
            *("-p", str(machine.forwarded(SSH_PORT)), "root@127.0.0.1", command),
        ]
        try:
            stdout = run(
                argv,
                timeout=2 * ANSWER * machine.stretch,
                on_line=said.append,
                hint="apt-get install openssh-client",
            )
        except ProgramError as error:
            return Answer(status=error.status, said=said)
        return Answer(status=0, stdout=stdout, said=said)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("right", "wrong"):
        made = Ed25519PrivateKey.generate()
        private = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = made.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        (folder / name).touch(mode=0o600)
        (folder / name).write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public + b" k3img-verify\n")
    return Client(folder=folder)


@pytest.fixture(scope="session")
def life(verify: VerifyPlugin, client: Client) -> Iterator[Life]:
    """A node whose seed has one ssh key."""
    cluster = Cluster(name="ssh", nodes=(Node(name="ssh-1"),))
    seed = throwaway.seed(cluster, registries={}, ssh_keys=(client.public("right"),))
    assert seed is not None
    hardware = Hardware(network=Network(forward=(API_PORT, SSH_PORT)))
    with ExitStack() as stack:
        yield verify.open_life(stack, hardware, credentials=seed.credentials)


def test_boots(life: Life) -> None:
    """The image boots with a seed that has an ssh key."""
    life.power_on()
    life.machine.wait_for_unit("k3img-ssh.socket", timeout=180)


def test_nothing_resident(machine: Machine) -> None:
    """No ssh server runs while nobody is connected; systemd listens."""
    # -q ends with 0 for any match, also when another process ends while it looks.
    machine.fail("grep -qsx sshd /proc/[0-9]*/comm")


def test_right_key(machine: Machine, client: Client, evidence: Callable[[object], None]) -> None:
    """The key in the seed gets in, as root on that very node."""
    answer = client.run(machine, "id -u; cat /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id")
    evidence(answer.stdout or "\n".join(answer.said[-20:]))
    user, hostname, boot = answer.stdout.split()
    assert (user, boot) == ("0", machine.channel.boot)
    assert hostname.startswith("ssh-1-"), "another node answered"


def test_wrong_key(machine: Machine, client: Client, evidence: Callable[[object], None]) -> None:
    """Another key does not get in."""
    answer = client.run(machine, "id -u", key="wrong")
    evidence(answer.refusal)
    assert "Permission denied (publickey)" in answer.refusal


def test_password(machine: Machine, client: Client, evidence: Callable[[object], None]) -> None:
    """A password does not get in: the server does not even ask for one."""
    ask = ("-oPubkeyAuthentication=no", "-oPreferredAuthentications=password,keyboard-interactive")
    answer = client.run(machine, "id -u", "-oBatchMode=no", "-oNumberOfPasswordPrompts=1", *ask)
    evidence(answer.refusal)
    assert "Permission denied (publickey)" in answer.refusal
    assert answer.offered == {"publickey"}


def test_host_key(machine: Machine, client: Client) -> None:
    """The host's key was made on this node: it lies on the root partition, readable by root alone."""
    assert machine.succeed(f"stat -c '%a %U' {HOST_KEY}").split() == ["600", "root"]
    assert machine.succeed(f"findmnt -no TARGET --target {HOST_KEY}").strip() == "/"
    machine.fail("find /usr -name 'ssh_host_*' | grep .")
    known = (client.folder / "known_hosts").read_text(encoding="utf-8")
    assert machine.succeed(f"cat {HOST_KEY}.pub").split()[1] in known


def test_stays_the_same(life: Life, client: Client) -> None:
    """After a restart the node has the same host key, and the same key gets in."""
    life.restart()
    life.machine.wait_for_unit("k3img-ssh.socket", timeout=180)
    answer = client.run(life.machine, "id -u", "-oStrictHostKeyChecking=yes")
    assert answer.stdout.split() == ["0"], "\n".join(answer.said[-20:])


def test_nothing_failed(machine: Machine) -> None:
    """No unit failed, refused connections included."""
    assert machine.succeed("systemctl --failed --plain --no-legend") == ""
