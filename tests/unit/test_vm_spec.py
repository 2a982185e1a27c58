"""QEMU's command line: one golden file for each kind of machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k3img.profile.model import Arch
from k3img.vm import raspi
from k3img.vm.raspi import PiBoot
from k3img.vm.spec import Accel, Bus, Disk, MachineSpec, Network, Nic, Sockets, argv, storage_argv

if TYPE_CHECKING:
    from collections.abc import Callable

SPEC = MachineSpec(
    name="x86",
    program=("/usr/bin/qemu-system-x86_64",),
    firmware_code=Path("/usr/share/OVMF/OVMF_CODE_4M.fd"),
    sockets=Sockets(folder=Path("/var/tmp/k3img-1")),
    disks=(Disk(path=Path("/var/tmp/k3img-1/disk.qcow2")),),
)


def as_text(words: tuple[str, ...]) -> str:
    """An option and its value a line."""
    return "\n".join(words).replace("\n", " ").replace(" -", "\n-") + "\n"


def value(words: tuple[str, ...], option: str) -> str:
    return words[words.index(option) + 1]


def test_standard_machine(golden: Callable[[str, str], None]) -> None:
    images = Disk(path=Path("/cache/images.tar"), format="raw", serial="k3imgtest", read_only=True)
    spec = replace(
        SPEC,
        disks=(*SPEC.disks, images),
        credentials={"k3img.seed": b"name: a\n", "a.b": b"\0\xff"},
        kernel_extra="console=ttyS0 systemd.show_status=yes",
    )
    golden("vm/standard.txt", as_text(argv(spec)))


@pytest.mark.parametrize("bus", Bus)
def test_bus(golden: Callable[[str, str], None], bus: Bus) -> None:
    words = argv(replace(SPEC, disks=(replace(SPEC.disks[0], bus=bus),)))
    golden(f"vm/bus-{bus}.txt", as_text(words))


@pytest.mark.parametrize("nic", Nic)
def test_nic(golden: Callable[[str, str], None], nic: Nic) -> None:
    words = argv(replace(SPEC, network=Network(nic=nic, internet=True)))
    golden(f"vm/nic-{nic}.txt", as_text(words))


def test_arm64(golden: Callable[[str, str], None]) -> None:
    spec = replace(SPEC, arch=Arch.ARM64, program=("/usr/bin/qemu-system-aarch64",))
    golden("vm/arm64.txt", as_text(argv(spec)))


def test_pi(golden: Callable[[str, str], None]) -> None:
    """No firmware, no SMBIOS, no PCI: QEMU's Raspberry Pi has none, and refuses what it has not."""
    spec = replace(
        SPEC,
        name="rpi4",
        arch=Arch.ARM64,
        program=("/usr/bin/qemu-system-aarch64",),
        memory=raspi.MEMORY,
        cpus=raspi.CPUS,
        credentials={"k3img.seed": b"name: a\n"},
        pi=PiBoot(u_boot=Path("/var/tmp/k3img-1/u-boot.bin"), device_tree=Path("/var/tmp/k3img-1/pi.dtb")),
    )
    golden("vm/pi.txt", as_text(argv(spec)))


def test_pi_has_a_card_that_qemu_takes() -> None:
    assert raspi.CARD.bit_count() == 1, "not a power of two"


def test_pi_device_tree_is_changed_in_place() -> None:
    commands = raspi.edits(("fdtput",), Path("/a/pi.dtb"))
    assert all(words[0] == "fdtput" and words.count("/a/pi.dtb") == 1 for words in commands)
    assert ("fdtput", "/a/pi.dtb", "/soc/mmc@7e300000", "broken-cd") in commands
    assert not any("{}" in word for words in commands for word in words)


def test_storage_only(golden: Callable[[str, str], None]) -> None:
    golden("vm/storage.txt", as_text(storage_argv(SPEC)))


def test_every_machine_starts_paused_and_silent() -> None:
    words = argv(SPEC)
    assert {"-S", "-nodefaults", "-no-user-config"} <= set(words)
    assert value(words, "-display") == "none"


def test_kvm_uses_the_host_processor() -> None:
    words = argv(replace(SPEC, accel=Accel.KVM))
    assert "accel=kvm" in value(words, "-machine")
    assert value(words, "-cpu") == "host"
    assert "-accel" not in words


def test_without_internet_nothing_leaves_the_host() -> None:
    assert "restrict=on,ipv6=off" in value(argv(SPEC), "-netdev")
    assert "restrict" not in value(argv(replace(SPEC, network=Network(internet=True))), "-netdev")


def test_no_network_at_all() -> None:
    assert "-netdev" not in argv(replace(SPEC, network=None))


def test_commas_are_doubled() -> None:
    folder = Path("/tmp/a,b")
    spec = replace(SPEC, sockets=Sockets(folder=folder), disks=(Disk(path=folder / "c,d.qcow2"),))
    text = as_text(argv(spec))
    assert "file.filename=/tmp/a,,b/c,,d.qcow2" in text
    assert "path=/tmp/a,,b/qmp," in text


def test_rtc_and_watchdog() -> None:
    words = argv(replace(SPEC, rtc="2020-01-01T00:00:00", watchdog=True))
    assert value(words, "-rtc") == "base=2020-01-01T00:00:00"
    assert value(words, "-action") == "watchdog=reset"
