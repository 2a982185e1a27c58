"""A machine as data, and the QEMU command line made from it: a pure function, compared by tests.

The guest sees a release image that nobody changed: whatever a test adds comes from outside, as SMBIOS
strings (systemd credentials, an addition to the kernel command line), sockets and further disks.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from k3img.profile.model import Arch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.vm.raspi import PiBoot

API_PORT = 6443
"""Where k3s serves Kubernetes' API in the guest."""

DISK_NODE = "disk0"
"""QEMU's name for the medium of the first disk."""

GIB = 1 << 30

CHANNEL_PORT = "k3img.test"
"""The virtio-serial port of the test channel (`k3img.vm.channel`)."""


class Accel(StrEnum):
    """Who runs the guest's instructions: the processor, or QEMU's translator (five times slower and more)."""

    KVM = "kvm"
    TCG = "tcg"


class Bus(StrEnum):
    """What a disk is attached to. OVMF boots all but `sdhci` and `pvscsi`."""

    VIRTIO_BLK = "virtio-blk"
    NVME = "nvme"
    AHCI = "ahci"
    USB = "usb-storage"
    VIRTIO_SCSI = "virtio-scsi"
    SDHCI = "sdhci"
    PVSCSI = "pvscsi"


class Nic(StrEnum):
    """QEMU's name of a network card."""

    VIRTIO = "virtio-net-pci"
    E1000 = "e1000"
    E1000E = "e1000e"
    IGB = "igb"
    VMXNET3 = "vmxnet3"
    USB = "usb-net"


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One disk. `format` is QEMU's (`raw`, `qcow2`); the guest finds it by `serial` in /dev/disk/by-id.

    What the guest flushes reaches the host's kernel in any case, so it outlives QEMU; `durable` disks also
    wait for the host's own disk, as it would have to be if the host itself lost power.
    """

    path: Path
    bus: Bus = Bus.VIRTIO_BLK
    format: str = "qcow2"
    serial: str = "k3img"
    read_only: bool = False
    durable: bool = False


@dataclass(frozen=True, kw_only=True)
class Network:
    """One card on QEMU's user network (DHCP gives 10.0.2.15), or on `tap`, an interface of this host.

    Without `internet` the DHCP server offers no router and no name server, and nothing leaves the host;
    `forward` lists the guest's TCP ports that get a free port on 127.0.0.1 each (chosen by QEMU, see
    `Qmp.forwarded`). `link` is whether the cable is plugged in when the machine starts.
    """

    nic: Nic = Nic.VIRTIO
    mac: str = "52:54:00:6b:33:01"
    internet: bool = False
    link: bool = True
    forward: tuple[int, ...] = (API_PORT,)
    tap: str = ""


@dataclass(frozen=True, kw_only=True)
class Sockets:
    """The machine's own folder: QMP and channel sockets, the console's log, firmware variables.

    Unix sockets allow 107 bytes of path, so the folder lies in /tmp, not in the project.
    """

    folder: Path

    @property
    def qmp(self) -> Path:
        """The control socket."""
        return self.folder / "qmp"

    @property
    def channel(self) -> Path:
        """The socket of the test channel."""
        return self.folder / "channel"

    @property
    def console(self) -> Path:
        """The socket of the serial console, for a person's terminal."""
        return self.folder / "console"

    @property
    def console_log(self) -> Path:
        """All that the serial console ever said; appended over restarts."""
        return self.folder / "console.log"

    @property
    def vars(self) -> Path:
        """This machine's copy of the firmware's variables."""
        return self.folder / "vars.fd"


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """A whole machine. `disks[0]` is the one it boots from.

    `credentials` are systemd credentials (name to content); `kernel_extra` is added to the command line of
    the UKI by systemd-stub. `program` and `data` say which QEMU. `rtc` is a UTC date and time to start
    with (`2020-01-01T00:00:00`) instead of the host's.
    """

    name: str
    program: tuple[str, ...]
    data: tuple[Path, ...] = ()
    arch: Arch = Arch.X86_64
    accel: Accel = Accel.TCG
    memory: int = 4096
    cpus: int = 2
    firmware_code: Path
    sockets: Sockets
    disks: tuple[Disk, ...]
    network: Network | None = field(default_factory=Network)
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    kernel_extra: str = ""
    rtc: str | None = None
    watchdog: bool = False
    pi: PiBoot | None = None
    """Set for QEMU's Raspberry Pi 4, which has the disk as its card, a serial port, and nothing else."""


def argv(spec: MachineSpec) -> tuple[str, ...]:
    """QEMU's command line. The machine starts paused (`-S`), so that cables can be pulled before power on."""
    if spec.pi is not None:
        return _pi_argv(spec, spec.pi)
    return (
        *spec.program,
        "-name", _escaped(spec.name),
        *(arg for folder in spec.data for arg in ("-L", str(folder))),
        "-no-user-config", "-nodefaults",
        "-display", "none",
        "-S",
        *_board(spec),
        "-m", f"{spec.memory}M",
        "-smp", str(spec.cpus),
        "-rtc", f"base={spec.rtc or 'utc'}",
        "-boot", "strict=on",
        *_firmware(spec),
        *_ports(spec.sockets),
        "-device", "virtio-rng-pci",
        *(("-device", "i6300esb", "-action", "watchdog=reset") if spec.watchdog else ()),
        *(("-device", "qemu-xhci,id=xhci") if _has_usb(spec) else ()),
        *(arg for index, disk in enumerate(spec.disks) for arg in _disk(disk, index)),
        *_network(spec.network),
        *_smbios(spec),
    )  # fmt: skip


def _pi_argv(spec: MachineSpec, pi: PiBoot) -> tuple[str, ...]:
    card = spec.disks[0]
    return (
        *spec.program,
        "-name", _escaped(spec.name),
        *(arg for folder in spec.data for arg in ("-L", str(folder))),
        "-no-user-config", "-nodefaults",
        "-display", "none",
        "-S",
        "-machine", "raspi4b",
        "-m", f"{spec.memory}M",
        "-smp", str(spec.cpus),
        "-kernel", str(pi.u_boot),
        "-dtb", str(pi.device_tree),
        *_qmp(spec.sockets),
        *_console(spec.sockets),
        "-drive", f"if=sd,format={card.format},file={_escaped(card.path)}",
    )  # fmt: skip


def storage_argv(spec: MachineSpec) -> tuple[str, ...]:
    """QEMU with the first disk's medium and no machine around it: to change the disk from outside."""
    return (
        *spec.program,
        *(arg for folder in spec.data for arg in ("-L", str(folder))),
        "-no-user-config", "-nodefaults",
        "-display", "none",
        "-machine", "none",
        "-S",
        *_qmp(spec.sockets),
        *_medium(spec.disks[0], DISK_NODE),
    )  # fmt: skip


def _board(spec: MachineSpec) -> tuple[str, ...]:
    """Machine type, processor and accelerator."""
    if spec.arch is Arch.X86_64:
        # This OVMF needs no SMM, and SMM is slow when emulated. What newer processors have costs emulated
        # ones time: SMAP, XSAVE, 5-level page tables (side by side `max` without the last of them needed 5
        # to 10 % more). A Nehalem also shows that nothing needs a processor younger than 2008.
        machine, cpu = "q35,smm=off,vmport=off", "Nehalem"
    else:
        # `max` emulates pointer authentication, which is slow; cortex-a76 has none (see runtime.md).
        machine, cpu = "virt", "cortex-a76"
    if spec.accel is Accel.KVM:
        return ("-machine", f"{machine},accel=kvm", "-cpu", "host")
    return ("-machine", machine, "-accel", "tcg,thread=multi", "-cpu", cpu)


def _firmware(spec: MachineSpec) -> tuple[str, ...]:
    return (
        "-drive", f"if=pflash,format=raw,readonly=on,file={_escaped(spec.firmware_code)}",
        "-drive", f"if=pflash,format=raw,file={_escaped(spec.sockets.vars)}",
    )  # fmt: skip


def _ports(sockets: Sockets) -> tuple[str, ...]:
    """QMP, the serial console (logged by QEMU itself, so that nothing is lost) and the test channel."""
    return (
        *_qmp(sockets),
        *_console(sockets),
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=channel,path={_escaped(sockets.channel)},server=on,wait=off",
        "-device", f"virtserialport,chardev=channel,name={CHANNEL_PORT}",
    )  # fmt: skip


def _console(sockets: Sockets) -> tuple[str, ...]:
    return (
        "-chardev", f"socket,id=console,path={_escaped(sockets.console)},server=on,wait=off,"
                    f"logfile={_escaped(sockets.console_log)},logappend=on",
        "-serial", "chardev:console",
    )  # fmt: skip


def _qmp(sockets: Sockets) -> tuple[str, ...]:
    return (
        "-chardev", f"socket,id=qmp,path={_escaped(sockets.qmp)},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
    )  # fmt: skip


def _has_usb(spec: MachineSpec) -> bool:
    return any(disk.bus is Bus.USB for disk in spec.disks) or (
        spec.network is not None and spec.network.nic is Nic.USB
    )


def _disk(disk: Disk, index: int) -> tuple[str, ...]:
    """The medium, then what the guest sees; only the first disk can be booted from."""
    node, controller = f"disk{index}", f"bus{index}"
    boot = ",bootindex=0" if index == 0 else ""
    common = f"drive={node},id=dev{index},serial={_escaped(disk.serial)}{boot}"
    devices = {
        Bus.VIRTIO_BLK: (f"virtio-blk-pci,{common}",),
        Bus.NVME: (f"nvme,{common}",),
        Bus.AHCI: (f"ich9-ahci,id={controller}", f"ide-hd,bus={controller}.0,{common}"),
        Bus.USB: (f"usb-storage,bus=xhci.0,{common}",),
        Bus.VIRTIO_SCSI: (f"virtio-scsi-pci,id={controller}", f"scsi-hd,bus={controller}.0,{common}"),
        Bus.PVSCSI: (f"pvscsi,id={controller}", f"scsi-hd,bus={controller}.0,{common}"),
        # A card has no serial that one could set, and no firmware of ours boots from it.
        Bus.SDHCI: (f"sdhci-pci,id={controller}", f"sd-card,drive={node},id=dev{index}"),
    }[disk.bus]
    return (*_medium(disk, node), *(arg for device in devices for arg in ("-device", device)))


def _medium(disk: Disk, node: str) -> tuple[str, ...]:
    mode = "read-only=on" if disk.read_only else "discard=unmap"
    if not disk.durable:
        mode += ",file.cache.no-flush=on"
    return (
        "-blockdev", f"driver={disk.format},node-name={node},{mode},"
                     f"file.driver=file,file.filename={_escaped(disk.path)}",
    )  # fmt: skip


def _network(network: Network | None) -> tuple[str, ...]:
    if network is None:
        return ()
    # Without internet there must be no default route either; QEMU's router advertisement would be one.
    reach = "" if network.internet else ",restrict=on,ipv6=off"
    forward = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in network.forward)
    # No ROM: without a kernel on any disk the firmware would lose minutes in PXE.
    where = "bus=xhci.0" if network.nic is Nic.USB else "romfile="
    backend = f"user,id=net0{reach}{forward}"
    if network.tap:
        backend = f"tap,id=net0,ifname={network.tap},script=no,downscript=no"
    return (
        "-netdev", backend,
        "-device", f"{network.nic},netdev=net0,mac={network.mac},id=nic0,{where}",
    )  # fmt: skip


def _smbios(spec: MachineSpec) -> tuple[str, ...]:
    """SMBIOS strings of type 11: one for each credential, one for the kernel command line."""
    values = [
        f"io.systemd.credential.binary:{name}={base64.b64encode(content).decode()}"
        for name, content in sorted(spec.credentials.items())
    ]
    if spec.kernel_extra:
        values.append(f"io.systemd.stub.kernel-cmdline-extra={spec.kernel_extra}")
    return tuple(arg for value in values for arg in ("-smbios", f"type=11,value={_escaped(value)}"))


def _escaped(value: str | Path) -> str:
    """QEMU splits options at commas; a doubled comma is one."""
    return str(value).replace(",", ",,")
