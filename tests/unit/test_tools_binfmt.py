"""Programs of another architecture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from k3img.errors import MissingToolError
from k3img.tools import binfmt
from k3img.tools.finding import State
from k3img.tools.tools_tree import ToolsTree

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "arm64" if os.uname().machine == "x86_64" else "amd64"
NAME = f"qemu-{binfmt.MACHINES[OTHER]}"


@pytest.fixture
def tree(tmp_path: Path) -> ToolsTree:
    program = tmp_path / "tree/usr/bin" / NAME
    program.parent.mkdir(parents=True)
    program.touch()
    return ToolsTree(path=tmp_path / "tree", packages={})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As the kernel shows it before anything is registered."""
    folder = tmp_path / "binfmt_misc"
    folder.mkdir()
    (folder / "register").touch()
    return folder


def matches(machine: str, header: bytes) -> bool:
    """What the kernel does with magic and mask."""
    magic, mask = binfmt.ELF[machine], binfmt.MASK
    assert len(magic) == len(mask) == 20
    return all(byte & m == want & m for byte, want, m in zip(header, magic, mask, strict=False))


def header(kind: int, machine: int, abi: int = 0) -> bytes:
    return (
        b"\x7fELF\x02\x01\x01"
        + bytes([abi])
        + bytes(8)
        + kind.to_bytes(2, "little")
        + machine.to_bytes(2, "little")
    )


@pytest.mark.parametrize("kind", [2, 3])  # ET_EXEC, ET_DYN
@pytest.mark.parametrize("abi", [0, 3])  # System V, GNU/Linux
def test_the_rule_is_for_that_machine_only(kind: int, abi: int) -> None:
    assert matches("aarch64", header(kind, 183, abi))
    assert matches("x86_64", header(kind, 62, abi))
    assert not matches("aarch64", header(kind, 62, abi))
    assert not matches("x86_64", header(kind, 183, abi))


@pytest.mark.parametrize("kind", [1, 4])  # ET_REL, ET_CORE
def test_what_is_no_program_is_not_started(kind: int) -> None:
    assert not matches("aarch64", header(kind, 183))


def test_own_programs_run(root: Path) -> None:
    own = next(name for name, machine in binfmt.MACHINES.items() if machine == os.uname().machine)
    assert binfmt.finding(own, root).state is State.OK


def test_register_writes_the_rule(root: Path, tree: ToolsTree) -> None:
    assert binfmt.finding(OTHER, root).state is State.NOTE
    binfmt.register(OTHER, tree, root)
    rule = (root / "register").read_text()
    assert rule.startswith(f":{NAME}:M::\\x7f\\x45\\x4c\\x46")
    assert rule.endswith(f":{tree.path}/usr/bin/{NAME}:PF")
    assert len(rule) < 1920, "the kernel takes no longer one"


def test_what_is_registered_stays(root: Path, tree: ToolsTree) -> None:
    (root / NAME).write_text("enabled\ninterpreter /usr/bin/other\n")
    binfmt.register(OTHER, tree, root)
    assert (root / "register").read_text() == ""


def test_one_that_is_switched_off_does_not_run(root: Path) -> None:
    (root / NAME).write_text("disabled\ninterpreter /usr/bin/other\n")
    assert binfmt.finding(OTHER, root).state is State.NOTE


def test_require_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = binfmt.finding(OTHER, tmp_path)
    monkeypatch.setattr(binfmt, "finding", lambda _: missing)
    with pytest.raises(MissingToolError) as caught:
        binfmt.require(OTHER)
    assert f"k3img doctor --fix --target {OTHER}" in caught.value.hint


def test_a_tree_without_qemu_user(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match=NAME):
        binfmt.register(OTHER, ToolsTree(path=tmp_path, packages={}), root)
