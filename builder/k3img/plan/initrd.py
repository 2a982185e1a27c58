"""What the initrd is made of: it finds the disk, proves /usr, makes slot B and root, and switches to them.

An allow-list: the kernel unpacks all of it into memory at each boot, and every unit costs time.
"""

from __future__ import annotations

from k3img.plan.system import NEVER_READ

PACKAGES = (
    *("systemd", "udev", "kmod", "mount", "util-linux"),
    *("systemd-repart", "systemd-cryptsetup", "e2fsprogs"),
)

PROGRAMS = tuple(
    """
    systemd systemd-executor systemd-journald systemd-udevd systemd-shutdown systemd-veritysetup systemd-fsck
    systemd-makefs systemd-sulogin-shell systemd-sysroot-fstab-check
    systemd-debug-generator systemd-fstab-generator systemd-gpt-auto-generator systemd-veritysetup-generator
    systemctl systemd-repart systemd-tmpfiles systemd-machine-id-setup udevadm journalctl
    kmod modprobe mount umount dmsetup blkid fsck fsck.ext4 e2fsck mkfs.ext4 mke2fs resize2fs
    sh dash cat echo sleep tr ata_id scsi_id
    """.split()
)
"""Programs that stay, by name; their libraries stay with them, units of the others go with those."""

_RULES = """
50-firmware 50-udev-default 55-dm 60-block 60-persistent-storage 60-persistent-storage-dm 64-ext4 80-drivers
95-dm-notify 99-systemd
"""

RULES = tuple(f"{name}.rules" for name in _RULES.split())
"""udev's rules that stay: disks, and what is on them."""

REMOVE = tuple(
    f"""
    {NEVER_READ} /usr/share/zoneinfo /usr/share/terminfo /usr/lib/locale /usr/lib/terminfo
    /usr/lib/*/security /usr/lib/*/ossl-modules /usr/lib/*/engines-3
    /usr/lib/systemd/user /usr/lib/systemd/user-* /usr/lib/systemd/*-preset
    /usr/lib/systemd/system/dev-hugepages.mount /usr/lib/systemd/system/dev-mqueue.mount
    /usr/lib/systemd/system/sys-kernel-*.mount /usr/lib/systemd/system/sys-fs-fuse-connections.mount
    /usr/lib/systemd/system/kmod-static-nodes.service /usr/lib/systemd/system/systemd-tmpfiles-*
    /usr/lib/systemd/system/systemd-ask-password-* /usr/lib/systemd/system/systemd-udev-load-*
    /usr/lib/systemd/system/systemd-pcr* /usr/lib/systemd/system/proc-sys-fs-binfmt_misc.*
    /usr/lib/systemd/system/*-cryptsetup.target /usr/lib/systemd/system/cryptsetup*.target
    /usr/lib/systemd/system/integritysetup*.target /usr/lib/systemd/system/systemd-creds*
    /usr/lib/systemd/system/systemd-sysext* /usr/lib/systemd/system/systemd-networkd*
    /usr/lib/systemd/system/systemd-hostnamed* /usr/lib/systemd/system/systemd-initctl*
    /usr/lib/systemd/system/systemd-journal-*.service /usr/lib/systemd/system/getty*
    /usr/lib/systemd/system/*.timer
    """.split()
)
"""Files and units that the way to the root never touches. Globs."""
