"""The sandbox that a k3s file unpacks itself in: its words, and what is missing where it cannot be had."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k3img import proc
from k3img.build import selfrun
from k3img.errors import MissingToolError
from k3img.profile.model import Arch

if TYPE_CHECKING:
    from tests.conftest import FakePrograms

CACHED = "/cache/tools/mkosi-25.3-7/launch.py"


def test_the_sandbox_shows_nothing_that_can_be_written_but_the_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = selfrun.command(("mkosi",), (), Path("/c/program"), Path("/c/data"))
    before = words[: words.index("--")]
    assert words[:2] == ["unshare", "--map-root-user"]
    assert {"--net", "--pid", "--kill-child"} <= set(before)
    assert [before[n + 1] for n, word in enumerate(before) if word == "--bind"] == ["/c/data"]
    assert words[-4:] == ["/k3s", "--data-dir", "/data", "check-config"]
    assert "--no-new-privs" in words


def test_root_needs_no_user_name_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--map-root-user" not in selfrun.command(("mkosi",), (), Path("/p"), Path("/d"))


def test_mkosis_sandbox_is_the_one_beside_it(tmp_path: Path) -> None:
    assert selfrun.sandbox(("/usr/bin/mkosi",)) == ["mkosi-sandbox"]
    assert selfrun.sandbox(("python3", CACHED)) == ["mkosi-sandbox"]
    script = tmp_path / "usr/lib/python3/dist-packages/mkosi/sandbox.py"
    script.parent.mkdir(parents=True)
    script.touch()
    assert selfrun.sandbox(("python3", str(tmp_path / "launch.py"))) == ["python3", "-I", str(script)]


def test_another_architecture_needs_an_emulator(
    fake_program: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert selfrun.emulator(Arch.X86_64) == []
    static = fake_program.add("qemu-aarch64-static")
    fake_program.add("qemu-aarch64")
    assert selfrun.emulator(Arch.ARM64) == [str(static)]
    words = selfrun.command(("mkosi",), selfrun.emulator(Arch.ARM64), Path("/p"), Path("/d"))
    assert words[-5:] == [str(static), "/k3s", "--data-dir", "/data", "check-config"]
    assert words[words.index(str(static)) - 1] == "--ro-bind"


def test_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(proc, "which", lambda _: None)
    with pytest.raises(MissingToolError, match="qemu-x86_64") as caught:
        selfrun.emulator(Arch.X86_64)
    assert "qemu-user-static" in caught.value.hint


def test_the_copy_that_was_run_is_removed(tmp_path: Path, fake_program: FakePrograms) -> None:
    fake_program.add("unshare", f"test -x {tmp_path}/program || exit 9")
    (tmp_path / "k3s").write_bytes(b"k3s")
    (tmp_path / "k3s").chmod(0o444)
    selfrun.self_unpacker(("mkosi",), Arch.X86_64)(tmp_path / "k3s", tmp_path / "self")
    assert {path.name for path in tmp_path.iterdir()} == {"k3s", "fake-bin"}
