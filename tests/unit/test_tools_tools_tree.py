"""The tools tree: what names it in the cache, what mkosi is told, and that half a tree is never published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from k3img.errors import BuildError, ProgramError
from k3img.tools import publish, tools_tree
from k3img.tools.mkosi import Mkosi
from k3img.tools.tools_tree import PACKAGES, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.tree import Tree

SOURCES = "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n"

# Does what mkosi does with its output directory, the fourth argument after --directory WORK.
FAKE_MKOSI = """
out=$4; mkdir -p "$out"; cat "$2/mkosi.conf" > '{seen}/conf'
cat "$2/sandbox/etc/apt/sources.list.d/mkosi.sources" > '{seen}/sources'
cat "$2/sandbox/etc/apt/apt.conf.d/99k3img" > '{seen}/apt'
printf '‣  Installing Debian\\nsomething else\\n'
touch "$out/tools.tar"; cp '{seen}/manifest' "$out/tools.manifest"
"""


@pytest.fixture
def seen(tmp_path: Path, fake_program: FakePrograms) -> Path:
    """The folder in which the fake mkosi leaves what it was given."""
    folder = tmp_path / "seen"
    folder.mkdir()
    write_manifest(folder, PACKAGES)
    fake_program.add("mkosi", FAKE_MKOSI.format(seen=folder))
    fake_program.add("tar", 'mkdir -p "$7/usr/bin"')
    fake_program.add("rm", "")
    fake_program.add(
        "apt-config", 'printf \'Acquire::http::Proxy "http://proxy.example:3128";\\nAPT::Hook "x";\\n\''
    )
    return folder


def write_manifest(folder: Path, names: tuple[str, ...]) -> None:
    packages = [{"name": name, "version": "1.0-1"} for name in names]
    (folder / "manifest").write_text(json.dumps({"packages": packages}))


def build(tree: Tree, fake_program: FakePrograms, notes: list[str] | None = None) -> None:
    engine = Mkosi(argv=(str(fake_program.folder / "mkosi"),), version="25.3", from_host=True)
    tools_tree.build(tree, engine, Recipe(sources=SOURCES), (notes if notes is not None else []).append)


def test_a_tree_is_built_and_found(tree: Tree, seen: Path, fake_program: FakePrograms) -> None:
    notes: list[str] = []
    build(tree, fake_program, notes)
    found = tools_tree.find(tree)
    assert found is not None
    assert found.packages["qemu-utils"] == "1.0-1"
    assert found.program("no-such-program") is None
    assert notes == ["Installing Debian"]
    assert (seen / "sources").read_text() == SOURCES
    assert "Proxy" in (seen / "apt").read_text()
    assert "Hook" not in (seen / "apt").read_text()
    assert "Release=trixie" in (seen / "conf").read_text()


def test_what_is_there_is_not_built_again(tree: Tree, seen: Path, fake_program: FakePrograms) -> None:
    build(tree, fake_program)
    build(tree, fake_program)
    assert len(fake_program.calls("mkosi")) == 1


def test_a_failed_build_leaves_nothing(tree: Tree, seen: Path, fake_program: FakePrograms) -> None:
    fake_program.add("mkosi", "echo no network >&2; exit 1")
    with pytest.raises(ProgramError) as error:
        build(tree, fake_program)
    assert "tools-tree.log" in error.value.hint
    assert tools_tree.find(tree) is None
    assert [path.name for path in (tree.cache / "tools").iterdir() if not path.name.startswith(".")] == []


def test_a_tree_without_all_its_packages_is_not_published(
    tree: Tree, seen: Path, fake_program: FakePrograms
) -> None:
    write_manifest(seen, tuple(name for name in PACKAGES if name != "erofs-utils"))
    with pytest.raises(BuildError, match="lacks erofs-utils"):
        build(tree, fake_program)
    assert tools_tree.find(tree) is None


def test_the_digest_is_of_the_packages_and_not_of_the_mirror() -> None:
    plain = Recipe()
    assert plain.digest == Recipe(sources=SOURCES).digest
    others = (Recipe(packages=(*PACKAGES, "x")), Recipe(suite="forky"), Recipe(lock="abc"))
    assert len({plain.digest, *(recipe.digest for recipe in others)}) == 4


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "thing.part"
    left.mkdir()
    (left / "half").touch()
    with publish.new_folder(tmp_path / "thing", "a thing") as folder:
        assert folder is not None
        assert list(folder.iterdir()) == []
        (folder / "whole").touch()
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["whole"]
    assert not left.exists()


def test_any_tree_will_do_for_its_programs(tree: Tree) -> None:
    assert tools_tree.find_any(tree) is None
    locked = tools_tree.Recipe(lock="abc")
    place = tree.cache / "tools" / locked.digest
    place.mkdir(parents=True)
    packages = dict.fromkeys(locked.packages, "1")
    (place / "manifest.json").write_text(json.dumps({"suite": "trixie", "packages": {"apt": "1"}}))
    assert tools_tree.find_any(tree) is None
    (place / "manifest.json").write_text(json.dumps({"suite": "trixie", "packages": packages}))
    found = tools_tree.find_any(tree)
    assert found is not None
    assert found.path == place / "tree"
    assert tools_tree.find(tree) is None
