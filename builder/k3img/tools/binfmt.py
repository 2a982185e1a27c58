"""Programs of another architecture: the kernel starts them through qemu-user.

Maintainers' scripts of an arm64 image are arm64 programs. The kernel keeps the interpreter open from when it
was registered (flag F of Linux' admin-guide/binfmt-misc), so it is found in every sandbox and name space.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import MissingToolError
from k3img.log import line
from k3img.tools.finding import Finding, State

if TYPE_CHECKING:
    from k3img.tools.tools_tree import ToolsTree

ROOT = Path("/proc/sys/fs/binfmt_misc")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names of architectures, and those of the kernel and of QEMU."""

ELF = {
    "x86_64": bytes.fromhex("7f454c460201010000000000000000000200 3e00"),
    "aarch64": bytes.fromhex("7f454c460201010000000000000000000200 b700"),
}
"""How 64-bit little-endian programs begin: identification, type, machine (ELF-64, e_ident to e_machine)."""

MASK = bytes.fromhex("ffffffffffffff00fffffffffffffffffeff ffff")
"""What of that counts: the ABI may be any, the type ET_EXEC or ET_DYN."""


def finding(target: str, root: Path = ROOT) -> Finding:
    """Whether the kernel starts programs of Debian's architecture `target`."""
    machine = MACHINES[target]
    on = os.uname().machine == machine or _enabled(root / f"qemu-{machine}")
    fix = f"k3img doctor --fix --target {target}"
    return Finding(
        name=f"{machine} programs",
        state=State.OK if on else State.NOTE,
        found="run" if on else "do not run",
        needed_for=f"{target} images only",
        how=fix if os.geteuid() == 0 else f"as root: {fix}",
    )


def require(target: str) -> None:
    """Raise `MissingToolError` when programs of `target` do not run here."""
    found = finding(target)
    if found.state is not State.OK:
        raise MissingToolError(f"programs of {target} do not run on this machine", hint=found.how)


def register(target: str, tree: ToolsTree, root: Path = ROOT) -> None:
    """Tell the kernel about the tools tree's qemu-user, until the machine restarts; only root can.

    Raises `ProgramError` when the kernel does not know binfmt_misc.
    """
    machine = MACHINES[target]
    if finding(target, root).state is State.OK:
        return
    program = tree.program(f"qemu-{machine}")
    if program is None:
        raise MissingToolError(
            f"the tools tree has no qemu-{machine}: {tree.path}", hint="Delete that folder."
        )
    if not (root / "register").exists():
        proc.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", root],
            hint="The kernel needs CONFIG_BINFMT_MISC; in a container: start it with --privileged.",
        )
    (root / "register").write_text(rule(machine, program), encoding="ascii")
    line(f"{machine} programs run through {program}, until this machine restarts")


def rule(machine: str, program: Path) -> str:
    """The kernel's rule. P: the program's own name is kept; F: the interpreter is opened now."""
    return f":qemu-{machine}:M::{_hex(ELF[machine])}:{_hex(MASK)}:{program}:PF"


def _hex(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _enabled(file: Path) -> bool:
    return file.is_file() and file.read_text(encoding="ascii", errors="replace").startswith("enabled")
