"""Which kernel modules an image carries, and what k3s needs of a kernel.

Names are module names (`-` and `_` are the same) or folders below `kernel/` (`fs/erofs/`). A kernel
flavour may lack some: Debian's cloud kernel has no AHCI. What k3s needs is checked, see `K3S_CONFIGS`.
"""

from __future__ import annotations

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

_ETHERNET = """
e1000 e1000e igb igc ixgbe i40e ice r8169 realtek atlantic tg3 bnx2 bnxt_en alx atl1c sky2 mlx4_en mlx5_core
r8152 ax88179_178a asix cdc_ether cdc_ncm cdc_mbim rndis_host smsc95xx lan78xx aqc111 qmi_wwan option
"""

_MACHINE = """
iTCO_wdt sp5100_tco wdat_wdt i6300esb softdog
coretemp k10temp acpi_power_meter fan acpi_cpufreq intel_rapl_msr nct6775 it87 ipmi_si ipmi_devintf
"""

MODULES = tuple(f"{_FILESYSTEMS} {_NETWORK} {_GUESTS} {_STORAGE} {_BUSES} {_ETHERNET} {_MACHINE}".split())
"""Modules of every x86 image (facts: hardware), kept where the kernel flavour has them."""

INITRD_MODULES = tuple(
    f"""
    dm-mod dm-verity erofs ext4 vfat nls_cp437 nls_ascii nls_iso8859-1 nls_utf8 overlay loop efivarfs autofs4
    crc32c_generic crc32c-intel sha256-ssse3 xxhash_generic zstd qemu_fw_cfg i6300esb
    virtio_blk virtio_scsi virtio-rng virtio_mmio hv_vmbus hv_storvsc hyperv-keyboard vmw_pvscsi mptspi
    xen-blkfront {_STORAGE} {_BUSES}
    """.split()
)
"""What finding the root disk may take; the network is not used before the root is mounted."""

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
