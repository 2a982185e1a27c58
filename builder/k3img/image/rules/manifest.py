"""Rules about what a build wrote beside the image, `manifest.json`: it is of this image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.image import gpt
from k3img.image.released import LAYOUT
from k3img.image.rules.model import disk_rule, lines, usr_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened

PACKAGES = "lib/k3img/packages"
"""Where /usr names the packages that it was made of: name, version and architecture on each line."""


def manifest(image: Opened) -> Iterator[str]:
    """Layout, architecture, partitions and hash are those that manifest.json names, if one lies there."""
    if image.manifest is None:
        return
    found = {
        "layout": LAYOUT,
        "arch": image.arch,
        "usrhash": gpt.usrhash(image.partitions),
        "partitions": gpt.rows(image.partitions),
    }
    for name, value in found.items():
        if (wanted := image.manifest.get(name)) != value:
            yield f"manifest.json has {name} {wanted}, the image {value}"


def packages(image: Opened) -> Iterator[str]:
    """/usr names its packages; they are those of manifest.json, if one lies there."""
    there = {tuple(line.split()) for line in lines(image.usr / PACKAGES)}
    if not there:
        yield f"/usr/{PACKAGES} names no package"
    if image.manifest is None:
        return
    rows = image.manifest.get("packages", {}).get("image", [])
    wanted = {(row["name"], row["version"], row["architecture"]) for row in rows}
    for name, *about in sorted(there - wanted):
        yield f"manifest.json does not have {name} {' '.join(about)}"
    for name, version, arch in sorted(wanted - there):
        yield f"/usr/{PACKAGES} does not have {name} {version} {arch}"


RULES = (
    disk_rule(
        "manifest", manifest, "Beside another's manifest an image is flashed and reported as that one."
    ),
    usr_rule(
        "packages", packages, "Which nodes have the vulnerable version? A list that is not true says none."
    ),
)
