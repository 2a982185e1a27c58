"""Rules about the disk: partitions, FAT, UKI, verity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.errors import BuildError
from k3img.image import gpt, verity
from k3img.image.rules.model import disk_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened

SECTIONS = (".linux", ".initrd", ".cmdline", ".osrel", ".uname")

ESP, SEED = 512 << 20, 16 << 20
"""Bytes of these partitions, frozen for a device's life (layout 1)."""
BLOCK = 4096
"""Bytes of a block of erofs and of verity."""


def partitions(image: Opened) -> Iterator[str]:
    """ESP, seed, /usr and its hashes, in this order, and named after each other."""
    kinds = [part.kind for part in image.partitions]
    wanted = ["esp", "seed", f"usr-{image.arch}", f"usr-{image.arch}-verity"]
    if kinds != wanted:
        yield f"partitions are {', '.join(kinds)}; layout 1 has {', '.join(wanted)}"
        return
    _, seed, data, tree = image.partitions
    if seed.label != "K3IMG":
        yield f"partition 2 is called {seed.label!r}, not K3IMG"
    if tree.label != f"{data.label}_verity":
        yield f"the hash partition is called {tree.label!r}, its data {data.label!r}"
    for uki in image.ukis:
        release = "{IMAGE_ID}_{IMAGE_VERSION}".format_map(
            {"IMAGE_ID": "", "IMAGE_VERSION": "", **uki.os_release}
        )
        if release != data.label:
            yield f"{uki.name} is of {release}, the slot of {data.label}"


def sizes(image: Opened) -> Iterator[str]:
    """ESP and seed as large as on every device, a slot whose hashes have room however full it is."""
    for part in image.partitions:
        wanted = {"esp": ESP, "seed": SEED}.get(part.kind, part.size)
        if part.size != wanted:
            yield f"partition {part.number} ({part.kind}) has {part.size} bytes, not {wanted}"
    data, tree = gpt.usr(image.partitions)
    full = verity.Verity(
        algorithm="sha256", data_block=BLOCK, hash_block=BLOCK, blocks=data.size // BLOCK, salt=b""
    )
    most = verity.length(full)
    if tree.size < most:
        yield f"the hash partition has {tree.size} bytes; those of a full slot need {most}"


def sectors(image: Opened) -> Iterator[str]:
    """FATs in sectors of 512 bytes."""
    for name, size in image.sectors:
        if size != 512:
            yield f"the FAT of partition {name} has sectors of {size} bytes"


def one_uki(image: Opened) -> Iterator[str]:
    """A UKI with all its sections, for this machine."""
    if len(image.ukis) != 1:
        yield f"EFI/Linux has {len(image.ukis)} UKIs; a finished image has one"
    for uki in image.ukis:
        if uki.arch != image.arch:
            yield f"{uki.name} is for {uki.arch}, /usr for {image.arch}"
        if missing := [name for name in SECTIONS if not uki.sizes.get(name)]:
            yield f"{uki.name} lacks {', '.join(missing)}"


def boot_loader(image: Opened) -> Iterator[str]:
    """systemd-boot where firmware without variables looks for it."""
    name = {"x86-64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}[image.arch]
    if not (image.esp / "EFI/BOOT" / name).is_file():
        yield f"the ESP has no EFI/BOOT/{name}"


def usrhash(image: Opened) -> Iterator[str]:
    """The UKI names the hash of this /usr."""
    wanted = gpt.usrhash(image.partitions)
    for uki in image.ukis:
        if (found := uki.option("usrhash")) != wanted:
            yield f"{uki.name} has usrhash={found or '(none)'}, the partitions are of {wanted}"


def verified(image: Opened) -> Iterator[str]:
    """Every block of /usr has the hash that the partitions' names promise."""
    data, tree = gpt.usr(image.partitions)
    if image.raw is None:
        return
    try:
        with image.raw.open("rb") as file:
            about = verity.superblock(file, tree.start)
            if about.blocks * about.data_block > data.size:
                yield f"the hashes are of {about.blocks} blocks, more than the partition has"
                return
            found = verity.root_hash(file, data.start, about)
    except BuildError as error:
        yield error.brief
        return
    if found != gpt.usrhash(image.partitions):
        yield f"the root hash of /usr is {found}, not {gpt.usrhash(image.partitions)}"
    if image.unreadable:
        yield f"the contents of /usr cannot be read, and were not looked at: {image.unreadable}"


def restarts(image: Opened) -> Iterator[str]:
    """A rotten block restarts the machine."""
    for uki in image.ukis:
        if "restart-on-corruption" not in uki.option("systemd.verity_usr_options").split(","):
            yield f"{uki.name}: the command line has no systemd.verity_usr_options=restart-on-corruption"


def room(image: Opened) -> Iterator[str]:
    """Room for the next version in each slot."""
    data, _ = gpt.usr(image.partitions)
    if image.used > gpt.FULL * data.size:
        yield f"/usr fills {image.used / data.size:.0%} of its slot; {gpt.FULL:.0%} is the most"


def cgroups(image: Opened) -> Iterator[str]:
    """Nothing switches the memory cgroup off."""
    for uki in image.ukis:
        for word in uki.command_line:
            if word.startswith("cgroup_disable=") or word == "systemd.unified_cgroup_hierarchy=0":
                yield f"{uki.name}: the command line has {word}"
    for tree in sorted(image.esp.glob("*.dtb")):
        if b"cgroup_disable=memory" in tree.read_bytes():
            yield f"{tree.name} has cgroup_disable=memory in its bootargs"


RULES = (
    disk_rule(
        "partitions",
        partitions,
        "A device's layout never changes: another order or name, and no update fits.",
    ),
    disk_rule(
        "partition-sizes",
        sizes,
        "A slot that is made smaller later than the first image: the update that does not fit comes on site.",
    ),
    disk_rule(
        "fat-sectors",
        sectors,
        "A FAT with 4096-byte sectors on a 512-byte disk: the Pi and mtools cannot read it.",
    ),
    disk_rule("uki", one_uki, "An image whose kernel is of another architecture builds, and never boots."),
    disk_rule("boot-loader", boot_loader, "Firmware whose variables were lost looks for one name only."),
    disk_rule(
        "usrhash", usrhash, "A UKI of another build refuses this /usr, and the machine restarts for ever."
    ),
    disk_rule(
        "verity",
        verified,
        "A block that was damaged after the build restarts every machine it is written to.",
    ),
    disk_rule(
        "restart-on-corruption", restarts, "Without it a rotten block ends in a shell that nobody sits at."
    ),
    disk_rule("slot-room", room, "A slot that is full takes no update: the fleet stays on this version."),
    disk_rule(
        "memory-cgroup",
        cgroups,
        "k3s does not start without the memory cgroup; the Pi's own device trees disable it.",
    ),
)
