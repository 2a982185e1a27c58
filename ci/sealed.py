"""Parts of ci/full: finished images break no rule of `k3img inspect`, and what is made wrong in a copy breaks
its rule alone. Nothing of it boots.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pefile
from ci import raw_image
from ci.steps import Context, do, empty, ends, expect, need, say

from k3img.image import gpt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.tools.toolbox import Toolbox

MARK = "restart-on-corruption"
"""A word of every image's command line, for another in its place."""


@dataclass
class Copy:
    """A sparse copy of an image, to be made wrong; `work` is for files on the way."""

    raw: Path
    work: Path
    box: Toolbox
    parts: tuple[gpt.Partition, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = gpt.read(self.raw)

    def program(self, name: str, *argv: str | Path) -> str:
        """Run a program of the tools."""
        return do(*self.box.argv(name), *argv)

    def on_esp(self, name: str, *argv: str | Path) -> None:
        """Run a program of mtools on the ESP."""
        self.program(name, "-i", f"{self.raw}@@{self.parts[0].start}", *argv)

    def put(self, name: str, data: bytes) -> None:
        """Write a file of the ESP."""
        (self.work / "file").write_bytes(data)
        self.on_esp("mcopy", "-o", self.work / "file", f"::{name}")

    def get(self, name: str) -> bytes:
        """Read a file of the ESP."""
        (self.work / "file").unlink(missing_ok=True)
        self.on_esp("mcopy", f"::{name}", self.work / "file")
        return (self.work / "file").read_bytes()

    def write(self, at: int, data: bytes) -> None:
        """Write bytes of the image."""
        with self.raw.open("r+b") as file:
            file.seek(at)
            file.write(data)

    @property
    def uki(self) -> str:
        """Where the UKI lies: it is named after the image."""
        return f"EFI/Linux/{self.parts[2].label}.efi"

    def command_line(self, change: Callable[[bytes], bytes]) -> None:
        """Change the UKI's command line."""
        with pefile.PE(data=self.get(self.uki), fast_load=True) as file:
            section = next(it for it in file.sections if it.Name.startswith(b".cmdline"))
            text = change(section.get_data()[: section.Misc_VirtualSize].rstrip(b"\0"))
            expect(len(text) <= section.SizeOfRawData, "no room for that command line")
            file.set_bytes_at_offset(section.PointerToRawData, text.ljust(section.SizeOfRawData, b"\0"))
            section.Misc_VirtualSize = len(text)
            self.put(self.uki, bytes(file.write()))


def table(copy: Copy, script: str, number: int) -> None:
    """Change an entry of the partition table, as sfdisk's script says."""
    do("bash", "-c", f"echo '{script}' | sfdisk --quiet --no-reread -N {number} '{copy.raw}'")


def relabel(label: str, copy: Copy) -> None:
    """Another name of the seed partition."""
    do("sfdisk", "--quiet", "--no-reread", "--part-label", copy.raw, "2", label)


def second_uki(copy: Copy) -> None:
    """A UKI too many."""
    copy.put("EFI/Linux/second.efi", copy.get(copy.uki))


def fill_slot(copy: Copy) -> None:
    """A slot in which there is no room: the partition ends behind what is used."""
    used = int(json.loads((copy.work / "manifest.json").read_text())["slot"]["used"])
    table(copy, f"size={(used // 2**20 + 8) * 2048}", 3)


def without(name: str, copy: Copy) -> None:
    """A file of the ESP that is not there."""
    copy.on_esp("mdel", f"::{name}")


def words(more: bytes, copy: Copy) -> None:
    """More on the command line."""
    copy.command_line(lambda text: text + b" " + more)


def instead(old: bytes, new: bytes, copy: Copy) -> None:
    """Other words on the command line."""
    copy.command_line(lambda text: text.replace(old, new))


def config(old: bytes, new: bytes, copy: Copy) -> None:
    """Another config.txt."""
    copy.put("config.txt", copy.get("config.txt").replace(old, new))


def half_a_tree(copy: Copy) -> None:
    """A device tree that was cut."""
    data = copy.get("bcm2711-rpi-4-b.dtb")
    copy.put("bcm2711-rpi-4-b.dtb", data[: len(data) // 2])


def manifest(name: str, value: Any, copy: Copy) -> None:
    """A manifest beside the copy that says something else of it."""
    told = json.loads((copy.work / "manifest.json").read_text())
    told["image"]["raw"] = copy.raw.name
    (copy.work / "manifest.json").write_text(json.dumps(told | {name: value}))


def reseal(change: Callable[[Path], object], copy: Copy) -> None:
    """Take /usr apart, change it, and seal it again: erofs, hashes, partitions' ids, the UKI's usrhash."""
    _, _, data, tree = copy.parts
    usr, erofs, hashes = (copy.work / name for name in ("usr", "usr.erofs", "usr.hashes"))
    copy.program("fsck.erofs", f"--offset={data.start}", f"--extract={usr}", "--preserve", copy.raw)
    change(usr)
    copy.program("mkfs.erofs", "--quiet", "-zlz4", erofs, usr)
    said = copy.program("veritysetup", "format", "--data-block-size=4096", erofs, hashes)
    root = next(line.split()[-1] for line in said.splitlines() if line.startswith("Root hash"))
    for file, part in ((erofs, data), (hashes, tree)):
        expect(file.stat().st_size <= part.size, f"{file.name} does not fit its slot")
        do(
            "dd",
            f"if={file}",
            f"of={copy.raw}",
            f"seek={part.start // 4096}",
            "bs=4096",
            "conv=notrunc",
            "status=none",
        )
    for number, half in ((data.number, root[:32]), (tree.number, root[32:])):
        do("sfdisk", "--quiet", "--no-reread", "--part-uuid", copy.raw, str(number), str(uuid.UUID(half)))
    instead(gpt.usrhash(copy.parts).encode(), root.encode(), copy)


def setuid(usr: Path) -> None:
    """Rights for everybody."""
    (usr / "bin/bash").chmod(0o4755)


def token(usr: Path) -> None:
    """A secret for everybody."""
    (usr / "share/k3img/token").write_text(f"K10{'0f' * 32}::server:{'1' * 32}\n")


def no_module(usr: Path) -> None:
    """A module that depmod still names."""
    next((usr / "lib/modules").glob("*/kernel/**/vxlan.ko*")).unlink()


ANY: tuple[tuple[str, Callable[[Copy], object]], ...] = (
    ("partitions", partial(relabel, "SEED")),
    ("partition-sizes", lambda copy: table(copy, "size=524288", 1)),
    ("fat-sectors", lambda copy: copy.write(copy.parts[1].start + 11, (4096).to_bytes(2, "little"))),
    ("uki", second_uki),
    ("usrhash", lambda copy: instead(gpt.usrhash(copy.parts).encode(), b"0" * 64, copy)),
    ("verity", lambda copy: copy.write(copy.parts[2].start + (40 << 20), b"damaged")),
    ("restart-on-corruption", partial(instead, MARK.encode(), b"ignore-corruption")),
    ("slot-room", fill_slot),
    ("memory-cgroup", partial(words, b"cgroup_disable=memory")),
    ("manifest", partial(manifest, "usrhash", "0" * 64)),
    ("packages", partial(manifest, "packages", {})),
    ("setuid", partial(reseal, setuid)),
    ("secrets", partial(reseal, token)),
    ("kernel-modules", partial(reseal, no_module)),
)  # fmt: skip
LOADER = {"x86-64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI"}
PI: tuple[tuple[str, Callable[[Copy], object]], ...] = (
    ("pi-files", partial(without, "fixup4.dat")),
    ("pi-config", partial(config, b"\n", b"\r\n")),
    ("pi-config", partial(config, b"u-boot.bin", b"uboot.bin")),
    ("pi-console", partial(words, b"console=ttyAMA0")),
    ("pi-device-tree", half_a_tree),
)


def run(ctx: Context) -> None:
    """The x86 image."""
    inspect(ctx, ctx.image)


def inspect(ctx: Context, folder: Path) -> None:
    """An image, compressed and raw, then its copies."""
    need("sfdisk", "fdisk")
    about = json.loads((folder / "manifest.json").read_text())
    raw = folder / about["image"]["raw"]
    for file in (raw, raw.with_name(f"{raw.name}.zst")):
        do("k3img", "inspect", file)
    cases: list[tuple[str, Callable[[Copy], object]]] = [
        *ANY,
        ("boot-loader", partial(without, f"EFI/BOOT/{LOADER[about['arch']]}")),
    ]
    if about["board"] == "rpi4":
        cases += PI
    box = raw_image.tools(ctx)
    for rule, wrong in cases:
        work = ctx.work / "copy"
        empty(work)
        do("cp", "--sparse=always", "--reflink=auto", raw, work / "copy.raw")
        shutil.copy(folder / "manifest.json", work)
        wrong(Copy(raw=work / "copy.raw", work=work, box=box))
        found = broken(work / "copy.raw")
        expect(found == [rule], f"{rule} was broken, and {found or 'nothing'} was found")
        say(f"{rule} alone is found")


def broken(raw: Path) -> list[str]:
    """The rules that an image breaks."""
    said = ends(5, "k3img", "inspect", "--format", "json", raw)
    rows = json.loads(said[said.index("{") :])["rules"]
    return [row["rule"] for row in rows if not row["ok"]]
