"""A part of ci/full: somebody has the compressed image and nothing else (README, "From the raw image alone").

The medium was used before: it is full of random bytes. The machine is the least that README asks for, and
starts from a plain QEMU command line; nothing of k3img touches it.
"""

from __future__ import annotations

import shlex
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ci.steps import Context, PartError, do, empty, expect, need, say

from k3img.cluster.api import Api, condition
from k3img.errors import K3imgError
from k3img.image import gpt
from k3img.tools import toolbox
from k3img.tree import Tree
from k3img.vm.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from k3img.tools.toolbox import Toolbox

MEMORY = "2048M"
MEDIUM = 8_000_000_000
USED = 2 << 30
"""Bytes of the medium that somebody wrote before; the image's partitions end below that."""

MINUTES = 15


def run(ctx: Context) -> None:
    """Write the medium, power on, wait for the node, take the power away, read the medium elsewhere."""
    empty(ctx.work)
    medium = ctx.work / "medium"
    write(next(ctx.image.glob("*.raw.zst")), medium)
    boot(ctx, medium)


def boot(ctx: Context, medium: Path, *beside: Path) -> str:
    """Power on, wait for the node, take the power away, read the medium elsewhere; returns its name."""
    with powered_on(ctx, medium, *beside) as (qemu, port):
        wait_until_ready(qemu, ctx.work / "console.log")
        kubeconfig = read(ctx, medium, "kubeconfig.yaml")
        (node,) = Api(kubeconfig, port).get("/api/v1/nodes")["items"]
        name = str(node["metadata"]["name"])
        say(f"node {name}: Ready {condition(node, 'Ready')}")
        expect(condition(node, "Ready") == "True", "the node is not Ready")
        console = (ctx.work / "console.log").read_text(errors="replace")
        expect("Restarting system" not in console, "it became Ready only after a restart")
    status = read(ctx, medium, "status.txt")
    expect("Ready since" in status and "not seeded" in status, f"status.txt says:\n{status}")
    expect(f"server: https://{address(status)}:6443" in kubeconfig, "the kubeconfig names another address")
    return name


@contextmanager
def powered_on(ctx: Context, *media: Path, form: str = "raw") -> Iterator[tuple[Child, int]]:
    """A machine with these disks, and the port that leads to its API; killed at the end."""
    port = free_port()
    qemu = power_on(ctx, media, port, form)
    try:
        yield qemu, port
    except K3imgError as error:
        raise PartError(str(error)) from error
    finally:
        qemu.kill()


def write(image: Path, medium: Path) -> None:
    """What README says, onto a medium that is not empty."""
    need("zstdcat", "zstd")
    used(medium)
    packed, target = shlex.quote(str(image)), shlex.quote(str(medium))
    script = f"zstdcat {packed} | dd of={target} bs=4M conv=notrunc status=none"
    do("bash", "-euo", "pipefail", "-c", script)


def used(medium: Path) -> None:
    """A medium that somebody wrote before."""
    with medium.open("wb") as file:
        file.truncate(MEDIUM)
    do("dd", "if=/dev/urandom", f"of={medium}", "bs=4M", f"count={USED >> 22}", "conv=notrunc", "status=none")


def power_on(ctx: Context, media: Sequence[Path], port: int, form: str) -> Child:
    """Two processors, the least memory, UEFI, disks, a network card; the serial port is what one sees."""
    box = tools(ctx)
    firmware = box.firmware("amd64")
    (ctx.work / "console.log").unlink(missing_ok=True)
    variables = ctx.work / "vars.fd"
    variables.write_bytes(firmware.vars.read_bytes())
    argv = (
        *box.argv("qemu-system-x86_64"),
        *(word for folder in box.qemu_data() for word in ("-L", str(folder))),
        "-machine", "q35", "-cpu", "max", "-smp", "2", "-m", MEMORY, "-display", "none",
        "-drive", f"if=pflash,format=raw,readonly=on,file={firmware.code}",
        "-drive", f"if=pflash,format=raw,file={variables}",
        *(word for medium in media for word in ("-drive", f"if=virtio,format={form},file={medium}")),
        "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:6443",
        "-serial", f"file:{ctx.work}/console.log",
    )  # fmt: skip
    return Child(argv, log=ctx.work / "qemu.log", cwd=ctx.work)


def wait_until_ready(qemu: Child, console: Path) -> None:
    """Until the status on the console says so."""
    wait_for(qemu, console, "Ready since")


def wait_for(qemu: Child, console: Path, words: str) -> str:
    """Until the console says that; returns all that it said."""
    deadline = time.monotonic() + MINUTES * 60
    text = ""
    while words not in text:
        expect(time.monotonic() < deadline, f"no {words!r} within {MINUTES} minutes:\n{text[-4000:]}")
        qemu.check()
        time.sleep(2)
        text = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    say(text[max(text.rindex(words) - 400, 0) :])
    return text


def read(ctx: Context, medium: Path, name: str) -> str:
    """A file of the medium's K3IMG partition, as any laptop shows it."""
    box = tools(ctx)
    seed = next(part for part in gpt.read(medium) if part.label == "K3IMG")
    return do(*box.argv("mcopy"), "-n", "-i", f"{medium}@@{seed.start}", f"::{name}", "-")


def tools(ctx: Context) -> Toolbox:
    """The programs that k3img uses."""
    return toolbox.find(Tree(root=ctx.root, cache=ctx.cache))


def address(status: str) -> str:
    """The node's address in status.txt."""
    return next(line.split()[1] for line in status.splitlines() if line.startswith("address"))


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
