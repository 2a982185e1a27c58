"""Rule: the kernel's modules are those that k3s and the machine need, and depmod agrees with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.image.rules.model import lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened

FOR_K3S = "overlay br_netfilter vxlan nf_tables xt_comment xt_MASQUERADE ip_set veth bridge".split()
"""What k3s loads, unless the kernel has it built in (facts: k3s, section 5)."""

FOR_GUESTS = "ext4 dm_verity erofs virtio_blk virtio_net nvme".split()
FOR_MACHINES = """
ahci usb_storage uas sd_mod sdhci_pci mmc_block xhci_pci usbhid e1000e igb igc ixgbe r8169 tg3 r8152 cdc_ether
""".split()
FOR_X86 = ("sdhci_acpi", "vmd", "atlantic", "alx", "iTCO_wdt")
FOR_PI = "sdhci_iproc genet broadcom bcm2835_wdt xhci_pci usb_storage usbhid ext4 dm_verity erofs".split()
"""Disks, network and watchdog of the machines that a target stands for (facts: hardware, rpi)."""


def modules(image: Opened) -> Iterator[str]:
    """Kernel modules: one kernel, depmod's list of them is right, k3s' and the machine's are there."""
    base = image.usr / "lib/modules"
    kernels = sorted(path for path in base.glob("*") if path.is_dir())
    if len(kernels) != 1:
        yield f"/usr/lib/modules has {len(kernels)} kernels; an image has one"
        return
    (kernel,) = kernels
    listed: dict[str, list[str]] = {}
    for line in lines(kernel / "modules.dep"):
        name, _, needs = line.partition(":")
        listed[name] = needs.split()
    there = {str(path.relative_to(kernel)) for path in kernel.rglob("*.ko*")}
    yield from (f"modules.dep names {name}, which is not there" for name in sorted(listed.keys() - there))
    yield from (f"modules.dep does not know {name}" for name in sorted(there - listed.keys()))
    for name in sorted(listed):
        yield from (f"{name} needs {it}, which is not there" for it in listed[name] if it not in there)
    builtin = {module(line) for line in lines(kernel / "modules.builtin")}
    have = {module(name) for name in there} | builtin
    missing = [name for name in needed(image, kernel.name) if module(name) not in have]
    yield from (f"there is no module {name}" for name in missing)
    for uki in image.ukis:
        if uki.kernel and uki.kernel != kernel.name:
            yield f"{uki.name} has kernel {uki.kernel}, /usr the modules of {kernel.name}"


def needed(image: Opened, kernel: str) -> list[str]:
    """Modules that an image must have: a Pi's, a guest's (Debian's cloud kernel), or of all machines."""
    if image.is_pi:
        return [*FOR_K3S, *FOR_PI]
    if "cloud" in kernel:
        return [*FOR_K3S, *FOR_GUESTS]
    more = FOR_X86 if image.arch == "x86-64" else ()
    return [*FOR_K3S, *FOR_GUESTS, *FOR_MACHINES, *more]


def module(path: str) -> str:
    """A module's name as the kernel compares it."""
    return path.rpartition("/")[2].split(".ko")[0].replace("-", "_").lower()
