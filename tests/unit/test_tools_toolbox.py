"""Which copy of a program is used, and what is said when there is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from k3img import proc
from k3img.errors import BuildError, MissingToolError
from k3img.tools import host, mkosi, toolbox, tools_tree
from k3img.tools.finding import Finding, State, advice, require
from k3img.tools.mkosi import numbers
from k3img.tools.toolbox import TOOLS, Where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.conftest import FakePrograms

    from k3img.tree import Tree

LOADER = "ld-linux-x86-64.so.2"


@pytest.fixture(autouse=True)
def only_fakes(fake_program: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    """A host on which nothing is installed but what a test adds."""

    def which(name: str) -> Path | None:
        path = fake_program.folder / Path(name).name
        return path if path.exists() else None

    monkeypatch.setattr(proc, "which", which)
    monkeypatch.setattr("k3img.tools.tools_tree.platform.machine", lambda: "x86_64")
    for name in ("apt-get", "dpkg-deb", "tar", "unshare", "newuidmap"):
        fake_program.add(name)
    return fake_program


def make_tree(tree: Tree) -> Path:
    """A tools tree as `build` would publish it, with empty programs."""
    folder = tree.cache / "tools" / tools_tree.Recipe().digest
    root = folder / "tree"
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu" / LOADER).touch()
    for tool in TOOLS:
        (root / "usr/bin").mkdir(exist_ok=True)
        (root / "usr/bin" / tool.name).touch()
    for name in ("qemu", "seabios"):
        (root / "usr/share" / name).mkdir(parents=True)
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        (root / "usr/share/OVMF").mkdir(exist_ok=True)
        (root / "usr/share/OVMF" / name).touch()
    versions = {tool.package: "1:10.0.13+ds-0+deb13u1" for tool in TOOLS}
    (folder / "manifest.json").write_text(json.dumps({"packages": versions}))
    return root


def make_mkosi(tree: Tree, version: str = "25.3-7") -> Path:
    folder = tree.cache / f"tools/mkosi-{version}"
    folder.mkdir(parents=True)
    (folder / "launch.py").touch()
    return folder / "launch.py"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("mkosi 25.3", (25, 3)),
        ("mkosi 26~devel", (26,)),
        ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", (10, 0, 13)),
        ("qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", (7, 2, 22)),
        ("mkfs.erofs (erofs-utils) 1.8.6", (1, 8, 6)),
        ("mkfs.erofs 1.5", (1, 5)),
        ("systemd 257 (257.13-1~deb13u1)", (257,)),
        ("systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT", (252,)),
        ("veritysetup 2.7.5 flags: UDEV BLKID", (2, 7, 5)),
        ("25.3-7", (25, 3)),
        ("v1.2", (1, 2)),
        ("unknown", ()),
        ("", ()),
    ],
)
def test_a_version_is_read(text: str, wanted: tuple[int, ...]) -> None:
    assert numbers(text) == wanted


def test_everything_comes_from_the_cache_when_the_host_has_nothing(tree: Tree) -> None:
    root, launcher = make_tree(tree), make_mkosi(tree)
    tools = toolbox.find(tree)
    assert tools.mkosi == (sys.executable, str(launcher))
    assert tools.tools_tree == root
    assert tools.version("qemu-img") == (10, 0, 13)
    assert tools.qemu_data() == (root / "usr/share/qemu", root / "usr/share/seabios")
    assert tools.firmware("amd64").vars == root / "usr/share/OVMF/OVMF_VARS_4M.fd"
    assert {program.where for program in tools.programs.values()} == {Where.TREE}


def test_a_program_of_the_tree_runs_with_the_trees_libraries(tree: Tree) -> None:
    root = make_tree(tree)
    make_mkosi(tree)
    lib = root / "usr/lib/x86_64-linux-gnu"
    argv = toolbox.find(tree).argv("qemu-img")
    assert argv[:2] == ("/usr/bin/env", f"QEMU_MODULE_DIR={lib}/qemu")
    assert argv[2] == str(lib / LOADER)
    assert argv[argv.index("--library-path") + 1] == f"{lib}:{lib}/systemd"
    assert argv[-1] == str(root / "usr/bin/qemu-img")
    assert toolbox.find(tree).argv("mcopy")[0] == str(lib / LOADER)


def test_the_hosts_program_is_taken_when_it_is_new_enough(tree: Tree, only_fakes: FakePrograms) -> None:
    make_tree(tree), make_mkosi(tree)
    path = only_fakes.add("qemu-system-x86_64", "echo QEMU emulator version 9.2.0")
    tools = toolbox.find(tree)
    assert tools.argv("qemu-system-x86_64") == (str(path),)
    assert tools.programs["qemu-system-x86_64"].where is Where.HOST
    assert tools.qemu_data() == ()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo QEMU emulator version 7.2.22", "the host has 7.2.22"),
        ("exit 127", "the host has a broken one"),
        ("echo nothing", "the host has a version we cannot read"),
    ],
)
def test_the_trees_program_is_taken_when_the_hosts_is_no_good(
    tree: Tree, only_fakes: FakePrograms, script: str, said: str
) -> None:
    make_tree(tree), make_mkosi(tree)
    only_fakes.add("qemu-system-x86_64", script)
    seen = toolbox.survey(tree)
    assert seen.programs["qemu-system-x86_64"].where is Where.TREE
    (finding,) = (f for f in seen.findings if f.name.startswith("qemu-system"))
    assert finding.state is State.OK
    assert said in finding.found


def test_everything_missing_is_named_at_once_with_what_to_type(
    tree: Tree, only_fakes: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k3img.tools.host.os.geteuid", lambda: 1000)
    only_fakes.add("mkfs.erofs", "echo mkfs.erofs 1.5")
    (only_fakes.folder / "newuidmap").unlink()
    with pytest.raises(MissingToolError) as error:
        toolbox.find(tree)
    for name in ("newuidmap", "mkosi >= 25.3", "tools tree", *(tool.name for tool in TOOLS)):
        assert name in error.value.brief
    assert "newuidmap: apt-get install uidmap" in error.value.details
    assert "mkfs.erofs >= 1.8 (1.5, too old; for the /usr file system)" in error.value.details
    assert error.value.details.count("k3img doctor --fix") == 1


def test_root_needs_no_newuidmap(
    tree: Tree, only_fakes: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("k3img.tools.host.os.geteuid", lambda: 0)
    (only_fakes.folder / "newuidmap").unlink()
    states = {finding.name: finding.state for finding in host.programs()}
    assert "newuidmap" not in states
    assert states.pop("dnsmasq") is states.pop("ip") is states.pop("socat") is State.NOTE, (
        "only labs need them"
    )
    assert set(states.values()) == {State.OK}


def test_firmware_that_is_nowhere_names_its_package(tree: Tree) -> None:
    make_tree(tree), make_mkosi(tree)
    tools = toolbox.find(tree)
    lonely = toolbox.Toolbox(
        mkosi=tools.mkosi, mkosi_version="25.3", tree=tools.tree, programs=tools.programs, root=tree.root
    )
    with pytest.raises(MissingToolError) as error:
        lonely.firmware("arm64")
    assert error.value.hint == "apt-get install qemu-efi-aarch64"


def test_a_program_that_nobody_has_is_an_error(tree: Tree) -> None:
    make_tree(tree), make_mkosi(tree)
    with pytest.raises(MissingToolError, match=r"has no mkfs\.btrfs"):
        toolbox.find(tree).argv("mkfs.btrfs")


@pytest.mark.parametrize(
    ("version", "used"), [("25.3", True), ("27.1", True), ("24.3", False), ("14", False)]
)
def test_the_hosts_mkosi_is_used_from_25_3_on(
    tree: Tree, only_fakes: FakePrograms, version: str, used: bool
) -> None:
    path = only_fakes.add("mkosi", f"echo mkosi {version}")
    found = mkosi.find(tree)
    assert (found is not None) is used
    if found is not None:
        assert found.argv == (str(path),)
        assert found.version == version


def test_the_newest_mkosi_of_the_cache_is_used(tree: Tree) -> None:
    make_mkosi(tree, "25.3-7")
    newest = make_mkosi(tree, "100.1-1")
    found = mkosi.in_cache(tree)
    assert found is not None
    assert found.argv[-1] == str(newest)
    assert found.version == "100.1-1"


def test_requiring_what_is_there_is_quiet() -> None:
    require([Finding(name="a", state=State.OK, found="1", needed_for="x", how="never said")])
    require([Finding(name="b", state=State.NOTE, found="none", needed_for="x", how="apt-get install b")])


def test_one_line_of_advice_for_all_that_one_command_mends() -> None:
    rows = [
        Finding(name=name, state=State.MISSING, found="none", needed_for="x", how=how)
        for name, how in (("a", "fix"), ("b", "apt-get install b"), ("c", "fix"), ("d", ""))
    ]
    assert advice(rows) == ["a, c: fix", "b: apt-get install b"]


class FakeApt:
    """Stands in for PrivateApt: a mirror with one version of mkosi."""

    version = "25.3-7"

    def __init__(self, root: Path, sources: str, arch: str) -> None:
        self.root = root

    def __enter__(self) -> Self:
        self.root.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self) -> None: ...

    def candidates(self, names: Sequence[str]) -> dict[str, str]:
        return dict.fromkeys(names, self.version) if self.version else {}

    def download(self, packages: Sequence[str], into: Path) -> tuple[Path, ...]:
        (into / "mkosi.deb").touch()
        return (into / "mkosi.deb",)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, only_fakes: FakePrograms) -> type[FakeApt]:
    class Mirror(FakeApt):
        pass

    only_fakes.add("dpkg", "echo amd64")
    only_fakes.add(Path(sys.executable).name)
    monkeypatch.setattr(
        "k3img.tools.mkosi.sys.executable", str(only_fakes.folder / Path(sys.executable).name)
    )
    monkeypatch.setattr(mkosi, "PrivateApt", Mirror)
    monkeypatch.setattr(mkosi, "sources", lambda suite, mirror: f"{suite} {mirror}")
    return Mirror


def test_mkosi_is_fetched_into_the_cache(tree: Tree, mirror: type[FakeApt], only_fakes: FakePrograms) -> None:
    got = mkosi.get(tree)
    folder = tree.cache / "tools/mkosi-25.3-7"
    assert got.version == "25.3-7"
    assert got.argv[-1] == str(folder / "launch.py")
    assert only_fakes.calls("dpkg-deb")[0].startswith("--extract")
    assert [path.name for path in folder.iterdir()] == ["launch.py"]
    assert not (tree.cache / "tools/apt-trixie-amd64").exists()
    mkosi.get(tree)
    assert len(only_fakes.calls("dpkg-deb")) == 1


@pytest.mark.parametrize(("version", "said"), [("24.3-1", "24.3-1"), ("", "missing")])
def test_a_mirror_with_an_old_mkosi_is_an_error(
    tree: Tree, mirror: type[FakeApt], version: str, said: str
) -> None:
    mirror.version = version
    with pytest.raises(BuildError, match=f"the mirror's mkosi is {said}"):
        mkosi.get(tree)
    assert mkosi.in_cache(tree) is None
