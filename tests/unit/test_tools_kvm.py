"""The KVM probe: what each end of the guest means, and what is remembered."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from k3img.errors import MissingToolError
from k3img.tools import kvm
from k3img.tools.kvm import Kvm
from k3img.tools.toolbox import TOOLS, Program, Toolbox, Where
from k3img.tools.tools_tree import ToolsTree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.tree import Tree

CRASH = "echo 'KVM internal error. Suberror: 1' >&2; echo 'emulation failure' >&2; exec sleep 60"


def toolbox(tmp_path: Path, qemu: Path, version: str = "10.0.13") -> Toolbox:
    root = tmp_path / "tools"
    (root / "usr/share/OVMF").mkdir(parents=True, exist_ok=True)
    for name in ("CODE", "VARS"):
        (root / f"usr/share/OVMF/OVMF_{name}_4M.fd").touch()
    program = Program(tool=TOOLS[0], where=Where.HOST, version=version, argv=(str(qemu),))
    return Toolbox(
        mkosi=("mkosi",),
        mkosi_version="25.3",
        tree=ToolsTree(path=root, packages={}),
        programs={"qemu-system-x86_64": program},
    )


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that opens."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(kvm, "DEVICE", path)
    return path


@pytest.mark.parametrize(
    ("script", "works", "why"),
    [
        ("exit 85", True, "firmware booted"),
        ("exit 0", False, "switched itself off"),
        ("echo 'qemu: kvm.c:3877: set_msrs: failed to set MSR' >&2; exit 134", False, "failed to set MSR"),
        ("echo 'Could not access KVM kernel module' >&2; exit 1", False, "Could not access KVM"),
    ],
)
def test_how_the_guest_ended(
    tmp_path: Path, fake_program: FakePrograms, script: str, works: bool, why: str
) -> None:
    qemu = fake_program.add("qemu-system-x86_64", script)
    answer = kvm.probe(toolbox(tmp_path, qemu))
    assert answer.works is works
    assert why in answer.why


def test_a_crash_that_only_stops_the_guest_ends_the_probe(tmp_path: Path, fake_program: FakePrograms) -> None:
    # QEMU writes its pid before the guest runs; the folder that holds the file is the working directory.
    qemu = fake_program.add("qemu-system-x86_64", f"echo $$ > pid; {CRASH}")
    answer = kvm.probe(toolbox(tmp_path, qemu), limit=30)
    assert not answer.works
    assert answer.why == "firmware crashed: KVM internal error. Suberror: 1"


def test_a_guest_that_hangs_is_a_no(
    tmp_path: Path, fake_program: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu = fake_program.add("qemu-system-x86_64", "exec sleep 60")
    answer = kvm.probe(toolbox(tmp_path, qemu), limit=0.3)
    assert not answer.works
    assert "did not boot within" in answer.why


def test_the_answer_is_remembered_until_qemu_changes(
    tmp_path: Path, tree: Tree, fake_program: FakePrograms, device: Path
) -> None:
    qemu = fake_program.add("qemu-system-x86_64", "exit 85")
    old = toolbox(tmp_path, qemu)
    first, second = kvm.works(old, tree), kvm.works(old, tree)
    assert (first.works, first.remembered) == (True, False)
    assert (second.works, second.remembered, second.why) == (True, True, first.why)
    kvm.works(toolbox(tmp_path, qemu, "10.1.0"), tree)
    assert len(fake_program.calls("qemu-system-x86_64")) == 2
    kvm.works(old, tree, again=True)
    assert len(fake_program.calls("qemu-system-x86_64")) == 3


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": [1, 2, 3]}'])
def test_a_damaged_memory_is_no_memory(
    tmp_path: Path, tree: Tree, fake_program: FakePrograms, device: Path, text: str
) -> None:
    tree.cache.mkdir()
    (tree.cache / "kvm.json").write_text(text)
    qemu = fake_program.add("qemu-system-x86_64", "exit 85")
    assert kvm.works(toolbox(tmp_path, qemu), tree).works


def test_without_the_device_no_guest_is_booted(
    tmp_path: Path, tree: Tree, fake_program: FakePrograms, device: Path
) -> None:
    device.unlink()
    qemu = fake_program.add("qemu-system-x86_64", "exit 85")
    answer = kvm.works(toolbox(tmp_path, qemu), tree)
    assert answer == Kvm(works=False, why=f"there is no {device}")
    assert fake_program.calls("qemu-system-x86_64") == []
    assert not (tree.cache / "kvm.json").exists()


def test_a_device_of_another_group_names_the_command(
    tmp_path: Path, tree: Tree, fake_program: FakePrograms, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError

    tools = toolbox(tmp_path, fake_program.add("qemu-system-x86_64"))
    monkeypatch.setattr("k3img.tools.kvm.os.open", denied)
    answer = kvm.works(tools, tree)
    assert not answer.works
    assert "kvm; then log in again" in answer.how


def test_the_guest_is_a_program_that_firmware_loads() -> None:
    program = kvm.efi_program(0x2A)
    (at,) = struct.unpack_from("<I", program, 0x3C)
    assert program[:2] == b"MZ"
    assert program[at : at + 4] == b"PE\0\0"
    machine, sections = struct.unpack_from("<HH", program, at + 4)
    assert (machine, sections) == (0x8664, 1)
    assert struct.unpack_from("<H", program, at + 24) == (0x20B,)  # PE32+
    assert struct.unpack_from("<H", program, at + 24 + 68) == (10,)  # an EFI application
    assert program[512:517] == bytes((0xB0, 0x2A, 0xE6, 0xF4, 0xF4))


def test_a_lost_program_is_not_an_answer(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError, match="not installed"):
        kvm.probe(toolbox(tmp_path, tmp_path / "gone"))
