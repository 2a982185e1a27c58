"""Profile + inputs -> Plan. Pure: all that can be decided about a build is decided here."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import yaml

from k3img.node.model import Role
from k3img.plan import board, initrd, kernel, system
from k3img.plan.model import (
    BuildInitrd,
    CopyCode,
    CopyFile,
    CopyOverlay,
    FetchRuntime,
    InstallSystem,
    MakeDisk,
    MaskUnits,
    Plan,
    Publish,
    Step,
    TrimKernel,
    UnpackRuntime,
    WriteFile,
    canonical,
)
from k3img.profile.kinds import MIB
from k3img.profile.model import Arch, Compression
from k3img.runtime.config import image_config

if TYPE_CHECKING:
    from k3img.plan.inputs import Inputs
    from k3img.profile.model import Profile, Target

SEED_SIZE = 16 * MIB
RUNTIME_FOLDER = "/usr/lib/k3s"
DEVICE_FOLDER = "/usr/lib/k3img/k3img"
SHARE = "/usr/share/k3img"

DIRECT = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *("localhost", ".local", ".internal", ".svc", ".cluster.local"),
)
"""What a proxy is never asked for: private networks, names of nodes, of servers and of the cluster."""


def make(profile: Profile, inputs: Inputs) -> Plan:
    """Decide how `profile` becomes an image."""
    return Plan(
        name=image_id(profile),
        version=image_version(profile, inputs.source_date_epoch),
        arch=profile.target.arch,
        board=profile.target.board,
        source_date_epoch=inputs.source_date_epoch,
        builder=inputs.builder,
        lock=inputs.lock,
        debug=profile.debug,
        steps=(
            *_runtime(profile, inputs),
            _initrd(profile, inputs),
            _system(profile),
            _kernel(profile),
            *board.firmware(profile),
            *_overlays(profile, inputs),
            _device_code(inputs),
            *_baked_in(profile, inputs),
            *_settings(profile, inputs),
            _masks(),
            _disk(profile),
            Publish(formats=profile.image.formats, reason="image.formats"),
        ),
    )


def image_id(profile: Profile) -> str:
    """The profile's name; a debug image always says that it is one."""
    return profile.name if not profile.debug or "debug" in profile.name else f"{profile.name}-debug"


def image_version(profile: Profile, source_date_epoch: int) -> str:
    """`image.version`, else the source date as `YYYYMMDD.HHMM` UTC, so that it only grows."""
    return profile.image.version or f"{datetime.fromtimestamp(source_date_epoch, UTC):%Y%m%d.%H%M}"


def _runtime(profile: Profile, inputs: Inputs) -> tuple[Step, ...]:
    return (
        FetchRuntime(
            version=profile.k3s.version,
            arch=profile.target.arch,
            sha256=inputs.runtime_sha256,
            reason="k3s.version" + (", hash from the lock" if inputs.runtime_sha256 else ", no lock yet"),
        ),
        UnpackRuntime(
            into=RUNTIME_FOLDER,
            reason="unpacked at build time: first boot writes nothing, and verity covers it",
        ),
    )


def _initrd(profile: Profile, inputs: Inputs) -> BuildInitrd:
    return BuildInitrd(
        suite=profile.os.suite,
        mirror=profile.os.mirror,
        packages=initrd.PACKAGES,
        remove=initrd.REMOVE,
        programs=initrd.PROGRAMS,
        rules=initrd.RULES,
        modules=(
            *kernel.initrd_modules(profile.target.arch, profile.target.board),
            *profile.os.initrd_modules,
        ),
        overlay="initrd",
        digest=inputs.overlays.get("initrd", ""),
        reason="makes slot B and the root on first boot, fills /etc, reboots instead of hanging",
    )


def _system(profile: Profile) -> InstallSystem:
    flavour = system.KERNELS[profile.os.kernel, profile.target.arch.debian]
    extra = ("intel-microcode", "amd64-microcode") if profile.os.microcode else ()
    ssh = ("openssh-server",) if profile.os.ssh else ()
    zram = ("systemd-zram-generator",) if profile.os.zram else ()
    packages = tuple(dict.fromkeys((*system.PACKAGES, flavour, *extra, *ssh, *zram, *profile.os.packages)))
    # Debian keeps firmware that has no source apart since 12.
    not_free = any(name.startswith("firmware-") or name.endswith("-microcode") for name in packages)
    return InstallSystem(
        suite=profile.os.suite,
        mirror=profile.os.mirror,
        components=("main", "non-free-firmware") if not_free else ("main",),
        packages=packages,
        remove=(*system.REMOVE, *system.UDEV_RULES),
        reason=f"os: Debian {profile.os.suite}, {profile.os.kernel} kernel",
    )


def _kernel(profile: Profile) -> TrimKernel:
    return TrimKernel(
        modules=kernel.modules(profile.target.arch, profile.target.board),
        required=(*profile.os.modules, *profile.os.initrd_modules),
        firmware=profile.os.firmware,
        configs=kernel.K3S_CONFIGS,
        reason="an allow-list keeps the image small; what k3s needs of the kernel is checked",
    )


def _overlays(profile: Profile, inputs: Inputs) -> list[CopyOverlay]:
    names = {"base": "every image"}
    if profile.debug:
        names["debug"] = "debug: true"
    if profile.os.ssh:
        names["ssh"] = "os.ssh: true"
    names |= dict.fromkeys(profile.os.overlays, "os.overlays")
    return [
        CopyOverlay(name=name, digest=inputs.overlays.get(name, ""), reason=reason)
        for name, reason in names.items()
    ]


def _device_code(inputs: Inputs) -> CopyCode:
    return CopyCode(
        files=tuple(sorted(inputs.code)),
        into=DEVICE_FOLDER,
        digest=hashlib.sha256(canonical(dict(inputs.code))).hexdigest(),
        reason="what runs on the node: first boot, clock, health, status",
    )


def _baked_in(profile: Profile, inputs: Inputs) -> list[Step]:
    """Images, manifests and registries that k3s uses where they lie in /usr; first boot links them."""
    steps: list[Step] = []
    for source in profile.k3s.images:
        # k3s skips an image whose path, size and time it has seen; our times are all the source date's,
        # so the name must change when the content does.
        digest = inputs.files[source]
        path = f"{SHARE}/images/{digest[:12]}-{PurePosixPath(source).name}"
        steps.append(_copy(source, path, digest, "k3s.images"))
    for source in profile.k3s.manifests:
        path = f"{SHARE}/manifests/{PurePosixPath(source).name}"
        steps.append(_copy(source, path, inputs.files[source], "k3s.manifests"))
    if profile.k3s.registries:
        text = yaml.safe_dump(dict(profile.k3s.registries), sort_keys=True)
        steps.append(WriteFile(path=f"{SHARE}/k3s/registries.yaml", text=text, reason="k3s.registries"))
    if profile.k3s.proxy is not None:
        # k3s' unit reads it; containerd, which k3s starts, has it from k3s.
        without = ",".join((*DIRECT, *profile.k3s.no_proxy))
        pairs = {"HTTP_PROXY": profile.k3s.proxy, "HTTPS_PROXY": profile.k3s.proxy, "NO_PROXY": without}
        text = "".join(f"{name}={value}\n" for name, value in pairs.items())
        steps.append(WriteFile(path=f"{SHARE}/k3s/proxy.env", text=text, reason="k3s.proxy"))
    return steps


def _copy(source: str, path: str, digest: str, reason: str) -> CopyFile:
    return CopyFile(source=source, path=path, digest=digest, reason=reason)


def _settings(profile: Profile, inputs: Inputs) -> list[WriteFile]:
    image = {
        "profile": profile.name,
        "image": image_id(profile),
        "version": image_version(profile, inputs.source_date_epoch),
        "built": inputs.source_date_epoch,
        "runtime": profile.k3s.version,
        "cluster": profile.cluster.name,
        "unseeded": str(profile.cluster.unseeded),
        "datastore": str(profile.cluster.datastore.kind),
        "storage": profile.cluster.storage,
        "ssh": profile.os.ssh,
        "debug": profile.debug,
        "ntp": list(profile.os.ntp),
    }
    files = [
        WriteFile(
            path="/usr/lib/k3img/image.json",
            text=json.dumps(image, indent=1, sort_keys=True) + "\n",
            reason="what k3img's code on the node knows of the image",
        )
    ]
    files += [
        WriteFile(
            path=f"{SHARE}/k3s/{role}.yaml",
            text=yaml.safe_dump(image_config(profile, role), sort_keys=True),
            reason=f"k3s options of every {role} of this image",
        )
        for role in Role
    ]
    files += _optional_settings(profile)
    files += [
        WriteFile(
            path="/usr/lib/clock-epoch",
            text="",
            reason="systemd sets no clock earlier than this file's time, the source date",
        ),
        WriteFile(
            path="/usr/lib/tmpfiles.d/00-k3img-timezone.conf",
            text=f"L+ /etc/localtime - - - - ../usr/share/zoneinfo/{profile.os.timezone}\n",
            reason="os.timezone",
        ),
    ]
    return files


def _optional_settings(profile: Profile) -> list[WriteFile]:
    files = []
    if profile.os.ntp:
        files.append(
            WriteFile(
                path="/usr/lib/systemd/timesyncd.conf.d/50-k3img.conf",
                text=f"[Time]\nNTP={' '.join(profile.os.ntp)}\n",
                reason="os.ntp",
            )
        )
    if profile.os.zram:
        files.append(
            WriteFile(
                path="/usr/lib/systemd/zram-generator.conf",
                text="[zram0]\nzram-size = min(ram / 2, 2048)\ncompression-algorithm = zstd\n",
                reason="os.zram",
            )
        )
    return files


def _masks() -> MaskUnits:
    # Also in a debug image: its shells are units of their own, and agetty would fight them for the console.
    return MaskUnits(units=(*system.MASKED, *system.LOGIN_UNITS), reason="no login, nothing computed twice")


def _consoles(target: Target) -> tuple[str, ...]:
    """x86: both are consoles, the last one is /dev/console; a machine without that port has no harm of it.

    ARM's firmware names the serial port itself, in the device tree or ACPI's SPCR, and it differs: a Pi's
    is ttyS1, and the ttyAMA0 of other machines is its Bluetooth (facts: rpi).
    """
    return ("console=ttyS0,115200", "console=tty0") if target.arch is Arch.X86_64 else ()


def _disk(profile: Profile) -> MakeDisk:
    image = profile.image
    return MakeDisk(
        esp=image.esp,
        seed=SEED_SIZE,
        slot=image.slot,
        verity=image.verity,
        compression=image.compression,
        kernel_command_line=(
            "rw",
            *_consoles(profile.target),
            *("systemd.firstboot=off", "panic=10", "systemd.crash_action=reboot", "audit=0", "quiet"),
            # What containers use. Debian's list also has tomoyo and ipe, which are asked about every path,
            # and bpf, for which systemd loads a program at each start.
            "lsm=landlock,lockdown,yama,apparmor",
            # Without it a rotten block ends in an emergency shell that nobody sits at.
            "systemd.verity_usr_options=restart-on-corruption",
        ),
        microcode=profile.os.microcode,
        reason=f"layout of the device, {image.compression} compression"
        + (" (development)" if image.compression is Compression.FAST else ""),
    )
