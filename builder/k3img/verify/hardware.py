"""The machines that QEMU can stand in for: each disk controller and each network card at least once."""

from __future__ import annotations

from dataclasses import dataclass, field

from k3img.verify.boot import Hardware
from k3img.vm.spec import Bus, Network, Nic

# The kernel's drivers, as /sys names them.
DISK_DRIVERS = {
    Bus.VIRTIO_BLK: ("virtio_blk",),
    Bus.NVME: ("nvme",),
    Bus.AHCI: ("ahci",),
    Bus.USB: ("usb-storage", "uas"),
    Bus.VIRTIO_SCSI: ("virtio_scsi",),
    Bus.PVSCSI: ("vmw_pvscsi",),
    Bus.SDHCI: ("sdhci-pci",),
}
NIC_DRIVERS = {
    Nic.VIRTIO: ("virtio_net",),
    Nic.E1000: ("e1000",),
    Nic.E1000E: ("e1000e",),
    Nic.IGB: ("igb",),
    Nic.VMXNET3: ("vmxnet3",),
    Nic.USB: ("cdc_ether", "rndis_host"),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A disk controller to boot from, with a network card; `spare` disks are only looked at."""

    bus: Bus
    nic: Nic
    spare: tuple[Bus, ...] = field(default=())

    @property
    def name(self) -> str:
        """As `--hardware` takes it: the disk's bus."""
        return str(self.bus)

    def hardware(self) -> Hardware:
        """The machine. It has a default route, unlike the one that all other checks use."""
        return Hardware(bus=self.bus, network=Network(nic=self.nic, internet=True), spare=self.spare)


# The firmware boots neither from an SD card nor from PVSCSI: their drivers are proven by a second disk.
PAIRS = {
    pair.name: pair
    for pair in (
        Pair(bus=Bus.NVME, nic=Nic.E1000E),
        Pair(bus=Bus.AHCI, nic=Nic.E1000),
        Pair(bus=Bus.USB, nic=Nic.USB),
        Pair(bus=Bus.VIRTIO_SCSI, nic=Nic.VMXNET3),
        Pair(bus=Bus.VIRTIO_BLK, nic=Nic.IGB, spare=(Bus.SDHCI, Bus.PVSCSI)),
    )
}
