#!/usr/bin/env python3
"""Turns the finished tree into a /usr-only image: factory /etc, units enabled in /usr, masks, seed FAT.

Runs at every build, right before the disk is made. What it does and why: docs/decisions, device layout.
"""

from __future__ import annotations

import compileall
import importlib.util
import json
import marshal
import os
import py_compile
import shutil
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(os.environ.get("BUILDROOT", "/buildroot"))
ETC, USR = ROOT / "etc", ROOT / "usr"
UNITS = USR / "lib/systemd/system"

# What must not be in a node's /etc: names and keys of one machine, configuration of absent tools.
DROP = set(
    """
    alternatives apt dpkg cron.daily cron.d init.d initramfs initramfs-tools logrotate.d machine-id mtab
    os-release resolv.conf kernel passwd- group- shadow- gshadow- subuid- subgid- rc0.d rc1.d rc2.d rc3.d
    rc4.d rc5.d rc6.d rcS.d update-motd.d debconf.conf adduser.conf deluser.conf hostname fstab crypttab
    localtime
    timezone vconsole.conf credstore credstore.encrypted binfmt.d depmod.d opt skel ca-certificates
    ca-certificates.conf python3 python3.13 ld.so.conf.d ld.so.conf network selinux xdg terminfo .pwd.lock
    .updated motd issue issue.net
    """.split()
)
# Frozen copies that the node owns; everything else in /etc is a link that follows the image.
COPY = {"passwd", "group", "shadow", "gshadow", "subuid", "subgid", "hosts"}
# Stay writable and empty: the vendor's files of these lie in /usr.
EMPTY = {"systemd", "modprobe.d", "modules-load.d", "sysctl.d", "tmpfiles.d", "udev", "rancher"}


def main() -> int:
    """Do all of it to $BUILDROOT."""
    spec = json.loads((Path(os.environ["SRCDIR"]) / "finalize.json").read_text())
    resolve_alternatives()
    move_enablement()
    mask(spec["mask"])
    make_factory_etc()
    name_release(spec["os-release"])
    compile_code()
    make_seed(spec["seed"])
    hide_kernel()
    report()
    shutil.rmtree(ROOT / "var/lib/dpkg", ignore_errors=True)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    date_accounts(epoch)
    make_alike(epoch)
    return 0


def resolve_alternatives() -> None:
    """/usr/bin/x -> /etc/alternatives/x -> /usr/bin/y becomes one relative link: /etc will not have them."""
    for path in USR.rglob("*"):
        if not path.is_symlink() or not (target := str(path.readlink())).startswith("/etc/alternatives/"):
            continue
        link = ROOT / target.lstrip("/")
        path.unlink()
        if link.is_symlink() and (ROOT / (real := str(link.readlink())).lstrip("/")).exists():
            path.symlink_to(os.path.relpath(ROOT / real.lstrip("/"), path.parent))


def move_enablement() -> None:
    """Which units run is the image's business, not the node's: the links go from /etc to /usr."""
    source = ETC / "systemd/system"
    for path in sorted(source.rglob("*")):
        if not path.is_symlink():
            continue
        moved = UNITS / path.relative_to(source)
        moved.parent.mkdir(exist_ok=True)
        target = str(path.readlink())
        if target.startswith("/usr/lib/systemd/system/"):
            target = os.path.relpath(ROOT / target.lstrip("/"), moved.parent)
        if not (moved.is_symlink() or moved.exists()):
            moved.symlink_to(target)
    shutil.rmtree(source, ignore_errors=True)


def mask(units: list[str]) -> None:
    """Link units to /dev/null in /usr."""
    for name in units:
        path = UNITS / name
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")


def make_factory_etc() -> None:
    """Move /etc to /usr/share/factory and write the tmpfiles rules that put it in place on a new root."""
    factory = USR / "share/factory/etc"
    shutil.rmtree(USR / "share/factory", ignore_errors=True)
    factory.mkdir(parents=True)
    rules = ["# Written by k3img: L follows the image, C is a copy that the node owns."]
    for key in ETC.glob("ssh/ssh_host_*"):
        key.unlink()  # one machine's identity; each node makes its own
    for path in sorted(ETC.iterdir()):
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if path.name in DROP or path.name in EMPTY or empty:
            continue
        subprocess.run(["cp", "-a", path, factory / path.name], check=True)
        rules.append(f"{'C' if path.name in COPY else 'L'} /etc/{path.name} - - - -")
    rules += [
        "L /etc/os-release - - - - ../usr/lib/os-release",
        "L /etc/mtab - - - - ../proc/self/mounts",
        *(f"d /etc/{name} 0755 - - -" for name in sorted(EMPTY)),
    ]
    (USR / "lib/tmpfiles.d/00-k3img-etc.conf").write_text("\n".join(rules) + "\n")
    # Debian's own rules link to files that are not in this image.
    (USR / "lib/tmpfiles.d/debian.conf").unlink(missing_ok=True)
    for path in USR.glob("lib/python3*/sitecustomize.py"):
        path.unlink()


def name_release(fields: dict[str, str]) -> None:
    """Say in os-release, which the boot menu and Kubernetes show, what this image is and what it runs."""
    path = USR / "lib/os-release"
    kept = [line for line in path.read_text().splitlines() if line.split("=", 1)[0] not in fields]
    path.write_text("\n".join([*kept, *(f'{key}="{value}"' for key, value in fields.items())]) + "\n")


def compile_code() -> None:
    """Byte-compile what runs on the node: /usr is read-only, and compiling at each boot is slow.

    Checked by nobody at run time: /usr cannot change under it.
    """
    compileall.compile_dir(
        USR / "lib/k3img",
        quiet=1,
        stripdir=str(ROOT),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def make_seed(spec: dict[str, object]) -> None:
    """The empty seed partition, FAT16 for any laptop; repart's own vfat would be FAT32."""
    path = ROOT / ".k3img/seed.fat"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(int(str(spec["size"])))
    subprocess.run(
        ["mkfs.vfat", "-F", "16", "-S", "512", "-n", "K3IMG", "--invariant", path],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    readme = path.with_name("README.txt")
    readme.write_text(str(spec["readme"]).replace("\n", "\r\n"))
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    os.utime(readme, (epoch, epoch))
    subprocess.run(["mcopy", "-m", "-i", path, readme, "::README.txt"], check=True)


def date_accounts(epoch: int) -> None:
    """Let passwords have changed on the image's day: in a tree from the cache it is an earlier image's.

    systemd-sysusers takes SOURCE_DATE_EPOCH, which was another one when the packages were installed.
    """
    path = USR / "share/factory/etc/shadow"
    rows = [line.split(":") for line in path.read_text().splitlines()]
    dated = [[*row[:2], str(epoch // 86400), *row[3:]] if row[2:3] > [""] else row for row in rows]
    path.write_text("".join(":".join(row) + "\n" for row in dated))


def make_alike(epoch: int) -> None:
    """Owners, rights and times that do not tell who built the image, and when its packages were installed.

    All of /usr is root's, also when root built it. Nobody logs in who could use a setuid program. Times are
    all the image's own: mkosi leaves those alone that are older, of a tree that it took from its cache.
    """
    for path in (ROOT, *ROOT.rglob("*")):
        about = path.lstat()
        if path.is_relative_to(USR):
            # Without root all is the builder's own, whom mkosi makes root in the image.
            if os.geteuid() == 0:
                os.lchown(path, 0, 0)
            if not stat.S_ISLNK(about.st_mode):
                path.chmod(stat.S_IMODE(about.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
        if path.suffix == ".pyc":
            path.write_bytes(same_bytecode(path.read_bytes()))
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def same_bytecode(data: bytes) -> bytes:
    """A .pyc file of this Python without references between its parts (marshal's format 2).

    Which parts are references depends on what else refers to them while it is compiled, and differs from
    run to run (cpython#78274). The file is a quarter larger, packed 2 %.
    """
    if data[:4] != importlib.util.MAGIC_NUMBER:
        return data
    return data[:16] + marshal.dumps(marshal.loads(data[16:]), 2)


def report() -> None:
    """Leave what the manifest needs beside the image: the kernel's modules, and bytes per part of /usr."""
    sizes: dict[str, int] = {}
    for path in USR.rglob("*"):
        if path.is_file() and not path.is_symlink():
            part = part_of(path.relative_to(USR).parts)
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    kernel = json.loads((USR / "lib/k3img/kernel.json").read_text())
    content = {"kernel": kernel, "sizes": dict(sorted(sizes.items()))}
    (Path(os.environ["OUTPUTDIR"]) / "k3img-content.json").write_text(json.dumps(content))


def part_of(parts: tuple[str, ...]) -> str:
    """The branch of the size tree that a file of /usr belongs to: two levels deep, four below lib/k3s."""
    depth = 4 if parts[:2] == ("lib", "k3s") else 2 if parts[0] in ("lib", "share") else 1
    return "/".join(parts[: min(depth, max(len(parts) - 1, 1))]) if depth < 4 else "/".join(parts[:depth])


def hide_kernel() -> None:
    """The kernel is in the UKI alone: neither /usr nor the ESP carries it a second time."""
    for path in (ROOT / "boot").iterdir():
        if path.is_file() or path.is_symlink():
            path.unlink()
    for folder in (USR / "lib/modules").iterdir():
        kernel = folder / "vmlinuz"
        if kernel.is_file() and not kernel.is_symlink():
            hidden = ROOT / ".k3img" / f"vmlinuz-{folder.name}"
            shutil.move(kernel, hidden)
            # mkosi looks for it where it was; erofs gets a dangling link.
            kernel.symlink_to(os.path.relpath(hidden, folder))


if __name__ == "__main__":
    sys.exit(main())
