"""Commands about what a build is pinned to: `fetch`, `lock`."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k3img.build import firmware, manifest, packages
from k3img.build.model import Request
from k3img.build.run import build as run_build
from k3img.cli.build import planned
from k3img.cli.common import (
    ends_in_order,
    load_profile,
    profile_file,
    profile_option,
    set_option,
    shown,
    tree_option,
)
from k3img.log import line, warning
from k3img.plan.model import FetchRuntime
from k3img.runtime import lock as locks
from k3img.runtime import release
from k3img.runtime.lock import Lock
from k3img.runtime.lockdiff import changes
from k3img.tree import make_folder

if TYPE_CHECKING:
    from k3img.build.model import Image
    from k3img.cli.build import Overrides
    from k3img.plan.model import Plan
    from k3img.runtime.release import Artifact
    from k3img.tree import Tree

mirror_option = click.option(
    "--k3s-mirror", metavar="DIR|URL", help="Take k3s from here; laid out like the release."
)


@click.command()
@tree_option
@profile_option
@set_option
@click.option("--locked", is_flag=True, help="Take what the lock file names and nothing else.")
@click.option(
    "--k3s",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take k3s from this file of a release.",
)
@mirror_option
def fetch(
    tree: Tree, profile: str, overrides: Overrides, locked: bool, k3s: Path | None, k3s_mirror: str | None
) -> None:
    """Get the profile's k3s into the cache and print its path.

    For CI caches, and for builders without a network: what the lock names is then found in the cache.
    """
    about = load_profile(tree, profile, overrides).profile
    path = locks.path_of(profile_file(tree, profile))
    lock = locks.required(path, profile) if locked else locks.read(path)
    artifact = release.resolve(
        about.k3s.version,
        about.target.arch,
        file=k3s,
        mirror=k3s_mirror,
        lock=lock.k3s if lock else None,
        cache=tree.cache,
        locked=locked,
    )
    click.echo(release.keep(artifact, tree.cache))


@click.command()
@tree_option
@profile_option
@set_option
@mirror_option
@click.option("--update", is_flag=True, help="Build with the newest packages first, and lock those.")
def lock(tree: Tree, profile: str, overrides: Overrides, k3s_mirror: str | None, update: bool) -> None:
    """Pin what the newest build was made of in profiles/PROFILE.lock.yaml.

    That is k3s by the hash in the release's own list, and every Debian package of image, initrd and
    tools. Without a finished image that fits the profile it is built first.
    """
    path = locks.path_of(profile_file(tree, profile))
    made = planned(tree, profile, overrides)
    old = made.lock
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    artifact = _runtime(made.plan, old, tree, k3s_mirror)
    new = (old or Lock(made=today)).with_k3s(artifact, made=today)
    image = _current(made.plan, artifact, tree) if not update else None
    if image is None:
        line("building with the newest packages" if update else "no image that fits the profile: building it")
        out = tree.out / made.plan.name
        request = Request(out=out, k3s_mirror=k3s_mirror, refresh=update, renew_tools=update)
        with ends_in_order():
            image = run_build(made.plan, request, tree=tree, lock=old)
    log = make_folder(tree.cache / "logs") / "lock.log"
    pins = packages.pin(image.manifest, made.plan, tree, log)
    if boot := firmware.pin(image.manifest, made.plan, tree, log):
        pins[firmware.SECTION] = boot
    for section, files in pins.items():
        new = new.with_packages(section, files, made=today)
    if artifact.standin:
        warning(f"{path.name} pins the stand-in for tests, which is not k3s")
    if new != old:
        locks.write(new, path)
    said = "unchanged" if new == old else "written"
    click.echo("\n".join([f"{shown(path)}: {said}, as of {new.made}", *changes(old, new)]))


def _runtime(plan: Plan, old: Lock | None, tree: Tree, mirror: str | None) -> Artifact:
    """k3s with the hash that the lock has already, else that of the release's own list.

    A file of another place with the same version is an error, never a new hash.
    """
    wanted = plan.one(FetchRuntime)
    known = old.k3s if old and mirror is None else None
    return release.resolve(wanted.version, wanted.arch, mirror=mirror, lock=known, cache=tree.cache)


def _current(plan: Plan, artifact: Artifact, tree: Tree) -> Image | None:
    """The finished image, if it is what this profile and this k3s give but for the lock."""
    image = manifest.load(tree.out / plan.name)
    if image is None or image.manifest.get("recipe") != plan.recipe:
        return None
    if image.manifest["runtime"]["sha256"] != artifact.sha256:
        return None
    line(f"taking the image in {shown(image.folder)}, packages as of {image.manifest['packages_as_of']}")
    return dataclasses.replace(image, fresh=False)


COMMANDS: tuple[click.Command, ...] = (fetch, lock)
