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

NEVER_READ = """
/usr/share/doc /usr/share/man /usr/share/info /usr/share/lintian /usr/share/bug /usr/share/locale
/usr/share/bash-completion /usr/share/zsh /usr/share/fish /usr/share/initramfs-tools /usr/share/perl5
/usr/share/pixmaps /usr/share/polkit-1 /usr/share/common-licenses /usr/share/i18n /usr/share/debconf
/usr/share/debianutils /usr/share/adduser /usr/share/applications /usr/share/base-files /usr/share/menu
/usr/share/gcc /usr/share/gdb /usr/share/apport /usr/share/reportbug /usr/share/doc-base /usr/share/perl
/usr/lib/*/gconv /usr/lib/*/perl-base /usr/bin/perl* /usr/lib/klibc /usr/lib/klibc-*.so
/usr/lib/dracut /usr/lib/initramfs-tools /usr/lib/udev/hwdb.d /etc/udev/hwdb.d /usr/lib/udev/hwdb.bin
/usr/lib/systemd/catalog /var/lib/systemd/catalog /usr/lib/pcrlock.d /usr/bin/localedef /usr/bin/cpio
/usr/lib/valgrind /usr/lib/systemd/system-generators/systemd-ssh-generator
/usr/bin/dpkg* /usr/sbin/dpkg* /usr/lib/dpkg /usr/share/dpkg /usr/bin/debconf* /usr/bin/deb-systemd-*
/usr/bin/update-alternatives /usr/sbin/invoke-rc.d /usr/sbin/update-rc.d /usr/sbin/service /usr/bin/iconv
"""

REMOVE = tuple(
    f"""
    {NEVER_READ}
    /usr/lib/modules/*/System.map /boot/System.map-*
    /usr/lib/python3.*/lib2to3 /usr/lib/python3.*/idlelib /usr/lib/python3.*/test
    /usr/lib/python3.*/ensurepip /usr/lib/python3.*/pydoc_data /usr/lib/python3.*/turtle*
    /usr/lib/python3.*/tkinter /usr/lib/python3.*/_pyrepl /usr/lib/python3.*/asyncio
    /usr/lib/python3.*/unittest /usr/lib/python3.*/multiprocessing /usr/lib/python3.*/xmlrpc
    /usr/lib/python3.*/wsgiref /usr/lib/python3.*/doctest.py /usr/lib/python3.*/pydoc.py
    /usr/lib/python3.*/venv /usr/lib/python3.*/curses /usr/lib/python3.*/lib-dynload/_curses*
    /usr/lib/python3.*/lib-dynload/_test* /usr/lib/python3.*/lib-dynload/_codecs_*
    /usr/lib/python3.*/lib-dynload/_asyncio* /usr/lib/python3.*/lib-dynload/_interp*
    /usr/lib/python3.*/lib-dynload/xx* /usr/lib/python3.*/lib-dynload/_xx*
    /usr/lib/python3.*/lib-dynload/_lsprof*
    /usr/lib/python3.*/_pydecimal.py /usr/lib/python3.*/_pyio.py /usr/lib/python3.*/_pydatetime.py
    /usr/lib/python3.*/pdb.py /usr/bin/pdb3* /usr/lib/python3.*/pickletools.py /usr/lib/python3.*/mailbox.py
    /usr/lib/python3.*/imaplib.py /usr/lib/python3.*/poplib.py
    /usr/share/zoneinfo/right /usr/share/zoneinfo/posix
    /usr/sbin/ldconfig /usr/sbin/tc /usr/lib/tc /usr/lib/*/tc /usr/sbin/devlink /usr/bin/tic /usr/bin/infocmp
    /usr/bin/captoinfo /usr/bin/infotocap /usr/bin/su /usr/sbin/agetty /usr/sbin/sulogin /usr/bin/lslogins
    /usr/bin/systemd-firstboot /usr/bin/kernel-install
    /usr/bin/systemd-sysext /usr/bin/systemd-confext /usr/lib/systemd/system/systemd-sysext*
    /usr/lib/systemd/system/systemd-confext* /usr/bin/systemd-cryptsetup /usr/lib/*/cryptsetup
    /usr/bin/script /usr/bin/scriptlive /usr/bin/scriptreplay /usr/bin/diff3 /usr/bin/sdiff /usr/sbin/zic
    /usr/sbin/rmt* /usr/sbin/rtcwake /usr/sbin/e2image /usr/sbin/fatlabel /usr/bin/ptx /usr/bin/pinky
    /usr/lib/*/engines-3 /usr/lib/*/ossl-modules /usr/lib/*/krb5 /usr/lib/*/libc_malloc_debug*
    /usr/lib/*/libnsl.so* /usr/lib/*/libthread_db* /usr/lib/*/libform* /usr/lib/*/libmenu*
    /usr/lib/*/libpanel* /usr/bin/lsclocks /usr/bin/nstat /usr/bin/lnstat /usr/bin/rtstat /usr/bin/ctstat
    /usr/bin/openssl /usr/lib/*/libmvec* /usr/bin/dir /usr/bin/vdir /usr/bin/mt-gnu
    /usr/sbin/arpd /usr/lib/*/libdb-5.3.so /usr/sbin/tipc /usr/sbin/dcb /usr/sbin/vdpa /usr/bin/rdma
    /usr/sbin/rtmon /usr/sbin/rtacct /usr/sbin/genl /usr/sbin/debugfs /usr/sbin/e2scrub* /usr/sbin/e4defrag
    /usr/lib/systemd/system/e2scrub* /usr/lib/systemd/systemd-pcrlock /usr/lib/systemd/systemd-measure
    /usr/lib/systemd/systemd-sbsign /usr/lib/systemd/systemd-storagetm /usr/bin/systemd-cryptenroll
    /usr/lib/systemd/systemd-logind /usr/bin/loginctl
    /usr/lib/systemd/system-generators/systemd-cryptsetup-generator
    /usr/lib/systemd/system-generators/systemd-getty-generator
    /usr/lib/systemd/system-generators/systemd-hibernate-resume-generator
    /usr/lib/systemd/system-generators/systemd-integritysetup-generator
    /usr/lib/systemd/system-generators/systemd-rc-local-generator
    /usr/lib/systemd/system-generators/systemd-system-update-generator
    /usr/lib/systemd/system-generators/systemd-sysv-generator
    /usr/lib/systemd/system-generators/systemd-tpm2-generator
    """.split()
)
"""Files that an appliance never reads. Globs."""

UDEV_RULES = tuple(
    f"/usr/lib/udev/rules.d/{name}.rules"
    for name in """
    60-autosuspend 60-evdev 60-fido-id 60-input-id 60-persistent-alsa 60-persistent-input 60-persistent-v4l
    60-persistent-storage-mtd 60-persistent-storage-tape 60-sensor 64-btrfs 70-camera 70-joystick 70-memory
    70-mouse 70-touchpad 70-uaccess 71-seat 73-seat-late 75-probe_mtd 78-sound-card 90-iocost 96-e2scrub
    """.split()
)
"""Rules for desks, sound and cameras: udev asks every rule about every device at each boot."""

MASKED = (
    *("systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "ldconfig.service"),
    *("systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount"),
    *("systemd-boot-random-seed.service", "systemd-firstboot.service", "systemd-growfs-root.service"),
    *("modprobe@drm.service", "modprobe@configfs.service", "systemd-pcrmachine.service"),
    *("systemd-homed-firstboot.service", "apparmor.service", "systemd-boot-update.service"),
    *("systemd-network-generator.service", "systemd-udev-load-credentials.service"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-user-sessions.service"),
    *("systemd-hibernate-clear.service", "systemd-initctl.socket"),
)
"""Units that need what the image lacks, or would compute at each first boot what never changes.

apparmor.service loads profiles of desktop programs; its parser stays, containerd calls it for pods.
"""

LOGIN_UNITS = (
    *("getty.target", "getty-static.service", "serial-getty@.service", "container-getty@.service"),
    *("console-getty.service", "getty@.service", "autovt@.service", "systemd-logind.service"),
)
"""Masked: the image has no login, and a debug image has shells of its own."""
