"""An image as a build left it: `out/PROFILE/` with its manifest and checksums."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k3img.errors import UsageError, VerifyError
from k3img.log import progress, step
from k3img.profile.boards import Board
from k3img.profile.model import Arch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAYOUT = 1
"""The disk layout that we know (see device.md)."""


@dataclass(frozen=True, kw_only=True)
class ReleasedImage:
    """One image. `sha256` is what SHA256SUMS says of `raw`; whether that is true, `measure` finds out."""

    folder: Path
    profile: str
    version: str
    arch: Arch
    board: Board
    raw: Path
    sha256: str
    runtime: str
    standin: bool
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As people name it: profile and version."""
        return f"{self.profile} {self.version}"


def load(folder: Path, profile: str) -> ReleasedImage:
    """The image of a profile. Raises `UsageError` when there is none, or it is not as a build leaves it."""
    build = f"Build it: k3img build --profile {profile}"
    if not (folder / "manifest.json").exists():
        raise UsageError(f"there is no image of {profile}: no manifest.json in {folder}", hint=build)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        raw = folder / manifest["image"]["raw"]
        runtime = manifest["runtime"]
        image = ReleasedImage(
            folder=folder,
            profile=str(manifest["profile"]),
            version=str(manifest["version"]),
            arch=Arch(manifest["arch"]),
            board=Board(manifest["board"]),
            raw=raw,
            sha256=_sums(folder)[raw.name],
            runtime=str(runtime["version"]),
            standin=bool(runtime["standin"]),
            manifest=manifest,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{folder} is not as a build leaves it ({what})", hint=build) from error
    if manifest.get("layout") != LAYOUT:
        raise UsageError(f"{folder} has layout {manifest.get('layout')!r}, we know {LAYOUT}", hint=build)
    if not raw.exists():
        raise UsageError(f"the image {raw} is missing", hint=build)
    return image


def measure(image: ReleasedImage) -> str:
    """The image file's sha256 now. Raises `VerifyError` when SHA256SUMS says another."""
    digest = hashlib.sha256()
    total = image.raw.stat().st_size
    with (
        step("Checking the image's sha256"),
        image.raw.open("rb") as file,
        progress("sha256", total) as advance,
    ):
        while block := file.read(1 << 22):
            digest.update(block)
            advance(len(block))
    found = digest.hexdigest()
    if found != image.sha256:
        raise VerifyError(
            f"{image.raw} is not the image that was built",
            details=f"SHA256SUMS: {image.sha256}\nthe file:   {found}",
            hint=f"Build it again: k3img build --profile {image.profile}",
        )
    return found


def _sums(folder: Path) -> dict[str, str]:
    """File name to sha256, of a file in sha256sum's format."""
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    return {name.strip().lstrip("*"): digest for digest, _, name in (line.partition(" ") for line in lines)}
