"""What the host itself must give: apt, name spaces, room, a mirror. Only `install` changes anything."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import K3imgError
from k3img.log import step
from k3img.tools.apt import sources
from k3img.tools.finding import Finding, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k3img.tree import Tree

SUBIDS = 65536
"""Subordinate ids that mkosi wants for an ordinary user."""

ROOM = 8
"""GB that a cold build with its caches and one profile's images takes."""

MEMORY = 4
"""GB: a virtual machine of 2, and mkfs.erofs beside it."""

MEMINFO = Path("/proc/meminfo")

LAB = (("socat", "socat"), ("dnsmasq", "dnsmasq-base"), ("ip", "iproute2"))
"""Programs that only a network of several machines needs, and their packages."""

_ESSENTIAL = (("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("tar", "tar"), ("unshare", "util-linux"))


def programs() -> tuple[Finding, ...]:
    """The few programs that must be the host's own."""
    rows = [_program(name, package, "fetching and unpacking packages") for name, package in _ESSENTIAL]
    if os.geteuid() != 0:
        rows.append(_program("newuidmap", "uidmap", "building without root"))
    rows += [_program(name, package, "labs", otherwise=State.NOTE) for name, package in LAB]
    return tuple(rows)


def install(packages: Iterable[str]) -> None:
    """Install packages of the host; only root can. Raises `ProgramError`."""
    if names := sorted(set(packages)):
        with step(f"Installing {', '.join(names)}"):
            proc.run(
                ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *names],
                env={"DEBIAN_FRONTEND": "noninteractive"},
                hint="Try `apt-get update` first, then this command by hand.",
            )


def properties(tree: Tree) -> tuple[Finding, ...]:
    """What is not a program. The mirror is asked for one small file."""
    rows = [namespaces()]
    if os.geteuid() != 0:
        rows += [subordinate_ids(Path("/etc/subuid")), subordinate_ids(Path("/etc/subgid"))]
    rows += [room("disk for the cache", tree.cache), room("disk for images", tree.out)]
    return (*rows, memory(), mirror())


def _program(name: str, package: str, needed_for: str, *, otherwise: State = State.MISSING) -> Finding:
    path = proc.which(name)
    return Finding(
        name=name,
        state=State.OK if path else otherwise,
        found=f"{path} (host)" if path else "none",
        needed_for=needed_for,
        how=f"apt-get install {package}",
        package=package,
    )


def namespaces() -> Finding:
    """Whether mkosi's sandbox can be made: tried, because half a dozen settings can forbid it."""
    root = os.geteuid() == 0
    how = (
        "in a container: start it with --privileged"
        if root
        else "as root: sysctl -w user.max_user_namespaces=60000 "
        "kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 (those that exist)"
    )
    argv = (
        ["unshare", "--mount", "true"]
        if root
        else ["unshare", "--user", "--map-root-user", "--mount", "true"]
    )
    name, needed_for = ("mount" if root else "user") + " name spaces", "mkosi's sandbox"
    try:
        proc.run(argv)
    except K3imgError as error:
        found = error.details.splitlines()[-1] if error.details else error.brief
        return Finding(name=name, state=State.MISSING, found=found, needed_for=needed_for, how=how)
    return Finding(name=name, state=State.OK, found="work", needed_for=needed_for)


def subordinate_ids(file: Path, uid: int | None = None) -> Finding:
    """Whether /etc/subuid (or subgid) gives the user enough ids; the first line that fits counts."""
    uid = os.geteuid() if uid is None else uid
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    count = 0
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        fields = line.split(":")
        if len(fields) == 3 and fields[0] in (user, str(uid)) and fields[2].isdigit():
            count = int(fields[2])
            break
    kind = "gids" if file.name == "subgid" else "uids"
    return Finding(
        name=str(file),
        state=State.OK if count >= SUBIDS else State.MISSING,
        found=f"{count} ids for {user}",
        needed_for="building without root",
        how=f"as root: usermod --add-sub{kind} 100000-{100000 + SUBIDS - 1} {user}",
    )


def room(name: str, path: Path) -> Finding:
    """Free disk where `path` is or will be."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 1e9
    return Finding(
        name=name,
        state=State.OK if free >= ROOM else State.NOTE,
        found=f"{free:.0f} GB free ({path})",
        needed_for=f"a cold build takes about {ROOM} GB",
        how=f"make room on {there}, or set K3IMG_CACHE to a larger disk",
    )


def available_memory() -> int:
    """Bytes of memory that are to be had (proc_meminfo(5)); 0 when nobody says."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(match[1]) << 10 if match else 0


def memory() -> Finding:
    """Whether there is memory for a machine."""
    free = available_memory() / 1e9
    return Finding(
        name="memory",
        state=State.OK if free >= MEMORY else State.NOTE,
        found=f"{free:.1f} GB available",
        needed_for=f"about {MEMORY} GB while a machine is verified",
        how="close something, or take a larger machine",
    )


def mirror() -> Finding:
    """Whether the host's own Debian mirror answers for the suite that images are made of."""
    name, needed_for = "Debian mirror", "packages of images and tools"
    try:
        text = sources("trixie")
    except K3imgError as error:
        found = error.brief
        return Finding(name=name, state=State.MISSING, found=found, needed_for=needed_for, how=error.hint)
    match = re.search(r"^URIs: (\S+)", text, re.MULTILINE)
    uri = match[1].rstrip("/") if match else ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            # apt's own downloader, because it knows the host's proxies and certificates.
            proc.run(
                [
                    "/usr/lib/apt/apt-helper",
                    "-o", "Acquire::Retries=0",
                    "-o", "Acquire::http::Timeout=15",
                    "-o", "Acquire::https::Timeout=15",
                    "download-file", f"{uri}/dists/trixie/InRelease", f"{folder}/InRelease",
                ]
            )  # fmt: skip
        except K3imgError:
            how = "look at /etc/apt/sources.list.d and the network; a finished cache works without"
            found = f"{uri} does not answer"
            return Finding(name=name, state=State.NOTE, found=found, needed_for=needed_for, how=how)
    return Finding(name=name, state=State.OK, found=f"{uri} (the host's)", needed_for=needed_for)
