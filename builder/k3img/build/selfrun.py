"""Let a k3s file unpack itself, when its archive cannot be cut out (see `k3img.runtime.unpack`).

It runs behind mkosi's sandbox program: the host's /usr read-only, an empty root, one folder that it may
write to, no network, no capabilities. util-linux' unshare adds what mkosi-sandbox leaves out for an
ordinary user (a network namespace) and for everybody (process ids, so that nothing outlives it).
"""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import MissingToolError
from k3img.profile.model import Arch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT = 600.0
"""Seconds; unpacking takes about ten, and fifty times as long under emulation on a slow machine."""

MACHINES = {Arch.X86_64: "x86_64", Arch.ARM64: "aarch64"}
FOLDERS = ("bin", "sbin", "lib", "lib64")


def self_unpacker(mkosi: Sequence[str], arch: Arch, log: Path | None = None) -> Callable[[Path, Path], None]:
    """What `unpack` wants as `run_self`: `mkosi` are the words that start mkosi, `arch` is the file's."""

    def run(file: Path, data_dir: Path) -> None:
        # The cache's file need not be executable, and nothing may happen to it.
        program = data_dir.with_name("program")
        shutil.copyfile(file, program)
        program.chmod(0o755)
        try:
            proc.run(command(mkosi, emulator(arch), program, data_dir), timeout=TIMEOUT, log=log)
        finally:
            program.unlink()

    return run


def command(mkosi: Sequence[str], emulated: Sequence[str], program: Path, data_dir: Path) -> list[str]:
    """The words that run `program --data-dir DATA_DIR check-config` in the sandbox."""
    links = [word for name in FOLDERS for word in ("--symlink", f"usr/{name}", f"/{name}")]
    shown = [word for path in emulated for word in ("--ro-bind", path, path)]
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return [
        *("unshare", *as_root, "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
        *sandbox(mkosi),
        *("--ro-bind", "/usr", "/usr", *links, *shown),
        *("--ro-bind", str(program), "/k3s", "--bind", str(data_dir), "/data"),
        *("--ro-bind", "/proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *("--setenv", "PATH", "/usr/bin:/usr/sbin", "--setenv", "HOME", "/tmp", "--chdir", "/"),
        "--",
        *("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
        *(*emulated, "/k3s", "--data-dir", "/data", "check-config"),
    ]


def sandbox(mkosi: Sequence[str]) -> list[str]:
    """The words that start mkosi's sandbox program, which lies beside mkosi."""
    packed = Path(mkosi[-1]).parent / "usr/lib/python3/dist-packages/mkosi/sandbox.py"
    return [mkosi[0], "-I", str(packed)] if packed.is_file() else ["mkosi-sandbox"]


def emulator(arch: Arch) -> list[str]:
    """qemu-user for another architecture than this machine's; nothing for its own."""
    if platform.machine() == MACHINES[arch]:
        return []
    name = f"qemu-{MACHINES[arch]}"
    for found in map(proc.which, (f"{name}-static", name)):
        if found is not None:
            return [str(found)]
    raise MissingToolError(
        f"the archive in k3s for {arch} cannot be cut out, and {name} to run it is not installed",
        hint="apt-get install qemu-user-static",
    )
