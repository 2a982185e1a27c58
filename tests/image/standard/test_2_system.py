"""Operating system."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.life import Life
    from k3img.vm.machine import Machine

# What may listen on addresses that others can reach, and who it is. Loopback is the node's own business.
DECLARED = {
    ("tcp", 6443): "Kubernetes API",
    ("tcp", 10250): "kubelet, client certificates only",
    ("tcp", 10256): "kube-proxy's health check",
    ("udp", 8472): "flannel's VXLAN",
    ("udp", 68): "DHCP client",
    ("udp", 546): "DHCPv6 client",
    ("udp", 5353): "mDNS: the node's name",
}
WITH_ETCD = {("tcp", 2379): "etcd clients", ("tcp", 2380): "etcd peers"}
WITH_SSH = {("tcp", 22): "ssh, keys only"}


def test_names_itself(life: Life, host: Any) -> None:
    """os-release names the image, its version and the runtime it holds."""
    text = host.file("/etc/os-release").content_string
    found = dict(line.replace('"', "").split("=", 1) for line in text.splitlines() if "=" in line)
    assert found.get("IMAGE_VERSION") == life.image.version
    assert life.image.profile in found.get("IMAGE_ID", "")
    assert life.image.runtime in text


def test_usr_is_verity(life: Life, host: Any) -> None:
    """/usr is the image's own: read-only erofs on dm-verity, by the root hash that the build wrote down."""
    mount = host.mount_point("/usr")
    assert mount.filesystem == "erofs"
    assert "ro" in mount.options
    uuids = host.check_output("cat /sys/block/dm-*/dm/uuid").split()
    assert any(uuid.startswith("CRYPT-VERITY-") and uuid.endswith("-usr") for uuid in uuids), uuids
    command_line = host.file("/proc/cmdline").content_string.split()
    assert f"usrhash={life.image.manifest['usrhash']}" in command_line


def test_usr_refuses_writes(machine: Machine) -> None:
    """Nobody can write to /usr, root included."""
    machine.fail("touch /usr/k3img-was-here")
    machine.fail("mount -o remount,rw /usr && touch /usr/k3img-was-here")


def test_root_grew(host: Any) -> None:
    """The root partition took all that the disk had left, and its file system all of the partition."""
    device = host.check_output("findmnt -nvo SOURCE /").removeprefix("/dev/")
    disk = host.check_output("lsblk -ndo PKNAME %s", f"/dev/{device}")
    sectors = {
        name: int(host.check_output("cat %s", f"/sys/class/block/{path}"))
        for name, path in {
            "disk": f"{disk}/size",
            "start": f"{device}/start",
            "size": f"{device}/size",
        }.items()
    }
    left = sectors["disk"] - sectors["start"] - sectors["size"]
    assert left * 512 < 4 << 20, f"{left} sectors behind the root partition are unused"
    size = int(host.check_output("findmnt -bno SIZE /"))
    assert size > sectors["size"] * 512 * 0.9


def test_second_slot(life: Life, host: Any) -> None:
    """The first boot made an empty slot B beside slot A, of the same size."""
    found = [line.split() for line in host.check_output("lsblk -brno PARTLABEL,SIZE,PARTTYPE").splitlines()]
    empty = [int(words[1]) for words in found if words[0] == "_empty"]
    assert sorted(empty) == sorted(
        (life.image.manifest["slot"]["size"], life.image.manifest["slot"]["verity"])
    )
    assert len(empty) == 2


def test_kernel_is_clean(host: Any) -> None:
    """The kernel is not tainted and reported no bug."""
    assert host.check_output("cat /proc/sys/kernel/tainted") == "0"
    assert host.run("dmesg --level=emerg,alert,crit | grep .").rc == 1


def test_ports(life: Life, host: Any, image_info: dict[str, Any]) -> None:
    """Nothing listens that is not declared."""
    allowed = dict(DECLARED)
    if image_info.get("datastore") == "etcd":
        allowed |= WITH_ETCD
    if image_info.get("ssh"):
        allowed |= WITH_SSH
    unknown = []
    for line in host.check_output("ss -Hlntup").splitlines():
        words = line.split()
        address, _, port = words[4].rpartition(":")
        bare = address.split("%")[0].strip("[]")
        if bare.startswith(("127.", "::1", "::ffff:127.")):
            continue
        if (words[0], int(port)) not in allowed:
            unknown.append(line)
    assert unknown == []


def test_no_login(machine: Machine, host: Any, image_info: dict[str, Any]) -> None:
    """Nobody can log in: no password, no prompt on a console, no ssh server."""
    if image_info.get("debug"):
        pytest.skip("a debug image has a root console, and its name says so")
    open_accounts = host.check_output("awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow")
    assert open_accounts == ""
    prompts = "systemctl list-units --state=active --plain --no-legend '*getty*' 'debug-shell*' '*sulogin*'"
    assert host.check_output(prompts) == ""
    # systemd --user managers, login and its like would have a terminal of their own.
    machine.fail("ls -l /proc/[0-9]*/fd/0 | grep -E '/dev/(tty|ttyS|ttyAMA|hvc|console)'")
    if not image_info.get("ssh"):
        assert not host.file("/usr/sbin/sshd").exists


def test_cgroups(host: Any) -> None:
    """cgroups are version 2 only, with every controller that Kubernetes uses."""
    controllers = host.check_output("cat /sys/fs/cgroup/cgroup.controllers").split()
    assert {"cpu", "cpuset", "memory", "pids", "io"} <= set(controllers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net/ipv4/ip_forward", "1"),
        ("net/bridge/bridge-nf-call-iptables", "1"),
        ("vm/overcommit_memory", "1"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("fs/inotify/max_user_instances", "8192"),
    ],
)
def test_sysctl(host: Any, name: str, value: str) -> None:
    """The kernel is set up for pods."""
    assert host.check_output("cat %s", f"/proc/sys/{name}") == value


def test_swap_is_off(host: Any) -> None:
    """There is no swap."""
    assert len(host.check_output("cat /proc/swaps").splitlines()) == 1


def test_journal(host: Any) -> None:
    """The journal is on the root partition and has a limit."""
    assert host.file("/var/log/journal").is_directory
    settings = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "\nSystemMaxUse=64M" in settings
    used = sum(
        int(line.split()[0]) for line in host.check_output("du -sk /var/log/journal").splitlines() if line
    )
    assert used < 80 * 1024


def test_clock(host: Any, image_info: dict[str, Any]) -> None:
    """The clock is right (the machine's was), never before the image was built; a time service runs."""
    now = int(host.check_output("date +%s"))
    assert now >= int(image_info["built"])
    assert abs(now - time.time()) < 120
    assert host.service("systemd-timesyncd").is_running


def test_persists_on_root(host: Any) -> None:
    """What must outlive an update lies on the root partition, not in a slot."""
    for path in (
        "/var/lib/rancher/k3s",
        "/var/lib/kubelet",
        "/var/lib/k3img",
        "/etc/rancher/node",
        "/var/log",
    ):
        assert host.check_output("findmnt -no TARGET --target %s", path) == "/", path
    assert host.check_output("findmnt -no FSTYPE /") == "ext4"


def test_memory(life: Life, host: Any, evidence: Callable[[object], None]) -> None:
    """How much memory is used is written down."""
    words = {
        line.split(":")[0]: int(line.split()[1])
        for line in host.check_output("cat /proc/meminfo").splitlines()
    }
    used = (words["MemTotal"] - words["MemAvailable"]) // 1024
    life.numbers["memory used"] = f"{used} MiB"
    life.numbers["memory of the machine"] = f"{life.machine.spec.memory} MiB"
    # Private pages of what of ours is resident: what would be free without it (proc_pid_smaps(5)).
    listed = "systemctl show -P MainPID 'k3img-*.service'"
    rollups = host.run(f"for p in $({listed}); do cat /proc/$p/smaps_rollup; done").stdout
    own = sum(int(row.split()[1]) for row in rollups.splitlines() if row.startswith("Private_"))
    life.numbers["memory of k3img's own services"] = f"{own / 1024:.1f} MiB"
    evidence(f"{used} MiB, {own / 1024:.1f} MiB of them by k3img's own services")
