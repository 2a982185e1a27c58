"""What all tests share. Unit tests start no program: whatever tries is told so."""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - to guard it
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import sh  # noqa: TID251 - to guard it

from k3img.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden"

_MAY_START = ("machine", "programs")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew, to be read as a diff"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "programs: starts real programs, though it boots nothing")


@dataclass
class FakePrograms:
    """Programs that stand in for real ones: `add` makes one, `calls` is what they were called with."""

    folder: Path
    names: set[str] = field(default_factory=set)

    def add(self, name: str, script: str = "exit 0") -> Path:
        """Put a shell script on PATH under a name."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{self.folder}/{name}.calls'\n{script}\n")
        path.chmod(0o755)
        self.names.add(name)
        return path

    def calls(self, name: str) -> list[str]:
        """The arguments of each call, in order, joined by spaces."""
        log = self.folder / f"{name}.calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    """Fake programs, found on PATH before the real ones. Others still may not be started."""
    fakes = FakePrograms(tmp_path / "fake-bin")
    monkeypatch.setenv("PATH", str(fakes.folder), prepend=os.pathsep)
    return fakes


@pytest.fixture(autouse=True)
def no_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make every way to start a program fail, unless the test is marked `programs` or `machine`."""
    if any(request.node.get_closest_marker(name) for name in _MAY_START):
        return
    real_call = sh.Command.__call__

    def stop(*args: Any, **kwargs: Any) -> NoReturn:
        pytest.fail(f"a unit test starts a program: {args} {kwargs}")

    def guarded(command: Any, *args: Any, **kwargs: Any) -> Any:
        if not Path(command._path).is_relative_to(tmp_path / "fake-bin"):
            stop(command, *args)
        return real_call(command, *args, **kwargs)

    monkeypatch.setattr(sh.Command, "__call__", guarded)
    # Without `self`: a process that was never made cannot be printed.
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda _self, *args, **kwargs: stop(*args, **kwargs))
    for name in ("system", "posix_spawn", "posix_spawnp"):
        monkeypatch.setattr(os, name, stop)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty project in a temporary folder, with one overlay."""
    root = tmp_path / "project"
    (root / "profiles").mkdir(parents=True)
    (root / "overlays/base").mkdir(parents=True)
    return Tree(root=root, cache=tmp_path / "cache")


@pytest.fixture
def project() -> Tree:
    """This checkout, for tests of what it ships."""
    return Tree(root=ROOT, cache=ROOT / "no-cache-in-unit-tests")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(path, text)` compares with a file of tests/golden, or writes it with --update-golden."""

    def compare(path: str, text: str) -> None:
        file = GOLDEN / path
        if request.config.getoption("--update-golden"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        assert file.exists(), f"no {file}: run pytest --update-golden, and read what it wrote"
        assert text == file.read_text()

    return compare
