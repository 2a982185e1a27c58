"""The date of a build's sources: whose commits count, and what counts without commits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k3img import proc
from k3img.errors import BuildError, UsageError
from k3img.plan import inputs
from k3img.profile.load import load
from k3img.tools.source_date import source_date

if TYPE_CHECKING:
    from k3img.tree import Tree


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


@pytest.fixture
def no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str]) -> str:
        raise BuildError(f"{argv[0]}: not a git repository")

    monkeypatch.setattr(proc, "run", run)


def test_only_commits_of_what_the_image_is_made_of_count(
    project: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str]) -> str:
        asked.append(argv)
        return "1795000000\n"

    monkeypatch.setattr(proc, "run", run)
    profile = load(project.profiles / "x86.yaml", project).profile
    assert source_date(project, inputs.sources(project, profile)) == 1_795_000_000
    paths = [Path(word) for word in asked[0][asked[0].index("--") + 1 :]]
    assert all(path.exists() for path in paths)
    names = {str(path.relative_to(project.root)) for path in paths}
    assert {"profiles", "overlays", "builder/k3img/device", "builder/k3img/build"} <= names
    assert not any(name.startswith(("tests", "docs", "builder/k3img/verify")) for name in names)


def test_sources_elsewhere_do_not_count(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "run", lambda argv: str(1_795_000_000 + ("/usr/lib/k3img" in argv)))
    assert source_date(tree, (tree.profiles, Path("/usr/lib/k3img"))) == 1_795_000_000


@pytest.mark.usefixtures("no_git")
def test_without_commits_the_newest_file_counts_and_no_cache_of_python(tree: Tree) -> None:
    old, new, cached = (tree.profiles / name for name in ("old.yaml", "new.yaml", "code.pyc"))
    for path, when in ((old, 1_700_000_000), (new, 1_700_000_001), (cached, 1_700_000_002)):
        path.write_text("")
        os.utime(path, (when, when))
    assert source_date(tree, (tree.profiles,)) == 1_700_000_001
    assert source_date(tree, (tree.profiles, tree.root / "missing")) == 1_700_000_001


@pytest.mark.parametrize("value", ["yesterday", "12"])
def test_a_bad_variable_is_refused(value: str, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is"):
        source_date(tree, ())
