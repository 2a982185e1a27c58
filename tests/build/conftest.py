"""Real builds, of a project that is made for them: minutes each, so only when this folder is named.

`pytest tests/build` runs them (`ci/full` does); `pytest` alone leaves them out. They use the caller's cache
for tools and packages, never its `out/`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.conftest import ROOT
from tests.unit.test_runtime_unpack import VERSION, Content, compress, self_extracting

from k3img import proc
from k3img.errors import ProgramError
from k3img.tree import cache_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
PROFILE = "x86-cloud"
SLOW = ("--set", "image.compression=small", "--set", "image.version=9.9.9")
"""Another image that takes its time, so that it can be interrupted; what mkosi has cached still serves it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any("tests/build" in argument or argument.startswith("build") for argument in config.args):
        return
    reason = pytest.mark.skip(reason="builds for real: name tests/build to run it")
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(reason)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How k3img ended, and all that it said."""

    status: int
    said: str


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project with the shipped profiles and a mirror whose k3s is small and does nothing."""

    root: Path
    cache: Path

    @property
    def mirror(self) -> Path:
        return self.root / "mirror"

    @property
    def out(self) -> Path:
        return self.root / "out" / PROFILE

    @property
    def lock(self) -> Path:
        return self.root / f"profiles/{PROFILE}.lock.yaml"

    def run(self, command: str, *more: str, within: Sequence[str] = (), path: str | None = None) -> Ended:
        """Run a command of k3img on the profile; `within` are words in front, such as those of timeout."""
        fast = () if more[-len(SLOW) :] == SLOW else ("--set", "image.compression=fast")
        argv = [*within, sys.executable, "-m", "k3img", command, "--profile", PROFILE, *fast, *more]
        # The version, and so the digest, must not depend on when a test runs.
        env = {"K3IMG_CACHE": str(self.cache), "SOURCE_DATE_EPOCH": "1795000000"}
        env["PYTHONPATH"] = str(ROOT / "builder")
        if path is not None:
            env["PATH"] = path
        said: list[str] = []
        try:
            proc.run(argv, cwd=self.root, env=env, on_line=said.append)
        except ProgramError as error:
            return Ended(status=error.status, said="\n".join(said))
        return Ended(status=0, said="\n".join(said))

    def build(self, *more: str, within: Sequence[str] = (), path: str | None = None) -> Ended:
        """`k3img build` with k3s from the mirror."""
        return self.run("build", "--k3s-mirror", str(self.mirror), *more, within=within, path=path)

    def leftovers(self) -> list[str]:
        """Processes and mounts of this project, and half files in out/."""
        command = ["ps", "-eo", "pid,args"]
        lines = proc.run(command).splitlines() + Path("/proc/self/mounts").read_text().splitlines()
        work = str(self.cache / "work")
        return [line for line in lines if work in line and "x86-cloud" in line] + [
            str(path) for path in self.root.glob("out/*/.*")
        ]


def make_project(root: Path, cache: Path) -> Project:
    """Lay one out."""
    for name in ("profiles", "overlays"):
        shutil.copytree(ROOT / name, root / name, symlinks=True)
    for lock in (root / "profiles").glob("*.lock.yaml"):
        lock.unlink()
    data = self_extracting(compress(Content().tar()))
    folder = root / "mirror" / VERSION
    folder.mkdir(parents=True)
    (folder / "k3s").write_bytes(data)
    (folder / "sha256sum-amd64.txt").write_text(f"{hashlib.sha256(data).hexdigest()}  k3s\n")
    return Project(root=root, cache=cache)


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project with an empty cache of its own."""
    return make_project(tmp_path / "project", tmp_path / "cache")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished image and a lock of it, in the caller's cache; tests change neither."""
    project = make_project(tmp_path_factory.mktemp("built") / "project", cache_dir())
    ended = project.run("lock", "--k3s-mirror", str(project.mirror))
    assert ended.status == 0, ended.said
    return project


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, so it needs root")
