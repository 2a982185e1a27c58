"""What goes wrong while an image is built: a clear error, the right exit code, and nothing left over."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import TYPE_CHECKING

import pytest
from tests.build.conftest import PROFILE, SLOW, Project, needs_root

from k3img import proc

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

CLOSED_TO_ROOT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Takes from root what lets it read everything."""

NO_NETWORK = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-current-user", "--net")


def published(project: Project) -> dict[str, int]:
    """Names and inodes in out/: what must not change when a build fails."""
    return {path.name: path.stat().st_ino for path in project.out.iterdir()}


def test_no_network_and_nothing_in_the_cache(fresh: Project) -> None:
    ended = fresh.build(within=NO_NETWORK)
    assert ended.status == 4
    assert "package lists cannot be fetched from the mirror" in ended.said
    assert "Traceback" not in ended.said
    assert not fresh.out.exists()
    assert fresh.leftovers() == []


@needs_root
def test_no_network_after_set_up(fresh: Project, built: Project) -> None:
    fresh.cache.mkdir()
    proc.run(["cp", "-al", built.cache / "tools", fresh.cache])
    ended = fresh.build(within=NO_NETWORK)
    assert ended.status == 4
    assert "mkosi could not build the initrd" in ended.said
    assert "check the network" in ended.said
    assert not fresh.out.exists()
    assert not list((fresh.cache / "initrd").glob("[!.]*"))
    assert fresh.leftovers() == []


def test_a_missing_program(fresh: Project, tmp_path: Path) -> None:
    ended = fresh.build(path=str(tmp_path / "nothing"))
    assert ended.status == 3
    assert "apt-get" in ended.said
    assert not fresh.out.exists()


def test_a_profile_that_is_wrong(fresh: Project) -> None:
    ended = fresh.build("--set", "os.pakages=nano")
    assert ended.status == 2
    assert "packages" in ended.said


@pytest.mark.parametrize("name", ["file", "folder"])
def test_an_overlay_that_cannot_be_read(name: str, fresh: Project) -> None:
    path = fresh.root / "overlays/base/usr/closed"
    path.mkdir()
    (path / "file").touch()
    closed = path / "file" if name == "file" else path
    closed.chmod(0)
    ended = fresh.build(within=CLOSED_TO_ROOT)
    closed.chmod(0o755)
    assert ended.status == 4
    assert f"{closed}: Permission denied" in ended.said


def test_a_wrong_hash_in_the_lock(built: Project) -> None:
    text = built.lock.read_text()
    before = published(built)
    try:
        first = re.search(r"name: (\S+), version: \S+, arch: \w+, sha256: (\w{64})", text)
        assert first is not None
        built.lock.write_text(text.replace(first[2], "ab" * 32))
        ended = built.run("build", "--locked")
        assert ended.status == 4
        assert f"{first[1]} " in ended.said
        assert first[2] in ended.said, "what the mirror has now"
        assert "Building" not in ended.said, "it stops before mkosi"
        built.lock.write_text(re.sub(r"(amd64: {file: k3s, sha256: )\w{64}", r"\g<1>" + "ab" * 32, text))
        ended = built.build("--locked")
        assert ended.status == 4
        assert "has the wrong sha256" in ended.said
    finally:
        built.lock.write_text(text)
    assert published(built) == before


def test_a_package_that_is_not_locked(built: Project) -> None:
    ended = built.run("build", "--locked", "--set", "os.packages.append=[nano]")
    if ended.status == 2:  # a profile's list is given whole
        ended = built.run("build", "--locked", "--set", "os.packages=[nano]")
    assert ended.status == 4
    assert "lacks nano for the image" in ended.said
    assert "Building" not in ended.said


def test_interrupted_and_two_at_once(built: Project) -> None:
    before = published(built)
    with ThreadPoolExecutor() as pool:
        within = ("timeout", "--preserve-status", "--signal=INT", "15")
        first = pool.submit(built.build, *SLOW, within=within)
        sleep(7)
        second = built.build(*SLOW)
        ended = first.result()
    assert second.status == 4
    assert f"another build of {PROFILE} is running" in second.said
    assert ended.status == 130
    assert "interrupted" in ended.said
    assert published(built) == before
    assert built.leftovers() == []


def test_ended_by_sigterm(built: Project) -> None:
    before = published(built)
    ended = built.build(*SLOW, within=("timeout", "--preserve-status", "15"))
    assert ended.status == 143
    assert published(built) == before
    assert built.leftovers() == []


@needs_root
@pytest.mark.parametrize("where", ["out", "work"])
def test_a_full_disk(where: str, built: Project) -> None:
    """`out` is another disk with little room; `work`, in the cache, is where mkosi works."""
    folder = built.root / "small-out" if where == "out" else built.cache / "work"
    folder.mkdir(exist_ok=True)
    before = published(built)
    script = f"mount -t tmpfs -o size=40m small '{folder}' && exec \"$@\""
    more = ("--out", str(folder)) if where == "out" else SLOW
    ended = built.build(*more, within=("unshare", "--mount", "sh", "-c", script, "-"))
    assert ended.status == 4, ended.said
    assert "No space left on device" in ended.said or "Disk quota" in ended.said
    assert "Free some space" in ended.said or "free some space" in ended.said
    assert published(built) == before
    assert built.leftovers() == []
    assert not any(folder.iterdir()) or where == "work"


# Last: it takes longest.
def test_a_locked_build_has_the_same_packages(built: Project, tmp_path: Path) -> None:
    """Without a network when it can be taken away: every locked package is in the cache by now."""
    import json

    newest = json.loads((built.out / "manifest.json").read_text())
    within = NO_NETWORK if os.geteuid() == 0 else ()
    ended = built.build("--locked", "--out", str(tmp_path / "out"), within=within)
    assert ended.status == 0, ended.said
    locked = json.loads((tmp_path / "out/manifest.json").read_text())
    assert locked["packages"] == newest["packages"]
    assert locked["locked"] is True
    assert newest["locked"] is False
    assert locked["packages_as_of"] in built.lock.read_text()
    assert locked["image"]["sha256"] == newest["image"]["sha256"], "the same bytes: builds can be compared"
