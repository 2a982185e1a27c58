"""The process, with programs that are no QEMU."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from k3img.vm.child import Child, wait_for_socket
from k3img.vm.faults import MachineError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs


def start(folder: Path, script: str) -> Child:
    return Child(["sh", "-c", script], log=folder / "qemu.log", cwd=folder)


def test_early_end_is_told_in_its_own_words(tmp_path: Path) -> None:
    qemu = start(tmp_path, "echo 'qemu: unsupported machine type' >&2; exit 1")
    with pytest.raises(MachineError) as caught:
        wait_for_socket(tmp_path / "qmp", qemu, timeout=20)
    assert caught.value.brief == "QEMU ended by itself (exit status 1)"
    assert "unsupported machine type" in caught.value.details
    assert qemu.failed


def test_socket_that_never_comes(tmp_path: Path) -> None:
    qemu = start(tmp_path, "sleep 60")
    with pytest.raises(MachineError, match="no socket"):
        wait_for_socket(tmp_path / "qmp", qemu, timeout=0.1)
    qemu.stop()
    assert not qemu.running


def test_kill_and_stop(tmp_path: Path) -> None:
    qemu = start(tmp_path, "exec sleep 60")
    assert qemu.running
    qemu.kill()
    assert not qemu.running
    qemu.stop()
    with pytest.raises(MachineError, match="signal 9"):
        qemu.check()


def test_stop_is_polite_first(tmp_path: Path) -> None:
    qemu = start(tmp_path, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    while not qemu.messages().endswith("up"):
        time.sleep(0.01)
    qemu.stop()
    assert "bye" in qemu.messages()
    assert not qemu.failed


def test_environment_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K3IMG_TEST_SECRET", "x")
    qemu = start(tmp_path, "env")
    assert qemu.wait_until_ended(10)
    assert "LANG=C.UTF-8" in qemu.messages()
    assert "K3IMG_TEST_SECRET" not in qemu.messages()
