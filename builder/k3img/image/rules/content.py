"""Rules about what /usr holds."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from k3img.image.rules.kernel import modules
from k3img.image.rules.model import lines, usr_rule
from k3img.image.rules.secrets import secrets
from k3img.image.uki import variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.erofs import Entry
    from k3img.image.opened import Opened

ELF_MACHINES = {62: "x86-64", 183: "arm64"}
"""e_machine of the ELF header, as `Arch` spells them."""

LEFT_OVER = """
lib/apt lib/dpkg share/doc share/man share/info share/locale lib/initramfs-tools share/dpkg bin/apt bin/dpkg
share/factory/etc/apt share/factory/etc/dpkg
""".split()


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


def machine_id(image: Opened) -> Iterator[str]:
    """No identity of a machine."""
    for path in ("share/factory/etc/machine-id", "lib/machine-id"):
        file = image.usr / path
        if file.is_file() and file.read_text(errors="replace").strip() not in ("", "uninitialized"):
            yield f"/usr/{path} has an id"


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
    known = variables("\n".join(lines(image.usr / "lib/os-release")))
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
