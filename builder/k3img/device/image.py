"""What the build wrote about this image: `/usr/lib/k3img/image.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k3img.device.place import Place


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """The image's profile and version, when it was built (Unix seconds), and what an unseeded one does."""

    profile: str = "k3img"
    version: str = ""
    built: int = 0
    runtime: str = ""
    cluster: str = ""
    unseeded: str = "standalone"
    datastore: str = "sqlite"
    ssh: bool = False


def load(place: Place) -> ImageInfo:
    """Read it. A field of another type than expected counts as absent: a node must start all the same."""
    try:
        raw = json.loads(place.image.read_text())
    except (OSError, ValueError):
        raw = {}
    if not isinstance(raw, dict):
        raw = {}
    plain = ImageInfo()

    def text(name: str) -> str:
        value = raw.get(name)
        return value if isinstance(value, str) and value else str(getattr(plain, name))

    built = raw.get("built")
    return ImageInfo(
        profile=text("profile"),
        version=text("version"),
        built=built if isinstance(built, int) else 0,
        runtime=text("runtime"),
        cluster=text("cluster") or text("profile"),
        unseeded=text("unseeded"),
        datastore=text("datastore"),
        ssh=raw.get("ssh") is True,
    )
