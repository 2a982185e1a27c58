"""Part of ci/full: external datastores that no scenario boots, each the real program, under the stand-in.

Each runs in a network, a process and a mount name space of its own: nothing of it reaches the host, and
nothing stays.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ci.steps import Context, PartError, do, empty, expect, need, say

from k3img.cluster.api import Api, ApiError
from k3img.vm.child import Child
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADDRESS = "10.66.0.1"
SECONDS = 180
PASSWORD, TOKEN = "kept-here-alone", "0123456789abcdef"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
REFUSED = "encrypted with different token"

SPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")

INSIDE = f"""
ip link set lo up
ip link add br0 type bridge
ip address add {ADDRESS}/24 dev br0
ip link set br0 up
ip route add default via 10.66.0.2
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/data"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc
shift
exec "$@"
"""
"""A network with a default route, which k3s asks for, and an /etc of our own, where it keeps a password."""


def mariadb(folder: Path) -> tuple[list[str], str]:
    """What starts a new MariaDB, and its URL."""
    first = folder / "first.sql"
    # A statement on each line: MariaDB reads no further in one.
    first.write_text(
        "CREATE DATABASE k3s;\n"
        f"CREATE USER k3s@'%' IDENTIFIED BY '{PASSWORD}';\n"
        "GRANT ALL ON k3s.* TO k3s@'%';\n"
    )
    data = folder / "mariadb"
    do("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data}", "--skip-test-db")
    argv = [
        "mariadbd", "--no-defaults", "--skip-name-resolve", "--user=root",
        f"--datadir={data}", f"--init-file={first}",
        "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid",
    ]  # fmt: skip
    return argv, f"mysql://k3s:{PASSWORD}@tcp(127.0.0.1:3306)/k3s"


def etcd(folder: Path) -> tuple[list[str], str]:
    """What starts a new etcd, and its URL."""
    return ["etcd", "--data-dir", str(folder / "etcd"), "--log-level", "warn"], "http://127.0.0.1:2379"


def nats(folder: Path) -> tuple[list[str], str]:
    """What starts a new NATS with JetStream, and its URL."""
    return ["nats-server", "-js", "-a", "127.0.0.1", "-sd", str(folder / "nats")], "nats://127.0.0.1:4222"


KINDS: dict[str, tuple[str, str, int, Callable[[Path], tuple[list[str], str]]]] = {
    "mariadb": ("mariadbd", "mariadb-server", 3306, mariadb),
    "etcd": ("etcd", "etcd-server", 2379, etcd),
    "nats": ("nats-server", "nats-server", 4222, nats),
}
"""The program that must be there, its package, its port, and how it is started."""


def run(ctx: Context) -> None:
    """Start, write, restart, read, on each of them; and another token is refused."""
    for kind, (program, package, _, _) in KINDS.items():
        need(program, package)
        folder = ctx.work / kind
        empty(folder)
        words = (sys.executable, "-B", "-m", "ci.datastores", kind, folder / "data")
        release = ctx.mirror / ctx.standin / "k3s"
        do(*SPACES, "bash", "-euc", INSIDE, "inside", folder, *words, release, cwd=ctx.root)


def inside(kind: str, folder: Path, release: Path) -> None:
    """One datastore, in its name spaces."""
    _, _, port, prepare = KINDS[kind]
    argv, url = prepare(folder)
    with ExitStack() as stack:
        database = started(stack, argv, folder / f"{kind}.log")
        wait(f"{kind} to answer", lambda: connects(port), database)
        with server(folder, release, url) as api:
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "kept"},
                "data": {"in": kind},
            }
            made = api.request("POST", CONFIG_MAPS, body)
            expect(made.status == 201, f"{kind}: a ConfigMap is not taken: {made.text[:200]}")
        with server(folder, release, url) as api:
            found: Any = api.get(f"{CONFIG_MAPS}/kept")
            expect(found["data"] == {"in": kind}, f"{kind}: the ConfigMap is another after a restart")
        log = folder / "refused.log"
        other = started(stack, command(folder / "other", release, url, TOKEN[::-1]), log)
        expect(other.wait_until_ended(SECONDS), f"{kind}: a server with another token runs")
        expect(REFUSED in log.read_text(errors="replace"), f"{kind}: another token was not refused")
        told = "".join(path.read_text(errors="replace") for path in folder.glob("k3s*.log"))
        expect(PASSWORD not in told, f"{kind}: the log has the datastore's password")
    say(f"{kind}: written, restarted, read; another token is refused")


def command(data: Path, release: Path, url: str, token: str) -> list[str]:
    """A server without an agent, configured by a file as nodes are: command lines can be read by all."""
    options = {
        "disable-agent": True,
        "data-dir": str(data),
        "token": token,
        "datastore-endpoint": url,
        "write-kubeconfig": str(data / "kubeconfig"),
        "node-ip": ADDRESS,
    }
    config = data.with_suffix(".yaml")
    config.write_text(json.dumps(options))
    return [str(release), "server", "--config", str(config)]


@contextmanager
def server(folder: Path, release: Path, url: str) -> Iterator[Api]:
    """A server that is ready, ended by SIGTERM."""
    data = folder / "k3s"
    log = folder / f"k3s-{len(list(folder.glob('k3s-*.log')))}.log"
    with ExitStack() as stack:
        process = started(stack, command(data, release, url, TOKEN), log)

        def ready() -> bool:
            kubeconfig = data / "kubeconfig"
            text = kubeconfig.read_text() if kubeconfig.exists() else ""
            with suppress(ApiError):
                return bool(text) and Api(text, 6443, address=ADDRESS, timeout=5).ready()
            return False

        wait("the API", ready, process)
        yield Api((data / "kubeconfig").read_text(), 6443, address=ADDRESS)


def started(stack: ExitStack, argv: list[str], log: Path) -> Child:
    """A program in the background, its output in a file."""
    child = Child(argv, log=log, cwd=log.parent, name=Path(argv[0]).name)
    stack.callback(child.stop)
    return child


def connects(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def wait(what: str, ready: Callable[[], bool], child: Child) -> None:
    """Wait for something that a program does. Raises `PartError` when it ends, or after three minutes."""
    end = time.monotonic() + SECONDS
    while not ready():
        child.check()
        if time.monotonic() > end:
            raise PartError(f"{what}: nothing after {SECONDS} s")
        time.sleep(0.5)


if __name__ == "__main__":
    try:
        inside(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except (PartError, ApiError, MachineError) as error:
        say(f"FAILED: {error}")
        for path in sorted(Path(sys.argv[2]).glob("*.log")):
            say(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}")
        sys.exit(1)
