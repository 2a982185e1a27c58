"""Locked packages: what is fetched, what is refused before mkosi starts, and what a lock takes of a build."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from k3img.build import packages
from k3img.build.workspace import Workspace
from k3img.errors import BuildError, ProgramError
from k3img.plan.model import BuildInitrd, InstallSystem, Plan
from k3img.profile.boards import Board
from k3img.profile.model import Arch
from k3img.runtime.lock import Lock
from k3img.tools import tools_tree
from k3img.tools.apt import PackageFile, PackageRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.tree import Tree

DAY = "2026-11-25"


def deb(name: str, version: str = "1:1.0-1", arch: str = "amd64", extra: str = "") -> bytes:
    """A Debian package that holds nothing."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\n{extra}".encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("./control")
        info.size = len(control)
        tar.addfile(info, io.BytesIO(control))
    members = {"debian-binary": b"2.0\n", "control.tar": out.getvalue()}
    ar = b"!<arch>\n"
    for member, data in members.items():
        ar += f"{member:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}".encode() + b"`\n" + data
        ar += b"\n" * (len(data) % 2)
    return ar


def record(name: str, data: bytes, version: str = "1:1.0-1", arch: str = "amd64") -> PackageRecord:
    return PackageRecord(
        name=name,
        version=version,
        arch=arch,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        filename=f"pool/{name}_{arch}.deb",
        uri="http://mirror",
        suite="trixie",
        stanza="",
    )


@dataclass
class Mirror:
    """Stands in for `PrivateApt`; `files` are in the pool by sha256."""

    files: dict[str, bytes] = field(default_factory=dict)
    records: list[PackageRecord] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    broken: bool = False

    def add(self, name: str, version: str = "1:1.0-1", arch: str = "amd64", extra: str = "") -> PackageFile:
        data = deb(name, version, arch, extra)
        new = record(name, data, version, arch)
        self.files[new.sha256] = data
        self.records.append(new)
        return new.pin

    def __call__(self, root: Path, sources: str, arch: str, *, log: Path | None = None) -> Mirror:
        self.root = root
        return self

    def __enter__(self) -> Mirror:
        self.roots.append(self.root)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self) -> None:
        if self.broken:
            raise ProgramError("apt-get failed", status=100, output="Could not resolve 'mirror'")

    def index(self, names: Collection[str]) -> dict[tuple[str, str, str], PackageRecord]:
        return {(r.name, r.version, r.arch): r for r in self.records if r.name in names}

    def fetch(
        self,
        wanted: Iterable[PackageFile],
        into: Path,
        *,
        advance: Callable[[int], None] = lambda _: None,
        hint: str = "",
    ) -> dict[str, Path]:
        done = {}
        for file in wanted:
            if file.sha256 not in self.files:
                raise BuildError("a locked package is not to be had from the mirror", hint=hint)
            (into / f"{file.sha256}.deb").write_bytes(self.files[file.sha256])
            self.fetched.append(file.name)
            done[file.sha256] = into / f"{file.sha256}.deb"
            advance(1)
        return done


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, fake_program: FakePrograms) -> Mirror:
    fake_program.add("dpkg", "echo amd64")
    there = Mirror()
    monkeypatch.setattr(packages, "PrivateApt", there)
    monkeypatch.setattr(packages, "sources", lambda *args, **options: f"{args} {options}")
    monkeypatch.setattr(tools_tree, "PACKAGES", ("qemu",))
    return there


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    (tmp_path / "work").mkdir()
    return Workspace(root=tmp_path / "work", scratch=tmp_path / "scratch")


def plan(image: tuple[str, ...] = ("systemd",), arch: Arch = Arch.X86_64) -> Plan:
    system = InstallSystem(
        suite="trixie", mirror=None, components=("main",), packages=image, remove=(), reason=""
    )
    initrd = BuildInitrd(
        suite="trixie",
        mirror=None,
        packages=("kmod",),
        remove=(),
        programs=(),
        rules=(),
        modules=(),
        overlay="initrd",
        digest="",
        reason="",
    )
    return Plan(
        name="x86",
        version="1",
        arch=arch,
        board=Board.UEFI,
        source_date_epoch=1_795_000_000,
        builder="",
        lock="",
        debug=False,
        steps=(system, initrd),
    )


def lock_of(mirror: Mirror, **more: PackageFile) -> Lock:
    lock = Lock(made=DAY)
    lock = lock.with_packages("image", [mirror.add("systemd"), mirror.add("tzdata", arch="all")], made=DAY)
    lock = lock.with_packages("initrd", [mirror.add("kmod")], made=DAY)
    return lock.with_packages("tools", [mirror.add("qemu")], made=DAY)


def locked(lock: Lock, tree: Tree, work: Workspace, made: Plan | None = None) -> Any:
    return packages.locked(made or plan(), lock, tree, work, lambda _: None)


def test_apt_gets_the_locked_files_and_no_others(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    supplies = locked(lock, tree, work)
    repository = supplies.image.kept / packages.KEPT / "locked"
    assert {path.name for path in repository.iterdir()} == {
        "systemd_1.0-1_amd64.deb",
        "tzdata_1.0-1_all.deb",
        "Packages",
        "Release",
    }
    assert "URIs: file:/var/cache/apt/archives/locked\n" in supplies.image.sources
    assert supplies.image.as_of == supplies.initrd.as_of == DAY
    assert supplies.image.kept != supplies.initrd.kept
    assert supplies.tools.lock == lock.digest_of("tools")
    assert supplies.tools.package_cache == work.root / "packages/tools"
    assert sorted(mirror.fetched) == ["kmod", "qemu", "systemd", "tzdata"]


def test_other_packages_give_another_tree(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    one = locked(lock, tree, work).image.sources
    newer = lock.with_packages("image", [mirror.add("systemd", "2")], made=DAY)
    work.root.rename(work.root.with_name("old"))
    work.root.mkdir()
    assert locked(newer, tree, work).image.sources != one


def test_what_the_cache_has_is_not_asked_for(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    kept = tree.cache / "packages" / packages.KEPT
    kept.mkdir(parents=True)
    (kept / "systemd_1%3a1.0-1_amd64.deb").write_bytes(deb("systemd"))
    (kept / "tzdata_1%3a1.0-1_all.deb").write_bytes(b"damaged")
    debs = tree.cache / "debs"
    debs.mkdir()
    kmod = lock.packages["initrd"][0]
    (debs / f"{kmod.sha256}.deb").write_bytes(deb("kmod"))
    locked(lock, tree, work)
    assert sorted(mirror.fetched) == ["qemu", "tzdata"]
    assert {path.name.partition(".")[0] for path in debs.glob("*.deb")} == {
        file.sha256 for section in packages.SECTIONS for file in lock.packages[section]
    }


def test_with_all_in_the_cache_nothing_is_asked(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    locked(lock, tree, work)
    work.root.rename(work.root.with_name("old"))
    work.root.mkdir()
    mirror.roots.clear()
    mirror.broken = True
    locked(lock, tree, work)
    assert mirror.roots == []


def test_a_tools_tree_that_is_there_needs_no_packages(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    place = tree.cache / "tools" / tools_tree.Recipe(packages=("qemu",), lock=lock.digest_of("tools")).digest
    place.mkdir(parents=True)
    (place / "manifest.json").write_text('{"suite": "trixie", "packages": {"qemu": "1"}}')
    locked(lock, tree, work)
    assert "qemu" not in mirror.fetched


def test_a_package_that_is_gone(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    mirror.files.pop(lock.packages["initrd"][0].sha256)
    with pytest.raises(BuildError, match="not to be had"):
        locked(lock, tree, work)


def test_no_network_says_how_many_are_missing(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror)
    mirror.broken = True
    with pytest.raises(BuildError, match="2 locked packages are not in the cache") as caught:
        locked(lock, tree, work)
    assert "Could not resolve" in caught.value.details


def test_a_profile_that_asks_for_more(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    with pytest.raises(BuildError, match="lacks nano for the image") as caught:
        locked(lock_of(mirror), tree, work, plan(image=("systemd", "nano")))
    assert "k3img lock" in caught.value.hint


def test_a_name_that_another_package_provides(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    mawk = mirror.add("mawk", extra="Provides: awk (= 2), pattern\n")
    lock = lock_of(mirror)
    lock = lock.with_packages("image", [*lock.packages["image"], mawk], made=DAY)
    locked(lock, tree, work, plan(image=("systemd", "awk", "pattern")))


def test_a_lock_for_another_machine(mirror: Mirror, tree: Tree, work: Workspace) -> None:
    with pytest.raises(BuildError, match="packages of amd64 for the image; this build needs arm64"):
        locked(lock_of(mirror), tree, work, plan(arch=Arch.ARM64))


@pytest.mark.parametrize("section", packages.SECTIONS)
def test_a_lock_without_a_section(section: str, mirror: Mirror, tree: Tree, work: Workspace) -> None:
    lock = lock_of(mirror).with_packages(section, [], made=DAY)
    with pytest.raises(BuildError, match=f"no packages for the {section}"):
        locked(lock, tree, work)


# --- what a lock takes


def manifest_of(**versions: str) -> dict[str, Any]:
    version = {"systemd": "1:1.0-1", "qemu": "1:1.0-1", **versions}
    return {
        "packages": {
            "image": [{"name": "systemd", "version": version["systemd"], "architecture": "amd64"}],
            "initrd": [{"name": "kmod", "version": "1:1.0-1", "architecture": "amd64"}],
            "tools": [{"name": "qemu", "version": version["qemu"]}],
        }
    }


def test_a_lock_takes_what_the_image_holds(mirror: Mirror, tree: Tree, tmp_path: Path) -> None:
    lock = lock_of(mirror)
    mirror.add("systemd", "9")
    mirror.add("qemu", arch="all")
    found = packages.pin(manifest_of(), plan(), tree, tmp_path / "log")
    assert found["image"] == [file for file in lock.packages["image"] if file.name == "systemd"]
    assert found["initrd"] == list(lock.packages["initrd"])
    assert found["tools"] == list(lock.packages["tools"])
    assert len(mirror.roots) == 1, "the tools are from the suite of the image: one index is enough"


def test_tools_of_another_suite_or_mirror_have_their_own_index(
    mirror: Mirror, tree: Tree, tmp_path: Path
) -> None:
    lock_of(mirror)
    mirror.add("systemd", arch="arm64")
    mirror.add("kmod", arch="arm64")
    about = manifest_of()
    for section in ("image", "initrd"):
        about["packages"][section][0]["architecture"] = "arm64"
    found = packages.pin(about, plan(arch=Arch.ARM64), tree, tmp_path / "log")
    assert len(mirror.roots) == 2
    assert found["tools"][0].arch == "amd64"


def test_a_version_that_the_mirror_has_no_more(mirror: Mirror, tree: Tree, tmp_path: Path) -> None:
    lock_of(mirror)
    with pytest.raises(BuildError, match="does not have 2 of the image's packages any more") as caught:
        packages.pin(manifest_of(systemd="0.1", qemu="0.2"), plan(), tree, tmp_path / "log")
    assert "image: systemd 0.1: the mirror has 1:1.0-1" in caught.value.details
    assert "tools: qemu 0.2" in caught.value.details
    assert "--update" in caught.value.hint
