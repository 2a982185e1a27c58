"""Commands about images: `plan`, `build`, `size`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from k3img.build import manifest
from k3img.build.model import Image, Request
from k3img.build.run import build as run_build
from k3img.cli.common import (
    ends_in_order,
    json_option,
    load_profile,
    profile_file,
    profile_option,
    set_option,
    tree_option,
)
from k3img.errors import UsageError
from k3img.plan import inputs
from k3img.plan.make import image_id, make
from k3img.plan.text import as_text
from k3img.runtime import lock as locks
from k3img.runtime import release
from k3img.tools.source_date import source_date

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k3img.plan.model import Plan
    from k3img.runtime.lock import Lock
    from k3img.tree import Tree

Overrides = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan with the lock that went into it."""

    plan: Plan
    lock: Lock | None


def planned(
    tree: Tree, name: str, overrides: Overrides, *, k3s: Path | None = None, locked: bool = False
) -> Planned:
    """The plan of a profile; the version of a `--k3s` file replaces the profile's.

    Raises `ProfileError`, `UsageError`, `BuildError`; the last also when `locked` and there is no lock.
    """
    profile = load_profile(tree, name, overrides).profile
    if k3s is not None and k3s.is_file():
        version = release.version_in(k3s, profile.k3s.version)
        if version is not None and version != profile.k3s.version:
            overrides = (*overrides, ("k3s.version", version))
            profile = load_profile(tree, name, overrides).profile
    path = locks.path_of(profile_file(tree, name))
    lock = locks.required(path, name) if locked else locks.read(path)
    runtime = lock.k3s if lock and lock.k3s and lock.k3s.version == profile.k3s.version else None
    known = runtime.files.get(profile.target.arch.debian) if runtime else None
    facts = inputs.gather(
        tree,
        profile,
        source_date_epoch=source_date(tree, inputs.sources(tree, profile)),
        lock=lock.digest if lock else "",
        runtime_sha256=known.sha256 if known else None,
    )
    return Planned(plan=make(profile, facts), lock=lock)


def image_folder(tree: Tree, name: str, overrides: Overrides = (), out: Path | None = None) -> Path:
    """Where a profile's image lies: `--out`, else `out/NAME/`."""
    return out or tree.out / image_id(load_profile(tree, name, overrides).profile)


def built_image(folder: Path, name: str) -> Image:
    """The finished image in a folder. Raises `UsageError` that says how to build it."""
    if (image := manifest.load(folder)) is None:
        raise UsageError(
            f"there is no finished image in {folder}", hint=f"Build it: k3img build --profile {name}"
        )
    return image


@click.command()
@tree_option
@set_option
@json_option
@click.option("--digest", is_flag=True, help="Print only the plan's digest, for cache keys.")
@click.argument("profile")
def plan(tree: Tree, overrides: Overrides, profile: str, as_json: bool, digest: bool) -> None:
    """Say what a build would do, every step with its reason."""
    made = planned(tree, profile, overrides).plan
    if digest:
        click.echo(made.digest)
    elif as_json:
        click.echo(json.dumps({**made.to_json(), "digest": made.digest}, indent=1))
    else:
        click.echo(as_text(made))


@click.command()
@tree_option
@profile_option
@set_option
@json_option
@click.option(
    "--k3s",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take k3s from this file of a release.",
)
@click.option("--k3s-mirror", metavar="DIR|URL", help="Take k3s from here; laid out like the release.")
@click.option("--locked", is_flag=True, help="Take exactly what the lock file names, nothing newer.")
@click.option("--refresh", is_flag=True, help="Take the newest packages, also when nothing else changed.")
@click.option(
    "--package-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Take a board's boot firmware from .deb files in here.",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of the results [out/PROFILE]."
)
def build(
    tree: Tree,
    profile: str,
    overrides: Overrides,
    as_json: bool,
    k3s: Path | None,
    k3s_mirror: str | None,
    locked: bool,
    refresh: bool,
    package_dir: Path | None,
    out: Path | None,
) -> None:
    """Build a profile's image into out/PROFILE/."""
    if locked and refresh:
        raise UsageError("--locked takes what the lock names, --refresh the newest: only one of them")
    made = planned(tree, profile, overrides, k3s=k3s, locked=locked)
    request = Request(
        out=(out or tree.out / made.plan.name).absolute(),
        k3s=k3s,
        k3s_mirror=k3s_mirror,
        locked=locked,
        refresh=refresh,
        package_dir=package_dir,
    )
    with ends_in_order():
        image = run_build(made.plan, request, tree=tree, lock=made.lock)
    if as_json:
        click.echo(json.dumps({**image.manifest, "folder": str(image.folder), "fresh": image.fresh}))
    else:
        click.echo(summary(image, profile))


def summary(image: Image, profile: str) -> str:
    """What a person wants to know of a build that ended well."""
    about = image.manifest
    runtime = about["runtime"]
    kind = " (the stand-in for tests, not k3s)" if runtime["standin"] else ""
    lines = [
        f"{image.raw.stem}: {'built' if image.fresh else 'nothing has changed'}, "
        f"packages as of {about['packages_as_of']}",
        f"  k3s      {runtime['version']}{kind}",
        f"  /usr     {about['slot']['used'] / 1e6:.0f} MB of a slot of {about['slot']['size'] / 1e6:.0f} MB",
        *(f"  {item['size'] / 1e6:8.1f} MB  {image.folder / name}" for name, item in about["files"].items()),
        f"  sha256 of the raw image: {image.sha256}",
        f"Prove it:  k3img verify --profile {profile}",
    ]
    if not image.fresh:
        lines.append("Newer packages:  add --refresh")
    return "\n".join(lines)


@click.command()
@tree_option
@json_option
@click.argument("profile")
def size(tree: Tree, profile: str, as_json: bool) -> None:
    """Show what each part of a built image weighs, as a tree."""
    image = built_image(image_folder(tree, profile), profile)
    if as_json:
        click.echo(json.dumps(image.manifest["sizes"] | {"slot": image.manifest["slot"]}))
    else:
        click.echo("\n".join(size_tree(image.manifest)))


def size_tree(about: Mapping[str, Any]) -> Sequence[str]:
    """Lines of the tree: files first, then /usr unpacked, branch by branch, biggest first."""
    usr: dict[str, int] = about["sizes"]["usr"]
    total = sum(usr.values())
    lines = [f"{about['profile']} {about['version']}", "files"]
    lines += [f"  {item['size'] / 1e6:8.1f} MB  {name}" for name, item in about["files"].items()]
    lines.append(f"  {about['sizes']['initrd'] / 1e6:8.1f} MB  of the UKI: initrd without kernel modules")
    used = about["slot"]["used"]
    lines.append(f"/usr: {total / 1e6:.0f} MB of files, packed to {used / 1e6:.0f} MB ({used / total:.0%})")
    branches: dict[str, int] = {}
    for name, count in usr.items():
        branch = "/".join(name.split("/")[:2])
        branches[branch] = branches.get(branch, 0) + count
    for branch, count in sorted(branches.items(), key=lambda item: -item[1]):
        if count < 100_000:
            continue
        lines.append(f"  {count / 1e6:8.1f} MB  {branch}")
        leaves = [
            (name, part) for name, part in usr.items() if name.startswith(f"{branch}/") and part > 100_000
        ]
        lines += [
            f"    {part / 1e6:8.1f} MB  {name.removeprefix(branch + '/')}"
            for name, part in sorted(leaves, key=lambda item: -item[1])
            if part > 100_000
        ]
    return lines


COMMANDS: tuple[click.Command, ...] = (plan, build, size)
