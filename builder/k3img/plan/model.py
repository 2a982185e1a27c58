"""A plan: everything that a build will do, decided and with its reason, before anything is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from k3img.profile.boards import Board
    from k3img.profile.model import Arch, Compression, Format

T = TypeVar("T")

LAYOUT = 1
"""Number of the disk layout (docs: device). An update refuses an image of another layout."""


@dataclass(frozen=True, kw_only=True)
class FetchRuntime:
    """Get the k3s release file of a version and prove it by its sha256 (None: the release's own list)."""

    version: str
    arch: Arch
    sha256: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnpackRuntime:
    """Take the archive out of the self-extracting release file into a folder of the image."""

    into: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class InstallSystem:
    """Install Debian packages and remove the files that an appliance never reads."""

    suite: str
    mirror: str | None
    components: tuple[str, ...]
    packages: tuple[str, ...]
    remove: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrimKernel:
    """Keep an allow-list of kernel modules and firmware; refuse a kernel that lacks what k3s needs.

    `modules` may be missing from a kernel flavour, `required` may not. `configs` maps a kernel
    option to the module that it makes when it is one.
    """

    modules: tuple[str, ...]
    required: tuple[str, ...]
    firmware: tuple[str, ...]
    configs: tuple[tuple[str, str], ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class BuildInitrd:
    """Build the initrd from the same Debian suite; the kernel's modules are added to it by the UKI step.

    Of its programs and udev rules only `programs` and `rules` stay, of its libraries what those need.
    """

    suite: str
    mirror: str | None
    packages: tuple[str, ...]
    remove: tuple[str, ...]
    programs: tuple[str, ...]
    rules: tuple[str, ...]
    modules: tuple[str, ...]
    overlay: str
    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BootPackage:
    """A Debian package that files are taken from, of `at_least` this version, from one of these suites."""

    name: str
    at_least: str
    suites: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BootFirmware:
    """Put a board's boot firmware onto the ESP.

    `files` are (package, glob in it, name on the ESP or '' for its own); `device_trees` are globs below the
    kernel's device trees, for the ESP's root; `texts` are files of ours by name.
    """

    packages: tuple[BootPackage, ...]
    files: tuple[tuple[str, str, str], ...]
    device_trees: tuple[str, ...]
    texts: tuple[tuple[str, str], ...]
    mirror: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class CopyOverlay:
    """Copy a folder of `overlays/` over the root. `digest` is the sha256 of its names, modes and contents."""

    name: str
    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CopyFile:
    """Copy one file of the project into the image."""

    source: str
    path: str
    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CopyCode:
    """Copy k3img's own code for the node into the image: `files` below the package, byte-compiled later."""

    files: tuple[str, ...]
    into: str
    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WriteFile:
    """Write one small text file of the image."""

    path: str
    text: str
    reason: str
    mode: int = 0o644


@dataclass(frozen=True, kw_only=True)
class MaskUnits:
    """Turn systemd units off for good: on an immutable /usr they only cost time."""

    units: tuple[str, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class MakeDisk:
    """Pack /usr as erofs with dm-verity, kernel and initrd as a UKI, lay out the disk. Sizes in bytes."""

    esp: int
    seed: int
    slot: int
    verity: int
    compression: Compression
    kernel_command_line: tuple[str, ...]
    microcode: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Compress, hash and describe the results, and put them in place by rename."""

    formats: tuple[Format, ...]
    reason: str


Step: TypeAlias = (
    FetchRuntime
    | UnpackRuntime
    | BuildInitrd
    | InstallSystem
    | TrimKernel
    | BootFirmware
    | CopyOverlay
    | CopyFile
    | CopyCode
    | WriteFile
    | MaskUnits
    | MakeDisk
    | Publish
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a build of one profile will do.

    `name` is the ImageId, `version` the ImageVersion. `source_date_epoch` is in seconds UTC. `builder`
    is a digest of the code that carries the plan out, `lock` of the lock file ('' without one): when
    either changes, the same profile gives another image.
    """

    name: str
    version: str
    arch: Arch
    board: Board
    source_date_epoch: int
    builder: str
    lock: str
    debug: bool
    steps: tuple[Step, ...]

    @property
    def digest(self) -> str:
        """Sha256 of the canonical JSON: plans of one digest make one image, given the same packages."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    @property
    def recipe(self) -> str:
        """The digest without what comes from the lock: the same before and after `k3img lock`."""
        steps = tuple(
            dataclasses.replace(step, sha256=None, reason="") if isinstance(step, FetchRuntime) else step
            for step in self.steps
        )
        return dataclasses.replace(self, lock="", steps=steps).digest

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON types; each step names its kind under `step`."""
        head = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "steps"}
        steps = [{"step": type(step).__name__, **dataclasses.asdict(step)} for step in self.steps]
        loaded: dict[str, Any] = json.loads(json.dumps({**head, "layout": LAYOUT, "steps": steps}))
        return loaded

    def one(self, kind: type[T]) -> T:
        """The only step of a kind."""
        (step,) = self.all(kind)
        return step

    def all(self, kind: type[T]) -> tuple[T, ...]:
        """All steps of a kind, in order."""
        return tuple(step for step in self.steps if isinstance(step, kind))


def canonical(value: object) -> bytes:
    """JSON with sorted keys and no spaces: the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
