"""A profile after loading: complete, frozen, every default filled in. Building never reads YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from k3img.node.model import EMPTY, DatastoreKind, Node

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20


class Arch(StrEnum):
    """A processor architecture, spelled as systemd does in partition types and file names."""

    X86_64 = "x86-64"
    ARM64 = "arm64"

    @property
    def debian(self) -> str:
        """Debian's name: `amd64`, `arm64`."""
        return "amd64" if self is Arch.X86_64 else "arm64"


class Board(StrEnum):
    """How the machine boots."""

    UEFI = "uefi"
    RPI4 = "rpi4"


class KernelFlavour(StrEnum):
    """Which of Debian's kernels: `generic` for real machines, `cloud` for virtual ones only."""

    GENERIC = "generic"
    CLOUD = "cloud"


class Unseeded(StrEnum):
    """What an image does whose seed partition is empty."""

    STANDALONE = "standalone"
    WAIT = "wait"


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
    """The machines that an image is for."""

    arch: Arch = Arch.X86_64
    board: Board = Board.UEFI


@dataclass(frozen=True, kw_only=True)
class Os:
    """The operating system under k3s.

    `modules` and `initrd_modules` extend the allow-lists of kernel modules: names (`nvme`) or
    folders (`fs/xfs/`). `firmware` lists files or folders below /usr/lib/firmware to keep
    (`rtl_nic/`), from the packages in `packages`. `mirror` is an apt URI; None means the host's own.
    """

    suite: str = "trixie"
    mirror: str | None = None
    packages: tuple[str, ...] = ()
    kernel: KernelFlavour = KernelFlavour.GENERIC
    modules: tuple[str, ...] = ()
    initrd_modules: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    microcode: bool = False
    timezone: str = "Etc/UTC"
    ntp: tuple[str, ...] = ()
    ssh: bool = False
    zram: bool = False
    overlays: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class K3s:
    """k3s and its options: `server` is for servers, `agent` for every node (a server is one as well).

    `images` and `manifests` are files of the project baked into the image.
    """

    version: str
    disable: tuple[str, ...] = ()
    server: Mapping[str, Any] = EMPTY
    agent: Mapping[str, Any] = EMPTY
    images: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()
    registries: Mapping[str, Any] = EMPTY


@dataclass(frozen=True, kw_only=True)
class Datastore:
    """Where servers keep the cluster's state.

    `endpoint` (external only) names the secret, never holds it: `{scheme, file}` or `{scheme, env}`.
    """

    kind: DatastoreKind = DatastoreKind.SQLITE
    endpoint: Mapping[str, str] = EMPTY


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster that nodes of this profile form. `storage` is `fast` or `slow` (SD cards, emulation)."""

    name: str
    datastore: Datastore = field(default_factory=Datastore)
    endpoint: str | None = None
    unseeded: Unseeded = Unseeded.STANDALONE
    storage: str = "fast"
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """The image's outside. `slot` and `verity` are sizes in bytes, frozen for a device's life."""

    version: str | None = None
    slot: int = 1024 * MIB
    verity: int = 16 * MIB
    esp: int = 512 * MIB
    compression: Compression = Compression.SMALL
    formats: tuple[Format, ...] = (Format.RAW, Format.RAW_ZST)


@dataclass(frozen=True, kw_only=True)
class Update:
    """Reserved for over-the-network updates: the keys are checked, nothing acts on them yet."""

    url: str | None = None
    channel: str | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One profile, complete. `purpose` is the first comment line of its file; `file` is where it was read."""

    name: str
    purpose: str
    file: Path
    extends: tuple[str, ...] = ()
    target: Target = field(default_factory=Target)
    os: Os = field(default_factory=Os)
    k3s: K3s
    cluster: Cluster
    image: ImageSpec = field(default_factory=ImageSpec)
    update: Update = field(default_factory=Update)
    debug: bool = False
