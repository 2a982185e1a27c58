"""What a build is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.tools.tools_tree import Recipe


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a person asks of a build besides the profile.

    `k3s` is a release file, `k3s_mirror` a folder or URL laid out like the release. `locked` takes exactly
    what the lock file names; `refresh` takes the newest packages, and with `renew_tools` the newest tools
    as well. `out` is the folder of the results. `package_dir` has .deb files of a board's boot firmware.
    """

    out: Path
    k3s: Path | None = None
    k3s_mirror: str | None = None
    locked: bool = False
    refresh: bool = False
    renew_tools: bool = False
    package_dir: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Image:
    """A finished image: its folder and its manifest. `fresh` says whether this call built it."""

    folder: Path
    manifest: Mapping[str, Any]
    fresh: bool

    @property
    def raw(self) -> Path:
        """The raw disk image."""
        return self.folder / str(self.manifest["image"]["raw"])

    @property
    def sha256(self) -> str:
        """Sha256 of the raw image, hex."""
        return str(self.manifest["image"]["sha256"])


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Where a run of mkosi has its packages from: `sources` (deb822), and the folder where it keeps them.

    `as_of` is the date of the lock; empty when it takes the newest.
    """

    sources: str
    kept: Path
    as_of: str = ""


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """Packages of image and initrd, and the recipe of the tools tree (None: the usual one)."""

    image: Packages
    initrd: Packages
    tools: Recipe | None
