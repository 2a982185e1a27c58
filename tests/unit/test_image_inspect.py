"""Rules for finished images: a good image breaks none, and each thing that is wrong breaks its rule alone."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import random
import struct
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from k3img.cli import inspect as command
from k3img.errors import BuildError, UsageError
from k3img.image import gpt, inspect, opened, uki, verity
from k3img.image.gpt import Partition
from k3img.image.rules import RULES, boot, kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.image.opened import Opened

KERNEL = "6.12.0-arm64"
BLOCK = 4096
MODULES = sorted({*kernel.FOR_K3S, *kernel.FOR_GUESTS, *kernel.FOR_MACHINES, *kernel.FOR_PI})
RELEASE = 'IMAGE_ID="rpi4"\nIMAGE_VERSION="1"\nK3IMG_PROFILE="rpi4"\n'
BASE = f"lib/modules/{KERNEL}"
NEXT = {"IMAGE_ID": "rpi4", "IMAGE_VERSION": "2"}
DTB = "bcm2711-rpi-4-b.dtb"
LETTERS = "Zq7Rm2Xk9Vb4Nw8Lc5Tj3Hd6Fs1PgYaE"
PI_CONFIG = "arm_64bit=1\nkernel=u-boot.bin\nenable_uart=1\n"


PI4 = b"raspberrypi,4-model-b\0brcm,bcm2711\0"


def device_tree(content: bytes = PI4) -> bytes:
    return 0xD00DFEED.to_bytes(4, "big") + (8 + len(content)).to_bytes(4, "big") + content


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + b"code"


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def usr(tmp_path: Path) -> Path:
    """A small /usr for arm64 with which nothing is wrong."""
    folder = tmp_path / "usr"
    modules = f"lib/modules/{KERNEL}"
    names = [f"kernel/{name}.ko" for name in MODULES]
    write(
        folder,
        {
            "bin/sh": elf(183),
            "lib/k3s/bin/k3s": elf(183),
            "lib/systemd/system/k3s.service": "[Unit]\n",
            "lib/systemd/system/k3s-agent.service": "[Unit]\n",
            "lib/os-release": f'{RELEASE}K3IMG_RUNTIME="v1"\n',
            "share/factory/etc/shadow": "root:!*:20000::::::\ndaemon:*:20000::::::\n",
            "share/ca.pem": "-----BEGIN CERTIFICATE-----\nMIIB\n",
            f"{modules}/modules.dep": "".join(f"{name}:\n" for name in names),
            "lib/k3img/packages": "bash 5.2 arm64\nk3s 1 arm64\n",
            **{f"{modules}/{name}": b"module" for name in names},
        },
    )
    return folder


@pytest.fixture
def image(usr: Path, tmp_path: Path) -> Opened:
    """A whole image for a Raspberry Pi: its disk has a /usr of three blocks and their hashes."""
    data = b"".join(bytes([number]) * BLOCK for number in range(3))
    head = verity._SUPER.pack(b"verity\0\0", 1, 1, bytes(16), b"sha256", BLOCK, BLOCK, 3, 4, b"salt")
    raw = tmp_path / "rpi4_1.raw"
    raw.write_bytes(data + head.ljust(BLOCK, b"\0"))
    with raw.open("rb") as file:
        root = verity.root_hash(file, 0, verity.superblock(file, len(data)))
    rows = (
        ("esp", uuid.UUID(int=1), "esp", 0, boot.ESP),
        ("seed", uuid.UUID(int=2), "K3IMG", 0, boot.SEED),
        ("usr-arm64", uuid.UUID(root[:32]), "rpi4_1", 0, len(data)),
        ("usr-arm64-verity", uuid.UUID(root[32:]), "rpi4_1_verity", len(data), 2 * BLOCK),
    )
    parts = tuple(
        Partition(number=n, kind=kind, type=gpt.TYPES[kind], id=ident, label=label, start=start, size=size)
        for n, (kind, ident, label, start, size) in enumerate(rows, 1)
    )
    esp = tmp_path / "esp"
    write(
        esp,
        {
            "config.txt": PI_CONFIG,
            "EFI/BOOT/BOOTAA64.EFI": b"MZ",
            DTB: device_tree(),
            **dict.fromkeys(("start4.elf", "fixup4.dat", "u-boot.bin"), b"x"),
        },
    )
    one = uki.Uki(
        name="rpi4_1.efi",
        arch="arm64",
        command_line=(f"usrhash={root}", "rw", "systemd.verity_usr_options=restart-on-corruption"),
        os_release={"IMAGE_ID": "rpi4", "IMAGE_VERSION": "1"},
        kernel=KERNEL,
        sizes=dict.fromkeys((".linux", ".initrd", ".cmdline", ".osrel", ".uname"), 1),
    )
    return dataclasses.replace(
        opened.folder(usr, "arm64"),
        raw=raw,
        partitions=parts,
        esp=esp,
        ukis=(one,),
        used=1000,
        sectors=(("esp", 512), ("seed", 512)),
    )


def broken(image: Opened) -> dict[str, tuple[str, ...]]:
    return {result.rule.name: result.evidence for result in inspect.inspect(image) if not result.ok}


def test_nothing_is_wrong_with_a_good_image(image: Opened) -> None:
    assert broken(image) == {}


def test_nothing_is_wrong_with_a_good_usr(usr: Path) -> None:
    results = inspect.inspect(opened.folder(usr, "arm64"))
    assert all(result.ok for result in results)
    assert not any(result.rule.disk for result in results)


def change(file: str, data: str | bytes) -> Callable[[Path], None]:
    return lambda usr: write(usr, {file: data})


def remove(file: str) -> Callable[[Path], None]:
    return lambda usr: (usr / file).unlink()


def chmod(file: str, mode: int) -> Callable[[Path], None]:
    return lambda usr: (usr / file).chmod(mode)


def dependent(name: str) -> str:
    """modules.dep in which vxlan needs another module."""
    return "".join(f"kernel/{it}.ko:{f' {name}' if it == 'vxlan' else ''}\n" for it in MODULES)


def without(name: str) -> Callable[[Path], None]:
    """No such module, and depmod was told."""

    def wrong(usr: Path) -> None:
        (usr / BASE / f"kernel/{name}.ko").unlink()
        write(usr, {f"{BASE}/modules.dep": "".join(f"kernel/{it}.ko:\n" for it in MODULES if it != name)})

    return wrong


CONTENT: list[tuple[str, Callable[[Path], None], str]] = [
    ("elf-arch", change("bin/tool", elf(62)), "/usr/bin/tool is for x86-64"),
    ("elf-arch", change("lib/tool.so", elf(40)), "an unknown machine"),
    ("kernel-modules", remove(f"{BASE}/kernel/vxlan.ko"), "kernel/vxlan.ko, which is not there"),
    ("kernel-modules", change(f"{BASE}/kernel/new.ko", "x"), "does not know kernel/new.ko"),
    ("kernel-modules", change("lib/modules/6.1/modules.dep", ""), "has 2 kernels"),
    ("kernel-modules", change(f"{BASE}/modules.dep", dependent("kernel/udp.ko")), "vxlan.ko needs"),
    ("kernel-modules", without("vxlan"), "there is no module vxlan"),
    ("kernel-modules", without("igb"), "there is no module igb"),
    ("machine-id", change("share/factory/etc/machine-id", "0123456789abcdef\n"), "has an id"),
    ("secrets", change("lib/key.pem", f"-----BEGIN RSA PRIVATE KEY-----\n{'A' * 64}\n"), "a private key"),
    ("secrets", change("lib/key", f"-----BEGIN PRIVATE KEY-----\n{'A' * 64}\n"), "a private key"),
    ("secrets", change("lib/id", b"openssh-key-v1\0\0\0"), "an OpenSSH private key"),
    ("secrets", change("share/token", f"K10{'ab' * 32}::server:x\n"), "a k3s token"),
    ("secrets", change("share/kube", f"client-key-data: {'A' * 50}\n"), "a client key"),
    ("secrets", change("share/factory/etc/ssh/ssh_host_rsa_key", "x"), "is an ssh host key"),
    ("secrets", change("share/factory/etc/shadow", "root:$y$j9T$abc$def:1::::::\n"), "a password of root"),
    ("secrets", change("lib/app.conf", "db_password: 0123456789abcdef\n"), "the secret password"),
    ("secrets", change("lib/app.env", f"X={LETTERS}\n"), "a random word: Zq7Rm2Xk..."),
    ("secrets", change("lib/random-seed", random.Random(1).randbytes(512)), "random bytes"),
    ("packages", remove("lib/k3img/packages"), "names no package"),
    ("setuid", chmod("bin/sh", 0o4755), "/usr/bin/sh has mode -rwsr-xr-x"),
    ("setuid", chmod("bin/sh", 0o2755), "/usr/bin/sh has mode -rwxr-sr-x"),
    ("world-writable", chmod("bin/sh", 0o757), "/usr/bin/sh has mode -rwxr-xrwx"),
    ("leftovers", change("lib/apt/x", "x"), "/usr/lib/apt is left over"),
    ("os-release", change("lib/os-release", RELEASE), "K3IMG_RUNTIME"),
    ("runtime", remove("lib/systemd/system/k3s-agent.service"), "no /usr/lib/systemd/system/k3s-agent"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "wrong", "said"), CONTENT, ids=[f"{n}-{case[0]}" for n, case in enumerate(CONTENT)]
)
def test_what_is_wrong_in_usr_breaks_its_rule_alone(
    rule: str, wrong: Callable[[Path], None], said: str, usr: Path
) -> None:
    wrong(usr)
    found = broken(opened.folder(usr, "arm64"))
    assert list(found) == [rule]
    assert said in "\n".join(found[rule])


def test_public_keys_and_locked_accounts_are_no_secrets(usr: Path) -> None:
    write(
        usr,
        {
            "share/factory/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA",
            "bin/ssh": elf(183) + b" openssh-key-v1\0",
            "lib/doc": "-----BEGIN PRIVATE KEY-----\n...",
            "share/ca.crt": f"-----BEGIN CERTIFICATE-----\n{LETTERS}\n{LETTERS}\n-----END CERTIFICATE-----\n",
            "lib/alphabet": "ABCDEFGHIJKLMNOPQRSTUVWXYZ\n0123456789ABCDEFGHIJKLabcdefghijklmnop\n",
            "lib/example": "password: changemechangeme\n/sys/firmware/efi/Vars-4a67b082-0a4c-41cf-b6c7\n",
        },
    )
    assert broken(opened.folder(usr, "arm64")) == {}


def test_who_owns_it(image: Opened) -> None:
    first, *others = image.entries
    found = broken(dataclasses.replace(image, entries=(dataclasses.replace(first, uid=1000), *others)))
    assert found == {"owners": (f"/usr/{first.path} belongs to user 1000, group 0",)}


def with_uki(image: Opened, **changes: Any) -> Opened:
    return dataclasses.replace(image, ukis=(dataclasses.replace(image.ukis[0], **changes),))


def with_line(image: Opened, *words: str) -> Opened:
    return with_uki(image, command_line=(*image.ukis[0].command_line, *words))


def on_esp(image: Opened, name: str, data: str | bytes | None) -> Opened:
    if data is None:
        (image.esp / name).unlink()
    else:
        write(image.esp, {name: data})
    return image


def part(image: Opened, place: int, **changes: Any) -> Opened:
    parts = list(image.partitions)
    parts[place] = dataclasses.replace(parts[place], **changes)
    return dataclasses.replace(image, partitions=tuple(parts))


def row(name: str, version: str) -> dict[str, str]:
    return {"name": name, "version": version, "architecture": "arm64"}


BOTH = [row("bash", "5.2"), row("k3s", "1")]


def with_manifest(image: Opened, **changes: Any) -> Opened:
    """The manifest that a build leaves beside this image, but for some of it."""
    rows = [
        {"number": p.number, "kind": p.kind, "id": str(p.id), "label": p.label, "size": p.size}
        for p in image.partitions
    ]
    true = {
        "layout": 1,
        "arch": image.arch,
        "usrhash": gpt.usrhash(image.partitions),
        "partitions": rows,
        "packages": {"image": BOTH},
    }
    return dataclasses.replace(image, manifest=true | changes)


def test_nothing_is_wrong_beside_its_manifest(image: Opened) -> None:
    assert broken(with_manifest(image)) == {}


def test_a_usr_that_cannot_be_read_breaks_one_rule(image: Opened) -> None:
    """fsck.erofs ends at the first damaged block; of what was not looked at nothing is said."""
    damaged = dataclasses.replace(
        flipped(image, 5), unreadable="failed to decompress", usr=image.esp / "none"
    )
    found = broken(damaged)
    assert list(found) == ["verity"]
    assert "failed to decompress" in found["verity"][1]


def flipped(image: Opened, at: int) -> Opened:
    assert image.raw is not None
    data = bytearray(image.raw.read_bytes())
    data[at] ^= 1
    image.raw.write_bytes(data)
    return image


DISK: list[tuple[str, Callable[[Opened], Opened], str]] = [
    ("partitions", lambda i: part(i, 1, label="SEED"), "called 'SEED', not K3IMG"),
    ("partitions", lambda i: part(i, 3, label="rpi4_2_verity"), "'rpi4_2_verity', its data 'rpi4_1'"),
    ("partitions", lambda i: part(i, 0, kind="xbootldr"), "layout 1 has esp, seed"),
    ("partitions", lambda i: with_uki(i, os_release=NEXT), "is of rpi4_2"),
    ("partition-sizes", lambda i: part(i, 0, size=256 << 20), "partition 1 (esp) has 268435456 bytes"),
    ("partition-sizes", lambda i: part(i, 2, size=64 << 20), "those of a full slot need"),
    ("fat-sectors", lambda i: dataclasses.replace(i, sectors=(("esp", 4096),)), "sectors of 4096 bytes"),
    ("uki", lambda i: with_uki(i, arch="x86-64"), "is for x86-64, /usr for arm64"),
    ("uki", lambda i: with_uki(i, sizes={**i.ukis[0].sizes, ".initrd": 0}), "lacks .initrd"),
    ("uki", lambda i: dataclasses.replace(i, ukis=()), "has 0 UKIs"),
    ("boot-loader", lambda i: on_esp(i, "EFI/BOOT/BOOTAA64.EFI", None), "no EFI/BOOT/BOOTAA64.EFI"),
    ("usrhash", lambda i: with_line(i, f"usrhash={'0' * 64}"), "has usrhash=000"),
    ("verity", lambda i: flipped(i, 2 * BLOCK + 5), "the root hash of /usr is"),
    ("verity", lambda i: flipped(i, 3 * BLOCK), "no verity superblock"),
    ("restart-on-corruption", lambda i: with_line(i, "systemd.verity_usr_options="), "has no systemd"),
    ("slot-room", lambda i: dataclasses.replace(i, used=3 * BLOCK), "fills 100% of its slot"),
    ("memory-cgroup", lambda i: with_line(i, "cgroup_disable=memory"), "has cgroup_disable=memory"),
    ("memory-cgroup", lambda i: on_esp(i, DTB, device_tree(PI4 + b"cgroup_disable=memory")), "its bootargs"),
    ("pi-device-tree", lambda i: on_esp(i, DTB, device_tree()[:-1]), "is no device tree of its 42 bytes"),
    ("pi-device-tree", lambda i: on_esp(i, DTB, device_tree(b"raspberrypi,3")), "is not for a Rasp"),
    ("pi-files", lambda i: on_esp(i, "fixup4.dat", None), "the ESP has no fixup4.dat"),
    ("pi-config", lambda i: on_esp(i, "config.txt", PI_CONFIG.replace("\n", "\r\n")), "lines end in CRLF"),
    ("pi-config", lambda i: on_esp(i, "config.txt", "dtoverlay=disable-bt\n"), "'dtoverlay=disable-bt' is"),
    ("pi-config", lambda i: on_esp(i, "config.txt", "kernel=boot.bin\n"), "there is no boot.bin"),
    ("pi-config", lambda i: on_esp(i, "config.txt", "arm_64bit= 1\n"), "config.txt:1"),
    ("pi-config", lambda i: on_esp(i, "config.txt", "arm_64bit=1"), "the last line has no end"),
    ("pi-console", lambda i: with_line(i, "console=ttyAMA0"), "console=ttyAMA0"),
    ("manifest", lambda i: with_manifest(i, usrhash="0" * 64), "manifest.json has usrhash 000"),
    ("manifest", lambda i: with_manifest(i, layout=2), "manifest.json has layout 2, the image 1"),
    ("packages", lambda i: with_manifest(i, packages={"image": BOTH[:1]}), "not have k3s 1 arm64"),
    ("packages", lambda i: with_manifest(i, packages={"image": BOTH[1:]}), "does not have bash"),
    ("packages", lambda i: with_manifest(i, packages={"image": [*BOTH, row("x", "1")]}), "does not have x 1"),
    ("kernel-modules", lambda i: with_uki(i, kernel="6.1"), "/usr the modules of 6.12"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "wrong", "said"), DISK, ids=[f"{n}-{case[0]}" for n, case in enumerate(DISK)]
)
def test_what_is_wrong_on_the_disk_breaks_its_rule_alone(
    rule: str, wrong: Callable[[Opened], Opened], said: str, image: Opened
) -> None:
    found = broken(wrong(image))
    assert list(found) == [rule]
    assert said in "\n".join(found[rule])


def test_every_rule_was_seen_to_fire() -> None:
    assert {rule for rule, _, _ in (*CONTENT, *DISK)} | {"owners"} == {rule.name for rule in RULES}


@pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 300])
def test_the_hash_tree_of_many_blocks(count: int) -> None:
    """Against the definition, level by level, in the plainest words."""
    blocks = [struct.pack("<I", number % 7) * 1024 for number in range(count)]
    about = verity.Verity(algorithm="sha256", data_block=BLOCK, hash_block=BLOCK, blocks=count, salt=b"s")
    level = [hashlib.sha256(b"s" + block).digest() for block in blocks]
    while True:
        joined = b"".join(level)
        chunks = [joined[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(joined), BLOCK)]
        level = [hashlib.sha256(b"s" + chunk).digest() for chunk in chunks]
        if len(level) == 1:
            break
    assert verity.root_hash(io.BytesIO(b"..." + b"".join(blocks)), 3, about) == level[0].hex()


def test_what_is_no_uki(tmp_path: Path) -> None:
    (tmp_path / "x.efi").write_bytes(b"no PE file")
    with pytest.raises(BuildError, match=r"x\.efi is no UKI"):
        uki.read(tmp_path / "x.efi")


# --- the command


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.inspect, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result.stdout


def test_text_json_and_sarif_say_the_same(usr: Path) -> None:
    write(usr, {"bin/tool": elf(62)})
    status, text = run("--usr", str(usr), "--arch", "arm64")
    assert status == 5
    assert "✗ elf-arch\n    /usr/bin/tool is for x86-64\n    why: An x86-64 binary" in text
    status, text = run("--usr", str(usr), "--arch", "arm64", "--format", "json")
    assert status == 5
    assert [row["rule"] for row in json.loads(text)["rules"] if not row["ok"]] == ["elf-arch"]
    _, text = run("--usr", str(usr), "--arch", "arm64", "--format", "sarif")
    (one,) = json.loads(text)["runs"]
    assert [result["ruleId"] for result in one["results"]] == ["elf-arch"]
    assert "elf-arch" in {rule["id"] for rule in one["tool"]["driver"]["rules"]}


def test_a_good_one_is_0(usr: Path) -> None:
    status, text = run("--usr", str(usr), "--arch", "arm64")
    assert status == 0
    assert text.endswith("11 of 11 rules hold\n")


def test_files(usr: Path) -> None:
    _, text = run("--usr", str(usr), "--files")
    assert f"/usr/lib/modules/{KERNEL}/modules.dep" in text


def test_explain() -> None:
    status, text = run("--explain", "pi-config")
    assert status == 0
    assert "CRLF" in text
    with pytest.raises(UsageError, match="no rule nonsense"):
        run("--explain", "nonsense")


def test_one_thing_at_a_time(usr: Path) -> None:
    with pytest.raises(UsageError, match="one of them"):
        run()
    with pytest.raises(UsageError, match="one of them"):
        run("--usr", str(usr), str(usr / "bin/sh"))
