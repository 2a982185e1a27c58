"""`fetch` and `lock` on the command line: what is printed, what is written, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from tests.conftest import ROOT

import k3img.cli.lock as commands
from k3img.build import packages
from k3img.build.model import Image
from k3img.cli import k3img
from k3img.errors import BuildError, K3imgError
from k3img.runtime import lock as locks
from k3img.runtime.lock import SECTIONS, Lock
from k3img.runtime.lockdiff import changes
from k3img.tools.apt import PackageFile

if TYPE_CHECKING:
    from k3img.build.model import Request
    from k3img.plan.model import Plan

VERSION = "v1.36.3+k3s1"
STANDIN = "v1.36.3+standin1"
K3S = b"\x7fELF\x02\x01" + bytes(12) + (62).to_bytes(2, "little") + b"..." + VERSION.encode()
DIGEST = hashlib.sha256(K3S).hexdigest()


def package(name: str, version: str = "1") -> PackageFile:
    return PackageFile(
        name=name, version=version, arch="amd64", sha256="c" * 64, filename=f"pool/{name}.deb", suite="trixie"
    )


class Project:
    """A project with the shipped base profile, a mirror with k3s, and a build that only says it ran."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "project"
        self.cache = folder / "cache"
        for name in ("profiles", "overlays"):
            (self.root / name).mkdir(parents=True)
        for name in ("base", "initrd"):
            (self.root / "overlays" / name).mkdir()
        for name in ("base", "x86"):
            text = (ROOT / f"profiles/{name}.yaml").read_text()
            (self.root / f"profiles/{name}.yaml").write_text(text)
        self.mirror = folder / "mirror"
        self.release(VERSION, K3S)
        self.lock = self.root / "profiles/x86.lock.yaml"
        self.built: list[Request] = []
        self.pinned = {section: [package("libc6"), package(section)] for section in SECTIONS}
        monkeypatch.setenv("K3IMG_CACHE", str(self.cache))
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
        monkeypatch.setattr(commands, "run_build", self.build)
        monkeypatch.setattr(packages, "pin", lambda *_: self.pinned)

    def release(self, version: str, data: bytes) -> None:
        folder = self.mirror / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "k3s").write_bytes(data)
        (folder / "sha256sum-amd64.txt").write_text(f"{hashlib.sha256(data).hexdigest()}  k3s\n")

    def build(self, plan: Plan, request: Request, *, tree: object, lock: Lock | None) -> Image:
        self.built.append(request)
        about: dict[str, Any] = {
            "recipe": plan.recipe,
            "packages_as_of": "2026-11-25",
            "image": {"raw": "x.raw", "sha256": "b" * 64},
            "runtime": {"sha256": DIGEST},
            "files": {},
        }
        request.out.mkdir(parents=True, exist_ok=True)
        (request.out / "manifest.json").write_text(json.dumps(about))
        return Image(folder=request.out, manifest=about, fresh=True)

    def run(self, *argv: str) -> str:
        """Standard output; errors are raised as they are."""
        result = CliRunner().invoke(
            k3img, [argv[0], "--tree", str(self.root), "--profile", "x86", *argv[1:]], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    def fails(self, *argv: str) -> K3imgError:
        result = CliRunner().invoke(k3img, [argv[0], "--tree", str(self.root), "--profile", "x86", *argv[1:]])
        assert isinstance(result.exception, K3imgError), result.output
        return result.exception


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_fetch_prints_the_path_in_the_cache(project: Project) -> None:
    said = project.run("fetch", "--k3s-mirror", str(project.mirror))
    path = Path(said.strip())
    assert path == project.cache / "k3s" / DIGEST / "k3s"
    assert path.read_bytes() == K3S


def test_fetch_keeps_a_file_for_a_builder_without_network(project: Project) -> None:
    project.run("lock", "--k3s-mirror", str(project.mirror))
    project.run("fetch", "--locked", "--k3s", str(project.mirror / VERSION / "k3s"))
    (project.mirror / VERSION / "k3s").unlink()
    assert DIGEST in project.run("fetch", "--locked")


def test_locked_without_a_lock_says_which_command_makes_one(project: Project) -> None:
    for command in ("fetch", "build"):
        error = project.fails(command, "--locked")
        assert "no lock file" in error.brief
        assert "k3img lock --profile x86" in error.brief
        assert error.exit_code == 4


def test_no_network_is_one_line_with_the_cause(project: Project) -> None:
    error = project.fails("fetch", "--k3s-mirror", "http://127.0.0.1:1")
    assert "connection refused" in error.brief
    assert "\n" not in error.brief


def test_the_first_lock_builds_and_pins(project: Project) -> None:
    said = project.run("lock", "--k3s-mirror", str(project.mirror))
    assert len(project.built) == 1
    assert not project.built[0].refresh
    lock = locks.read(project.lock)
    assert lock is not None
    assert lock.k3s is not None
    assert lock.k3s.files["amd64"].sha256 == DIGEST
    assert set(lock.packages) == set(SECTIONS)
    assert "written" in said
    assert "tools    2 packages: new" in said


def test_a_second_lock_builds_nothing_and_changes_nothing(project: Project) -> None:
    project.run("lock", "--k3s-mirror", str(project.mirror))
    before = project.lock.read_text()
    said = project.run("lock", "--k3s-mirror", str(project.mirror))
    assert len(project.built) == 1
    assert "unchanged" in said
    assert project.lock.read_text() == before


def test_update_builds_with_the_newest(project: Project) -> None:
    project.run("lock", "--k3s-mirror", str(project.mirror))
    project.pinned["image"] = [package("libc6", "2"), package("nano")]
    said = project.run("lock", "--update", "--k3s-mirror", str(project.mirror))
    assert project.built[-1].refresh
    assert project.built[-1].renew_tools
    assert "  libc6: 1 -> 2" in said
    assert "  nano: new -> 1" in said
    assert "  image: 1 -> gone" in said
    assert "initrd   2 packages: unchanged" in said


def test_an_image_of_another_profile_or_k3s_is_built_anew(project: Project) -> None:
    project.run("lock", "--k3s-mirror", str(project.mirror))
    project.run("lock", "--k3s-mirror", str(project.mirror), "--set", "image.compression=fast")
    assert len(project.built) == 2
    about = json.loads((project.root / "out/x86/manifest.json").read_text())
    about["runtime"]["sha256"] = "e" * 64
    (project.root / "out/x86/manifest.json").write_text(json.dumps(about))
    project.run("lock", "--k3s-mirror", str(project.mirror))
    assert len(project.built) == 3


def test_another_content_of_a_locked_version_is_refused_before_building(project: Project) -> None:
    project.run("lock", "--k3s-mirror", str(project.mirror))
    before = project.lock.read_text()
    project.release(VERSION, K3S + b"other")
    error = project.fails("lock", "--k3s-mirror", str(project.mirror))
    assert isinstance(error, BuildError)
    assert "not the one in the lock file" in error.brief
    assert len(project.built) == 1
    assert project.lock.read_text() == before


def test_a_stand_in_is_locked_only_when_asked_for_by_its_version(project: Project) -> None:
    project.release(STANDIN, K3S + STANDIN.encode())
    project.run("lock", "--k3s-mirror", str(project.mirror))
    assert "standin" not in project.lock.read_text()
    project.run("lock", "--k3s-mirror", str(project.mirror), "--set", f"k3s.version={STANDIN}")
    text = project.lock.read_text()
    assert "# Its runtime is the stand-in for tests, not k3s.\n" in text
    lock = locks.read(project.lock)
    assert lock is not None
    assert locks.text(lock, "x86") == text


def test_locked_and_refresh_exclude_each_other(project: Project) -> None:
    error = project.fails("build", "--locked", "--refresh")
    assert error.exit_code == 2


def test_a_long_list_of_changes_is_cut() -> None:
    old = Lock(made="2026-01-01").with_packages("image", [package(f"p{n}") for n in range(40)], made="x")
    new = old.with_packages("image", [package(f"p{n}", "2") for n in range(40)], made="x")
    lines = changes(old, new)
    assert "image    40 packages: 40 changed" in lines
    assert lines.count("  ... and 25 more") == 1
    assert changes(new, new)[0] == "image    40 packages: unchanged"
