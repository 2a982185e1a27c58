"""Which kernel modules an image carries, and what k3s needs of a kernel.

Names are module names (`-` and `_` are the same) or folders below `kernel/` (`fs/erofs/`). A kernel
flavour may lack some: Debian's cloud kernel has no AHCI. What k3s needs is checked, see `K3S_CONFIGS`.
"""

from __future__ import annotations

from k3img.profile.boards import Board
from k3img.profile.model import Arch

_FILESYSTEMS = """
fs/erofs/ fs/ext4/ fs/overlayfs/ fs/fat/ fs/efivarfs/ fs/autofs/
nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 dm-mod dm-verity dm-bufio loop zram
crc32c_generic crc32_generic crc32c-intel crc32_pclmul crct10dif-pclmul xxhash_generic zstd lz4 deflate
sha256_generic sha256-ssse3 sha512-ssse3 sha1-ssse3 sha256-arm64 sha2-ce aesni-intel ghash-generic gcm
cryptd ccm crypto/af_alg crypto/algif_hash crypto/algif_skcipher
"""

_NETWORK = """
net/bridge/ net/netfilter/ net/ipv4/ net/ipv6/ net/8021q/ net/802/ net/llc/ net/sched/ net/xfrm/ net/key/
veth vxlan geneve dummy tun macvlan ipvlan ifb wireguard vrf bonding
"""

_GUESTS = """
virtio_blk virtio_net virtio_scsi virtio-rng virtio_balloon virtio_mmio vmw_vsock_virtio_transport qemu_fw_cfg
hv_vmbus hv_storvsc hv_netvsc hv_utils hyperv-keyboard vmw_pvscsi vmxnet3 mptspi
xen-blkfront xen-netfront ena gve
"""

_STORAGE = """
ahci ata_piix ata_generic nvme vmd usb-storage uas sd_mod sr_mod sg
sdhci-pci sdhci-acpi mmc_block rtsx_pci rtsx_pci_sdmmc
"""

_BUSES = """
xhci-pci ehci-pci usbhid hid-generic intel-lpss-pci intel-lpss-acpi i2c-i801
pinctrl-alderlake pinctrl-jasperlake pinctrl-elkhartlake
"""

_USB_ETHERNET = """
r8152 ax88179_178a asix cdc_ether cdc_ncm cdc_mbim rndis_host smsc95xx lan78xx aqc111 qmi_wwan option
"""

_ETHERNET = """
e1000 e1000e igb igc ixgbe i40e ice r8169 realtek atlantic tg3 bnx2 bnxt_en alx atl1c sky2 mlx4_en mlx5_core
"""

_MACHINE = """
iTCO_wdt sp5100_tco wdat_wdt i6300esb softdog
coretemp k10temp acpi_power_meter fan acpi_cpufreq intel_rapl_msr nct6775 it87 ipmi_si ipmi_devintf
"""

_ARM_FILESYSTEMS = (
    "sha1-ce sha2-ce sha3-ce sha512-ce sha512-arm64 aes-arm64 aes-ce-ccm aes-ce-blk aes-neon-blk ghash-ce"
)

_ARM_GUESTS = """
virtio_blk virtio_net virtio_scsi virtio-rng virtio_balloon virtio_mmio vmw_vsock_virtio_transport qemu_fw_cfg
hv_vmbus hv_storvsc hv_netvsc hv_utils xen-blkfront xen-netfront ena gve
"""

_ARM_STORAGE = """
ahci ahci_platform nvme usb-storage uas sd_mod sr_mod sg sdhci-acpi sdhci-pci mmc_block
"""

_ARM_BUSES = "xhci-pci xhci-plat-hcd ehci-pci usbhid hid-generic gpio-pl061 gpio_keys"

_ARM_ETHERNET = """
e1000e igb igc ixgbe i40e ice r8169 realtek tg3 bnxt_en mlx5_core hns3 thunderx-nic nicvf
"""

_ARM_MACHINE = "sbsa_gwdt i6300esb softdog cppc_cpufreq ipmi_ssif ipmi_si ipmi_devintf"

_PI_STORAGE = """
sdhci-iproc bcm2835 bcm2835-mmc mmc_block reset-raspberrypi xhci-pci usb-storage uas sd_mod sg dwc2 nvme
"""

_PI_ETHERNET = """
genet broadcom bcm7xxx bcm-phy-lib mdio-bcm-unimac
"""

_PI_MACHINE = """
bcm2835_wdt bcm2711_thermal bcm2835_thermal raspberrypi-cpufreq raspberrypi-hwmon cpufreq_dt softdog
iproc-rng200 bcm2835-rng i2c-bcm2835 i2c-dev i2c-mux-pinctrl spi-bcm2835 spidev gpio-regulator
gpio-raspberrypi-exp leds-gpio leds-pwm pwm-bcm2835 nvmem-rmem rtc-ds1307 rtc-rv3028 rtc-pcf8523 rtc-pcf85063
usbhid hid-generic vc-sm-cma
"""

_PI_UNDER_QEMU = "virtio_pci virtio_blk virtio_net virtio-rng virtio_scsi virtio_mmio virtio_console"
"""What lets the same /usr and root boot on QEMU's `virt` machine, where the network can be tested."""

_FIND_ROOT = """
dm-mod dm-verity erofs ext4 vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 overlay loop efivarfs autofs4
crc32c_generic xxhash_generic zstd
"""


def modules(arch: Arch, board: Board) -> tuple[str, ...]:
    """Modules of every image for a target (facts: hardware, rpi), kept where the kernel flavour has them."""
    match arch, board:
        case Arch.X86_64, _:
            machine = f"{_GUESTS} {_STORAGE} {_BUSES} {_ETHERNET} {_USB_ETHERNET} {_MACHINE}"
        case Arch.ARM64, Board.RPI4:
            machine = (
                f"{_ARM_FILESYSTEMS} {_PI_STORAGE} {_PI_ETHERNET} {_USB_ETHERNET} {_PI_MACHINE} "
                f"{_PI_UNDER_QEMU}"
            )
        case _:
            machine = (
                f"{_ARM_FILESYSTEMS} {_ARM_GUESTS} {_ARM_STORAGE} {_ARM_BUSES} {_ARM_ETHERNET} "
                f"{_USB_ETHERNET} {_ARM_MACHINE}"
            )
    return tuple(f"{_FILESYSTEMS} {_NETWORK} {machine}".split())


def initrd_modules(arch: Arch, board: Board) -> tuple[str, ...]:
    """What finding the root disk may take; the network is not used before the root is mounted."""
    match arch, board:
        case Arch.X86_64, _:
            machine = f"""
                crc32c-intel sha256-ssse3 qemu_fw_cfg i6300esb virtio_blk virtio_scsi virtio-rng virtio_mmio
                hv_vmbus hv_storvsc hyperv-keyboard vmw_pvscsi mptspi xen-blkfront {_STORAGE} {_BUSES}
            """
        case Arch.ARM64, Board.RPI4:
            machine = f"""
                sha2-ce sha256-arm64 bcm2835_wdt iproc-rng200 bcm2835-rng {_PI_STORAGE}
                virtio_pci virtio_blk virtio-rng virtio_mmio
            """
        case _:
            machine = f"""
                sha2-ce sha256-arm64 qemu_fw_cfg i6300esb sbsa_gwdt virtio_blk virtio_scsi virtio-rng
                virtio_mmio hv_vmbus hv_storvsc xen-blkfront {_ARM_STORAGE} {_ARM_BUSES}
            """
    return tuple(f"{_FIND_ROOT} {machine}".split())


_SWITCHES = """
NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_PIDS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER
CGROUP_SCHED CPUSETS MEMCG CFS_BANDWIDTH SECCOMP KEYS POSIX_MQUEUE
"""

K3S_CONFIGS: tuple[tuple[str, str], ...] = (
    *((name, "") for name in _SWITCHES.split()),
    ("VETH", "veth"),
    ("BRIDGE", "bridge"),
    ("BRIDGE_NETFILTER", "br_netfilter"),
    ("IP_NF_FILTER", "iptable_filter"),
    ("IP_NF_NAT", "iptable_nat"),
    ("NF_NAT", "nf_nat"),
    ("IP_NF_TARGET_REJECT", "ipt_REJECT"),
    ("NETFILTER_XT_TARGET_MASQUERADE", "xt_MASQUERADE"),
    ("NETFILTER_XT_MATCH_ADDRTYPE", "xt_addrtype"),
    ("NETFILTER_XT_MATCH_CONNTRACK", "xt_conntrack"),
    ("NETFILTER_XT_MATCH_IPVS", "xt_ipvs"),
    ("NETFILTER_XT_MATCH_COMMENT", "xt_comment"),
    ("NETFILTER_XT_MATCH_MULTIPORT", "xt_multiport"),
    ("NETFILTER_XT_MATCH_STATISTIC", "xt_statistic"),
    ("NETFILTER_XT_MATCH_MARK", "xt_mark"),
    ("OVERLAY_FS", "overlay"),
    ("VXLAN", "vxlan"),
    ("IP_SET", "ip_set"),
)
"""Kernel options that k3s cannot do without, and the module each makes when it is `m`.

Source: k3s contrib/util/check-config.sh (v1.36.3); VXLAN and IP_SET for flannel and network policies.
"""
