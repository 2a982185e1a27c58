"""Hardware."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from k3img.verify.hardware import DISK_DRIVERS, NIC_DRIVERS, PAIRS, Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k3img.verify.life import Life
    from k3img.verify.plugin import VerifyPlugin


@pytest.fixture(scope="module")
def parts(pair: str) -> Pair:
    return PAIRS[pair]


@pytest.fixture(scope="module")
def life(verify: VerifyPlugin, parts: Pair) -> Iterator[Life]:
    """A machine with one pair of disk controller and network card."""
    with ExitStack() as stack:
        yield verify.open_life(stack, parts.hardware())


@pytest.fixture
def host(verify: VerifyPlugin, life: Life) -> Any:
    return verify.testinfra(life)


def drivers(host: Any, device: str) -> list[str]:
    """The drivers of a block device and of all that it hangs on, up to the PCI bus."""
    script = (
        "p=$(readlink -f /sys/class/block/%s); while [ ${#p} -gt 4 ]; do "
        'd=$(readlink "$p/driver" || readlink "$p/device/driver") && basename "$d"; p=${p%%/*}; done; true'
    )
    return list(dict.fromkeys(host.check_output(script.replace("%s", device).replace("%%", "%")).split()))


def test_boots(life: Life, parts: Pair, evidence: Callable[[object], None]) -> None:
    """The image boots on this hardware and its node becomes Ready."""
    life.power_on()
    life.become_ready(f"{parts.bus} and {parts.nic}", since=life.machine.powered_on)
    evidence(f"Ready {life.machine.seconds():.0f} s after power on")


def test_disk(host: Any, parts: Pair, evidence: Callable[[object], None]) -> None:
    """The root file system is on a disk behind this controller."""
    root = host.check_output("findmnt -nvo SOURCE /").removeprefix("/dev/")
    disk = host.check_output("lsblk -ndo PKNAME %s", f"/dev/{root}")
    found = drivers(host, disk)
    evidence(f"{disk}: {' < '.join(found)}")
    assert set(found) & set(DISK_DRIVERS[parts.bus])


@pytest.mark.spare
def test_spare_disks(host: Any, parts: Pair, evidence: Callable[[object], None]) -> None:
    """Every further disk is there, behind the controller it was put on."""
    found = {
        disk: drivers(host, disk) for disk in host.check_output("lsblk -dno NAME -I 8,179,253,259").split()
    }
    evidence(found)
    for bus in parts.spare:
        assert any(set(names) & set(DISK_DRIVERS[bus]) for names in found.values()), bus


def test_network(host: Any, parts: Pair, evidence: Callable[[object], None]) -> None:
    """The default route goes through this card, which has its driver and a lease."""
    route = host.check_output("ip -4 route show default").split()
    name = route[route.index("dev") + 1]
    driver = host.check_output("basename $(readlink %s)", f"/sys/class/net/{name}/device/driver")
    addresses = host.check_output("ip -4 -o address show dev %s", name)
    evidence(f"{name}: {driver}\n{addresses}")
    assert driver in NIC_DRIVERS[parts.nic]
    assert "10.0.2.15/24" in addresses
    assert "dynamic" in addresses


def test_no_failed_units(life: Life, host: Any) -> None:
    """No unit failed."""
    life.machine.execute("systemctl is-system-running --wait", timeout=60)
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
