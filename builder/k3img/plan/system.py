"""Which Debian packages are the system under k3s, which of their files go, and which units are masked."""

from __future__ import annotations

PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "systemd-resolved", "systemd-timesyncd"),
    *("systemd-boot", "systemd-boot-efi", "systemd-repart", "systemd-cryptsetup"),
    *("kmod", "mount", "util-linux", "iproute2", "iptables", "apparmor", "ca-certificates"),
    *("e2fsprogs", "dosfstools", "libseccomp2", "python3-minimal", "python3-yaml"),
)
"""The core that every image has; a profile adds to it."""

KERNELS = {
    ("generic", "amd64"): "linux-image-amd64",
    ("cloud", "amd64"): "linux-image-cloud-amd64",
    ("generic", "arm64"): "linux-image-arm64",
    ("cloud", "arm64"): "linux-image-cloud-arm64",
}

INITRD_PACKAGES = (
    *("systemd", "udev", "kmod", "mount", "util-linux"),
    *("systemd-repart", "systemd-cryptsetup", "e2fsprogs", "dosfstools"),
)

_DOCUMENTS = """
/usr/share/doc /usr/share/man /usr/share/info /usr/share/lintian /usr/share/bug /usr/share/locale
/usr/share/bash-completion /usr/share/zsh /usr/share/fish /usr/share/initramfs-tools /usr/share/perl5
/usr/share/pixmaps /usr/share/polkit-1 /usr/share/common-licenses /usr/share/i18n /usr/share/debconf
/usr/share/debianutils /usr/share/adduser /usr/share/applications /usr/share/base-files /usr/share/menu
/usr/share/gcc /usr/share/gdb /usr/share/apport /usr/share/reportbug /usr/share/doc-base /usr/share/perl
/usr/lib/*/gconv /usr/lib/*/perl-base /usr/bin/perl* /usr/lib/klibc /usr/lib/klibc-*.so
/usr/lib/dracut /usr/lib/initramfs-tools /usr/lib/udev/hwdb.d /etc/udev/hwdb.d /usr/lib/udev/hwdb.bin
/usr/lib/systemd/catalog /var/lib/systemd/catalog /usr/lib/pcrlock.d /usr/bin/localedef /usr/bin/cpio
/usr/lib/valgrind /usr/lib/systemd/system-generators/systemd-ssh-generator
"""

REMOVE = tuple(
    f"""
    {_DOCUMENTS}
    /usr/lib/modules/*/System.map /boot/System.map-*
    /usr/lib/python3.*/lib2to3 /usr/lib/python3.*/idlelib /usr/lib/python3.*/test
    /usr/lib/python3.*/ensurepip /usr/lib/python3.*/pydoc_data /usr/lib/python3.*/turtle*
    /usr/lib/python3.*/tkinter /usr/lib/python3.*/_pyrepl
    /usr/share/zoneinfo/right /usr/share/zoneinfo/posix
    """.split()
)
"""Files that an appliance never reads. Globs."""

INITRD_REMOVE = tuple(
    f"""
    {_DOCUMENTS} /usr/share/zoneinfo /usr/share/terminfo /usr/lib/locale /usr/lib/terminfo
    /usr/bin/btrfs* /usr/sbin/btrfs* /usr/bin/dpkg* /usr/sbin/dpkg* /usr/lib/dpkg /usr/share/dpkg
    /usr/bin/debconf* /usr/bin/iconv /usr/sbin/debugfs /usr/sbin/e4defrag /usr/bin/systemd-analyze
    /usr/lib/systemd/systemd-networkd /usr/lib/systemd/systemd-networkd-wait-online /usr/bin/networkctl
    /usr/lib/systemd/systemd-logind /usr/bin/loginctl
    /usr/lib/systemd/system-generators/systemd-rc-local-generator
    /usr/lib/systemd/system-generators/systemd-sysv-generator
    /usr/lib/systemd/system-generators/systemd-system-update-generator
    /usr/lib/systemd/system-generators/systemd-ssh-generator
    /usr/lib/*/libdb-5.3.so /usr/lib/*/libsqlite3* /usr/lib/*/libmvec* /usr/lib/*/security
    /usr/lib/*/libsepol* /usr/lib/*/libsemanage* /usr/lib/*/libncurses* /usr/lib/*/libform*
    /usr/lib/*/libmenu* /usr/lib/*/libpanel* /usr/lib/*/libgmp* /usr/lib/*/libapt*
    """.split()
)

MASKED = (
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "ldconfig.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount"),
    *("systemd-boot-random-seed.service", "systemd-firstboot.service", "systemd-growfs-root.service"),
    *("modprobe@drm.service", "modprobe@configfs.service", "systemd-pcrmachine.service"),
    *("systemd-homed-firstboot.service", "apparmor.service", "systemd-boot-update.service"),
)
"""Units that need what the image lacks, or would compute at each first boot what never changes.

apparmor.service loads profiles of desktop programs; its parser stays, containerd calls it for pods.
"""

LOGIN_UNITS = (
    *("getty.target", "getty-static.service", "serial-getty@.service", "container-getty@.service"),
    *("console-getty.service", "getty@.service", "autovt@.service", "systemd-logind.service"),
)
"""Masked: the image has no login, and a debug image has shells of its own."""
