"""`manifest.json` and `SHA256SUMS`: what an image holds, how big each part is, and what it was made from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from k3img.build.model import Image
from k3img.errors import BuildError
from k3img.image import erofs, gpt
from k3img.plan.model import LAYOUT, FetchRuntime, MakeDisk, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k3img.runtime.release import Artifact


def describe(plan: Plan, raw: Path, artifact: Artifact, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest without the files' hashes. Raises `BuildError` for a /usr too big for its slot."""
    partitions = gpt.read(raw)
    data, verity = gpt.usr(partitions)
    used = erofs.used_bytes(raw, data.start)
    check_slot(used, plan.one(MakeDisk).slot)
    return {
        "format": 1,
        "profile": plan.name,
        "version": plan.version,
        "arch": str(plan.arch),
        "board": str(plan.board),
        "debug": plan.debug,
        "layout": LAYOUT,
        "slot": {"size": data.size, "verity": verity.size, "used": used},
        "esp": next(part.size for part in partitions if part.kind == "esp"),
        "usrhash": gpt.usrhash(partitions),
        "partitions": gpt.rows(partitions),
        "plan_digest": plan.digest,
        "recipe": plan.recipe,
        "source_date_epoch": plan.source_date_epoch,
        "runtime": {
            "version": artifact.version,
            "standin": artifact.standin,
            "sha256": artifact.sha256,
            "source": artifact.source,
            "wanted": plan.one(FetchRuntime).version,
        },
        **facts,
    }


def check_slot(used: int, slot: int) -> None:
    """Raise `BuildError` when `used` bytes of /usr leave no room for an update in a slot of `slot` bytes."""
    if used > gpt.FULL * slot:
        raise BuildError(
            f"/usr is {used / 1e6:.0f} MB, more than {gpt.FULL:.0%} of its slot of {slot / 1e6:.0f} MB",
            hint="Take packages, images or modules out of the profile, or give a bigger image.slot; "
            "a device's slots never change, so leave room.",
        )


def sums(hashes: Mapping[str, str]) -> str:
    """The text of SHA256SUMS, as sha256sum writes and checks it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))


def load(folder: Path) -> Image | None:
    """The image in a folder, or None when there is none or not all of it is there."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        complete = all((folder / name).stat().st_size == item["size"] for name, item in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Image(folder=folder, manifest=manifest, fresh=False) if complete else None
