"""Rules about what /usr holds."""

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING

from k3img.image.rules.model import usr_rule
from k3img.image.uki import variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.image.erofs import Entry
    from k3img.image.opened import Opened

ELF_MACHINES = {62: "x86-64", 183: "arm64"}
"""e_machine of the ELF header, as `Arch` spells them."""

NEEDED_MODULES = "overlay br_netfilter vxlan nf_tables xt_comment xt_MASQUERADE ip_set veth bridge".split()
"""What k3s loads, unless the kernel has it built in (facts: k3s, section 5)."""

LEFT_OVER = """
lib/apt lib/dpkg share/doc share/man share/info share/locale lib/initramfs-tools share/dpkg bin/apt bin/dpkg
share/factory/etc/apt share/factory/etc/dpkg
""".split()

_SECRETS = (
    ("a private key", re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")),
    ("an OpenSSH private key", re.compile(rb"openssh-key-v1\0")),
    ("a k3s token", re.compile(rb"K10[0-9a-f]{64}::")),
    ("a client key of a kubeconfig", re.compile(rb"client-key-data: ?[A-Za-z0-9+/]{40}")),
)
_HASH = re.compile(r"^[^:]+:(\$[0-9a-z]+\$[^:]+|[A-Za-z0-9./]{13}):")
_SCAN = 1 << 20
"""Files larger than this are programs; keys and tokens are small."""


def elf(image: Opened) -> Iterator[str]:
    """Every program and library is of the image's architecture."""
    for entry in _files(image):
        with (image.usr / entry.path).open("rb") as file:
            head = file.read(20)
        if head[:4] != b"\x7fELF" or entry.path.startswith("lib/firmware/"):
            continue
        found = ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "an unknown machine")
        if found != image.arch:
            yield f"/usr/{entry.path} is for {found}"


def modules(image: Opened) -> Iterator[str]:
    """Kernel modules: one kernel, depmod's list of them is right, k3s' are there."""
    base = image.usr / "lib/modules"
    kernels = sorted(path for path in base.glob("*") if path.is_dir())
    if len(kernels) != 1:
        yield f"/usr/lib/modules has {len(kernels)} kernels; an image has one"
        return
    (kernel,) = kernels
    listed = {line.partition(":")[0] for line in _lines(kernel / "modules.dep")}
    there = {str(path.relative_to(kernel)) for path in kernel.rglob("*.ko*")}
    yield from (f"modules.dep names {name}, which is not there" for name in sorted(listed - there))
    yield from (f"modules.dep does not know {name}" for name in sorted(there - listed))
    builtin = {_module(line) for line in _lines(kernel / "modules.builtin")}
    have = {_module(name) for name in there} | builtin
    yield from (f"there is no module {name}" for name in NEEDED_MODULES if _module(name) not in have)
    for uki in image.ukis:
        if uki.kernel and uki.kernel != kernel.name:
            yield f"{uki.name} has kernel {uki.kernel}, /usr the modules of {kernel.name}"


def machine_id(image: Opened) -> Iterator[str]:
    """No identity of a machine."""
    for path in ("share/factory/etc/machine-id", "lib/machine-id"):
        file = image.usr / path
        if file.is_file() and file.read_text(errors="replace").strip() not in ("", "uninitialized"):
            yield f"/usr/{path} has an id"


def secrets(image: Opened) -> Iterator[str]:
    """No private key, token or password."""
    for entry in _files(image):
        name = entry.path.rpartition("/")[2]
        if name.startswith("ssh_host_") and not name.endswith(".pub"):
            yield f"/usr/{entry.path} is an ssh host key"
        if entry.size > _SCAN:
            continue
        data = (image.usr / entry.path).read_bytes()
        yield from (f"/usr/{entry.path} has {what}" for what, pattern in _SECRETS if pattern.search(data))
        if name in ("shadow", "gshadow"):
            lines = data.decode(errors="replace").splitlines()
            yield from (
                f"/usr/{entry.path}: {line.split(':')[0]} has a password"
                for line in lines
                if _HASH.match(line)
            )


def setuid(image: Opened) -> Iterator[str]:
    """No program that gives its caller other rights."""
    for entry in image.entries:
        if entry.is_file and entry.mode & (stat.S_ISUID | stat.S_ISGID):
            yield f"/usr/{entry.path} has mode {stat.filemode(entry.mode)}"


def writable(image: Opened) -> Iterator[str]:
    """Nothing that anybody may write to."""
    for entry in image.entries:
        if not entry.is_link and entry.mode & stat.S_IWOTH:
            yield f"/usr/{entry.path} has mode {stat.filemode(entry.mode)}"


def owners(image: Opened) -> Iterator[str]:
    """All belongs to root."""
    for entry in image.entries:
        if entry.uid or entry.gid:
            yield f"/usr/{entry.path} belongs to user {entry.uid}, group {entry.gid}"


def leftovers(image: Opened) -> Iterator[str]:
    """Nothing of the build."""
    there = {entry.path for entry in image.entries}
    yield from (f"/usr/{name} is left over" for name in LEFT_OVER if name in there)


def release(image: Opened) -> Iterator[str]:
    """os-release says which image, version and runtime this is."""
    known = variables("\n".join(_lines(image.usr / "lib/os-release")))
    for name in ("IMAGE_ID", "IMAGE_VERSION", "K3IMG_PROFILE", "K3IMG_RUNTIME"):
        if not known.get(name):
            yield f"/usr/lib/os-release has no {name}"


def runtime(image: Opened) -> Iterator[str]:
    """k3s lies unpacked in /usr, started by a unit."""
    there = {entry.path for entry in image.entries}
    for name in ("lib/k3s/bin/k3s", "lib/systemd/system/k3s.service", "lib/systemd/system/k3s-agent.service"):
        if name not in there:
            yield f"there is no /usr/{name}"


def _files(image: Opened) -> Iterator[Entry]:
    return (entry for entry in image.entries if entry.is_file and entry.size)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def _module(path: str) -> str:
    return path.rpartition("/")[2].split(".ko")[0].replace("-", "_").lower()


RULES = (
    usr_rule("elf-arch", elf, "An x86-64 binary in a Pi image: all builds, nothing starts (kairos#2698)."),
    usr_rule(
        "kernel-modules", modules, "A module that is not there is noticed when a pod wants it, on site."
    ),
    usr_rule(
        "machine-id",
        machine_id,
        "Nodes of one image with one machine-id take each other's DHCP lease (harvester#6911).",
    ),
    usr_rule("secrets", secrets, "Whoever has the image has what is in it."),
    usr_rule("setuid", setuid, "A program that gives rights away is a way in that nobody looks after."),
    usr_rule("world-writable", writable, "What anybody may write becomes what root runs."),
    usr_rule("owners", owners, "A file of an unknown user is writable for whoever gets that id on the node."),
    usr_rule(
        "leftovers",
        leftovers,
        "Package managers, logs and caches of the build: size, and updates that cannot work.",
    ),
    usr_rule("os-release", release, "kubectl, the boot menu and support ask os-release which image this is."),
    usr_rule("runtime", runtime, "An image without k3s boots well and does nothing."),
)
