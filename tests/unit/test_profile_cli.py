"""`k3img profiles`, `check`, `show`, `schema`: what they print and how they end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from k3img.cli.common import profile_file
from k3img.cli.profile import COMMANDS
from k3img.errors import K3imgError, ProfileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.tree import Tree

GOOD = "# For tests\ntarget: {arch: x86-64}\nk3s: {version: v1.36.3+k3s1}\n"


@pytest.fixture
def run(tree: Tree) -> Callable[..., Result]:
    """Run a command in the empty project, with `profiles` written there first."""
    group = click.Group(commands=list(COMMANDS))

    def call(*args: str, **profiles: str) -> Result:
        for name, text in profiles.items():
            (tree.profiles / f"{name}.yaml").write_text(text)
        where = [] if args[0] == "schema" else ["--tree", str(tree.root)]
        return CliRunner().invoke(group, [args[0], *where, *args[1:]])

    return call


def problems(result: Result) -> list[str]:
    assert isinstance(result.exception, ProfileError)
    assert result.exception.exit_code == 2
    return [str(problem) for problem in result.exception.problems]


def test_profiles_lists_complete_ones(run: Callable[..., Result]) -> None:
    part = "k3s: {version: v1.36.3+k3s1}\n"
    firmware = "{raspi-firmware: {at-least: '1', suites: [sid]}, u-boot-rpi: {at-least: '1', suites: [sid]}}"
    pi = f"# A Pi\nextends: part\ntarget: {{arch: arm64, board: rpi4, boot-packages: {firmware}}}\n"
    result = run("profiles", good=GOOD, part=part, pi=pi, bad="oss: 1\n")
    assert result.stdout.splitlines() == [
        "NAME  ARCH    BOARD  PURPOSE",
        "good  x86-64  uefi   For tests",
        "pi    arm64   rpi4   A Pi",
    ]
    assert result.stderr == "bad has problems: k3img check bad\n"


def test_lock_files_are_no_profiles(run: Callable[..., Result], tree: Tree) -> None:
    (tree.profiles / "good.lock.yaml").write_text("version: 1\n")
    assert json.loads(run("profiles", "--json", good=GOOD).stdout) == [
        {"name": "good", "arch": "x86-64", "board": "uefi", "purpose": "For tests"}
    ]


def test_check_says_ok(run: Callable[..., Result]) -> None:
    result = run("check", "good", "part", good=GOOD, part="os: {}\nk3s: {version: v1.36.3+k3s1}\n")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "profiles/good.yaml: ok",
        "profiles/part.yaml: ok, a part that other profiles extend (it has no target)",
    ]


def test_check_tells_all_problems_of_all_files(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD)
    nodes = "cluster: {datastore: etcd, nodes: {a: {initializer: true, address: 10.0.0.1/24}, "
    even = GOOD + nodes + "b: {address: 10.0.0.2/24}}}\n"
    texts = {"one": GOOD + "oss: 1\nosx: 2\n", "two": "extends: one\nname: [x]\n", "even": even}
    result = run("check", "one", "two", "even", str(tmp_path / "c.yaml"), **texts)
    assert problems(result) == [
        "profiles/one.yaml:4: oss: unknown key. Perhaps you meant os.",
        "profiles/one.yaml:5: osx: unknown key. Perhaps you meant os.",
        "profiles/two.yaml:2: name: is a list, a text is wanted here.",
    ]
    assert result.stdout.splitlines() == [
        "profiles/even.yaml:4: warning: cluster.nodes: has 2 etcd servers, an even number. "
        "They survive no more losses than 1 would.",
        "profiles/even.yaml: ok",
        f"{tmp_path}/c.yaml: ok",
    ]


def test_check_goes_on_after_an_unknown_name(run: Callable[..., Result], tree: Tree) -> None:
    result = run("check", "godo", "bad", "good", good=GOOD, bad=GOOD + "oss: 1\n")
    assert problems(result) == [
        f"godo: there is no profile godo: no file godo.yaml in {tree.profiles}. Perhaps you meant good.",
        "profiles/bad.yaml:4: oss: unknown key. Perhaps you meant os.",
    ]
    assert result.stdout == "profiles/good.yaml: ok\n"


def test_check_json(run: Callable[..., Result]) -> None:
    assert run("check", "--json", "good", good=GOOD).stdout == "[]\n"
    result = run("check", "--json", "good", "bad", bad=GOOD + "oss: 1\n")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == [
        {
            "file": "profiles/bad.yaml",
            "line": 4,
            "path": "oss",
            "what": "unknown key.",
            "hint": "Perhaps you meant os.",
            "warning": False,
        }
    ]


def test_show_has_origins(run: Callable[..., Result]) -> None:
    result = run("show", "child", "--set", "debug=false", good=GOOD, child="# C\nextends: good\n")
    lines = result.stdout.splitlines()
    assert lines[0] == "# C"
    assert [line.split() for line in lines if line.startswith(("name:", "debug:", "  version: v"))] == [
        ["name:", "child", "#", "default"],
        ["version:", "v1.36.3+k3s1", "#", "profiles/good.yaml:3"],
        ["debug:", "false", "#", "--set"],
    ]
    assert len({line.index("  # ") for line in lines if "  # " in line}) == 1


def test_show_json(run: Callable[..., Result]) -> None:
    whole = json.loads(run("show", "good", "--json", good=GOOD).stdout)
    assert whole["profile"]["k3s"]["version"] == "v1.36.3+k3s1"
    assert whole["origins"]["k3s.version"] == "profiles/good.yaml:3"


def test_show_puts_warnings_on_stderr(run: Callable[..., Result]) -> None:
    text = GOOD.replace("v1.36", "v1.99")
    result = run("show", "good", good=text)
    assert result.stderr.startswith("warning: profiles/good.yaml:3: k3s.version: is a version whose options")
    assert result.exit_code == 0


def test_show_of_a_bad_profile(run: Callable[..., Result]) -> None:
    assert len(problems(run("show", "bad", bad="oss: 1\n"))) == 3


@pytest.mark.parametrize(
    ("name", "brief", "hint"),
    [
        ("godo", "there is no profile godo: no file godo.yaml in ", "Perhaps you meant good."),
        ("zzz", "there is no profile zzz: no file zzz.yaml in ", "Profiles are good, other."),
        ("sub/x.yaml", "there is no file sub/x.yaml", ""),
    ],
)
def test_unknown_profiles(tree: Tree, name: str, brief: str, hint: str) -> None:
    for known in ("good", "other"):
        (tree.profiles / f"{known}.yaml").write_text(GOOD)
    with pytest.raises(UsageError) as caught:
        profile_file(tree, name)
    assert caught.value.brief.startswith(brief)
    assert caught.value.hint == hint


def test_profiles_are_found_by_name_and_path(tree: Tree) -> None:
    file = tree.profiles / "good.yaml"
    file.write_text(GOOD)
    assert profile_file(tree, "good") == file
    assert profile_file(tree, str(file)) == file


def test_set_wants_key_and_value(run: Callable[..., Result]) -> None:
    result = run("show", "good", "--set", "debug", good=GOOD)
    assert result.exit_code == 2
    assert "'debug' is not key=value" in result.stderr


def test_no_project_here(tmp_path: Path) -> None:
    with pytest.raises(K3imgError, match="no k3img project here"):
        CliRunner().invoke(COMMANDS[0], ["--tree", str(tmp_path)], catch_exceptions=False)


def test_schema_is_json(run: Callable[..., Result]) -> None:
    whole = json.loads(run("schema").stdout)
    os_keys = whole["properties"]["os"]["properties"]
    assert os_keys["packages+"]["type"] == "array"
    assert os_keys["suite"]["enum"] == ["trixie", "forky"]
    assert all(about.get("description") for about in os_keys.values())
    agent = whole["properties"]["k3s"]["properties"]["agent"]["properties"]
    assert "kubelet-arg" in agent
    assert "tls-san" not in agent
    assert "token" not in agent
