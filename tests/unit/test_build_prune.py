"""What the cache forgets by itself, and what never."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

from k3img.build import prune

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def made(cache: Path, name: str, days: float) -> Path:
    folder = cache / name
    folder.mkdir(parents=True)
    (folder / "file").write_text("content")
    when = time.time() - days * 86400
    os.utime(folder, (when, when))
    return folder


def test_what_nobody_used_for_a_month_goes_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "remove", shutil.rmtree)
    old, young = made(tmp_path, "trees/a", 31), made(tmp_path, "trees/b", 29)
    kept = made(tmp_path, "k3s/c", 99)
    (tmp_path / "initrd").mkdir()
    stray = tmp_path / "initrd/.lock"
    stray.write_text("")
    os.utime(stray, (0, 0))
    prune.prune(tmp_path)
    assert [path.exists() for path in (old, young, kept, stray)] == [False, True, True, True]
    assert str(old) in capsys.readouterr().err
    prune.prune(tmp_path)
    assert not capsys.readouterr().err


def test_what_is_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "remove", shutil.rmtree)
    folder = made(tmp_path, "runtime-unpacked/a", 300)
    prune.used(folder)
    prune.prune(tmp_path)
    assert folder.exists()
    prune.used(tmp_path / "gone")
