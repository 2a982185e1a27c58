"""A profile after loading: complete, frozen, every default filled in. Building never reads YAML.

The fields with a `key(...)` are the profile format itself: its keys (spelled with `-`), their kinds,
defaults and documentation. Reading, type checks, `k3img show` and the JSON schema all follow them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from k3img.node import check
from k3img.node.model import EMPTY, DatastoreKind, Node
from k3img.profile import rules
from k3img.profile.boards import Board, BootPackage
from k3img.profile.kinds import MIB, Choice, Flag, Size, Text
from k3img.profile.special import DatastoreEntry, NodesEntry, OptionsEntry
from k3img.profile.tables import Free, ListOf, MapOf, key, section

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Arch(StrEnum):
    """A processor architecture, spelled as systemd does in partition types and file names."""

    X86_64 = "x86-64"
    ARM64 = "arm64"

    @property
    def debian(self) -> str:
        """Debian's name: `amd64`, `arm64`."""
        return "amd64" if self is Arch.X86_64 else "arm64"


class Suite(StrEnum):
    """The Debian releases that have all that an image needs."""

    TRIXIE = "trixie"
    FORKY = "forky"


class KernelFlavour(StrEnum):
    """Which of Debian's kernels: `generic` for real machines, `cloud` for virtual ones only."""

    GENERIC = "generic"
    CLOUD = "cloud"


class Component(StrEnum):
    """What k3s deploys by itself unless it is disabled."""

    COREDNS = "coredns"
    SERVICELB = "servicelb"
    TRAEFIK = "traefik"
    LOCAL_STORAGE = "local-storage"
    METRICS_SERVER = "metrics-server"
    RUNTIMES = "runtimes"


class Unseeded(StrEnum):
    """What an image does whose seed partition is empty."""

    STANDALONE = "standalone"
    WAIT = "wait"


class Storage(StrEnum):
    """How fast the disks are: `slow` (SD cards, emulation) makes leases and elections patient."""

    FAST = "fast"
    SLOW = "slow"


class Match(StrEnum):
    """By what a machine with the shared seed finds out which node it is."""

    MAC = "mac"
    SERIAL = "serial"


class Compression(StrEnum):
    """How hard /usr is compressed: `fast` for development and CI, `small` for release."""

    FAST = "fast"
    SMALL = "small"


class Format(StrEnum):
    """The files that a build leaves, besides the UKI and the manifest."""

    RAW = "raw"
    RAW_ZST = "raw.zst"


@dataclass(frozen=True, kw_only=True)
class Target:
    """The machines that an image is for.

    `boot_packages`, by name, are not installed: files of theirs go onto the ESP.
    """

    arch: Arch = field(
        default=Arch.X86_64,
        metadata=key(Choice(of=Arch), "The processor's architecture."),
    )
    board: Board = field(
        default=Board.UEFI,
        metadata=key(Choice(of=Board), "How the machine boots: uefi, or rpi4 for a Raspberry Pi 4."),
    )
    boot_packages: Mapping[str, BootPackage] = field(
        default=EMPTY,
        metadata=key(
            MapOf(item=section(BootPackage), key_rule=rules.package),
            "Packages with the board's boot firmware, which may be newer than the suite.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Os:
    """The operating system under k3s.

    `modules` and `initrd_modules` extend the allow-lists of kernel modules: names (`nvme`) or
    folders (`fs/xfs/`). `firmware` lists files or folders below /usr/lib/firmware to keep
    (`rtl_nic/`), from the packages in `packages`. `mirror` is an apt URI; None means the host's own.
    """

    suite: Suite = field(
        default=Suite.TRIXIE,
        metadata=key(Choice(of=Suite), "The Debian release."),
    )
    mirror: str | None = field(
        default=None,
        metadata=key(
            Text(rule=rules.url, pattern=rules.URL),
            "The apt mirror; without it the one that this machine uses.",
        ),
    )
    packages: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.package, pattern=rules.PACKAGE)),
            "Debian packages beyond the core system.",
        ),
    )
    kernel: KernelFlavour = field(
        default=KernelFlavour.GENERIC,
        metadata=key(
            Choice(of=KernelFlavour), "Debian's kernel: generic, or cloud, which has drivers for VMs only."
        ),
    )
    modules: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.module, pattern=rules.MODULE)),
            "Kernel modules beyond k3img's list: names (nvme) or folders (fs/xfs/).",
        ),
    )
    initrd_modules: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.module, pattern=rules.MODULE)),
            "Kernel modules of the initrd, to find the root disk.",
        ),
    )
    firmware: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.firmware, pattern=rules.FIRMWARE)),
            "Files or folders below /usr/lib/firmware to keep, from the packages listed above.",
        ),
    )
    microcode: bool = field(
        default=False,
        metadata=key(Flag(), "Microcode of Intel and AMD processors; adds about 22 MB to the image."),
    )
    timezone: str = field(
        default="Etc/UTC",
        metadata=key(Text(rule=rules.timezone), "The time zone, such as Europe/Berlin."),
    )
    ntp: tuple[str, ...] = field(
        default=(),
        metadata=key(ListOf(item=Text(rule=check.host)), "Time servers; without any, Debian's pool."),
    )
    ssh: bool = field(
        default=False,
        metadata=key(Flag(), "An ssh server for keys only; which keys is in each node's seed."),
    )
    zram: bool = field(
        default=False,
        metadata=key(Flag(), "Compressed swap in memory."),
    )
    overlays: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.overlay, pattern=rules.OVERLAY)),
            "Folders of overlays/ that are copied over the root, in order.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class K3s:
    """k3s and its options: `server` is for servers, `agent` for every node (a server is one as well).

    `images` and `manifests` are files of the project baked into the image.
    """

    version: str = field(
        metadata=key(
            Text(rule=rules.k3s_version, pattern=rules.VERSION), "The release of k3s, such as v1.36.3+k3s1."
        ),
    )
    disable: tuple[str, ...] = field(
        default=(),
        metadata=key(ListOf(item=Choice(of=Component)), "Components that k3s shall not deploy."),
    )
    server: Mapping[str, Any] = field(
        default=EMPTY,
        metadata=key(OptionsEntry(), "k3s options of servers, by their long names without dashes."),
    )
    agent: Mapping[str, Any] = field(
        default=EMPTY,
        metadata=key(OptionsEntry(agent_only=True), "k3s options of every node, servers included."),
    )
    images: tuple[str, ...] = field(
        default=(),
        metadata=key(
            ListOf(item=Text(rule=rules.image_file)), "Archives of container images to put into the image."
        ),
    )
    manifests: tuple[str, ...] = field(
        default=(),
        metadata=key(ListOf(item=Text(rule=rules.manifest_file)), "Manifests that k3s applies at its start."),
    )
    registries: Mapping[str, Any] = field(
        default=EMPTY,
        metadata=key(
            MapOf(item=Free(), key_rule=rules.registries_key), "k3s' registries.yaml: mirrors and configs."
        ),
    )
    proxy: str | None = field(
        default=None,
        metadata=key(
            Text(rule=rules.proxy, pattern=rules.PROXY), "The proxy that images are pulled through."
        ),
    )
    no_proxy: tuple[str, ...] = field(
        default=(),
        metadata=key(ListOf(item=Text(rule=rules.no_proxy)), "Reached without it, besides private networks."),
    )


@dataclass(frozen=True, kw_only=True)
class Datastore:
    """Where servers keep the cluster's state.

    `endpoint` (external only) names the secret, never holds it: `{scheme, file}` or `{scheme, env}`.
    """

    kind: DatastoreKind = DatastoreKind.SQLITE
    endpoint: Mapping[str, str] = EMPTY


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster that nodes of this profile form.

    `match` says how a machine with the agents' shared seed finds its node; None: each node has a seed.
    """

    name: str = field(
        metadata=key(
            Text(rule=check.dns_label, pattern=rules.LABEL), "The cluster's name; without it the profile's."
        ),
    )
    datastore: Datastore = field(
        default_factory=Datastore,
        metadata=key(
            DatastoreEntry(make=Datastore),
            "Where servers keep the state: sqlite, etcd, or an external endpoint.",
        ),
    )
    endpoint: str | None = field(
        default=None,
        metadata=key(
            Text(rule=check.host), "Name or address of the servers; without it nodes are found by mDNS."
        ),
    )
    unseeded: Unseeded = field(
        default=Unseeded.STANDALONE,
        metadata=key(
            Choice(of=Unseeded), "What an image without a seed does: a cluster of its own, or wait."
        ),
    )
    storage: Storage = field(
        default=Storage.FAST,
        metadata=key(Choice(of=Storage), "slow for SD cards and emulation: patient leases and elections."),
    )
    match: Match | None = field(
        default=None,
        metadata=key(Choice(of=Match), "How agents with one shared seed find which node they are."),
    )
    nodes: tuple[Node, ...] = field(
        default=(),
        metadata=key(NodesEntry(), "The nodes by name; without any it is a cluster of one node."),
    )


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The image's outside. `slot` and `verity` are sizes in bytes, frozen for a device's life."""

    version: str | None = field(
        default=None,
        metadata=key(
            Text(pattern=r"[0-9][0-9A-Za-z.~^-]{0,16}", says="a version such as 1.4.2"),
            "The image's version; without it the date of its sources.",
        ),
    )
    slot: int = field(
        default=1024 * MIB,
        metadata=key(Size(low=256 * MIB), "Room for /usr; frozen for a device's life."),
    )
    verity: int = field(
        default=16 * MIB,
        metadata=key(Size(), "Room for the hashes of /usr; frozen for a device's life."),
    )
    esp: int = field(
        default=512 * MIB,
        metadata=key(Size(low=128 * MIB), "Room for the boot loader and two kernels."),
    )
    compression: Compression = field(
        default=Compression.SMALL,
        metadata=key(Choice(of=Compression), "fast for development and CI, small for release."),
    )
    formats: tuple[Format, ...] = field(
        default=(Format.RAW, Format.RAW_ZST),
        metadata=key(ListOf(item=Choice(of=Format)), "The files that a build leaves."),
    )


@dataclass(frozen=True, kw_only=True)
class Update:
    """Reserved for over-the-network updates: the keys are checked, nothing acts on them yet."""

    url: str | None = field(
        default=None,
        metadata=key(Text(rule=rules.url, pattern=rules.URL), "Reserved: where updates will come from."),
    )
    channel: str | None = field(
        default=None,
        metadata=key(
            Text(rule=check.dns_label, pattern=rules.LABEL), "Reserved: which updates, such as stable."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One profile, complete. `purpose` is the first comment line of its file; `file` is where it was read."""

    name: str = field(
        metadata=key(
            Text(rule=rules.profile_name, pattern=rules.NAME),
            "The profile's name: that of its file, and of the image.",
        ),
    )
    purpose: str
    file: Path
    extends: tuple[str, ...] = ()
    target: Target = field(
        default_factory=Target,
        metadata=key(section(Target), "The machines that the image is for."),
    )
    os: Os = field(
        default_factory=Os,
        metadata=key(section(Os), "The operating system under k3s."),
    )
    k3s: K3s = field(
        metadata=key(section(K3s), "k3s and its options."),
    )
    cluster: Cluster = field(
        metadata=key(section(Cluster), "The cluster that the nodes form."),
    )
    image: ImageSpec = field(
        default_factory=ImageSpec,
        metadata=key(section(ImageSpec), "The image's version, sizes and formats."),
    )
    update: Update = field(
        default_factory=Update,
        metadata=key(section(Update), "Reserved for updates over the network."),
    )
    debug: bool = field(
        default=False,
        metadata=key(Flag(), "A root console without a password. Never for machines that people can reach."),
    )
