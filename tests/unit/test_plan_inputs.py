"""Digests of what a plan reads besides the profile, and what it refuses to read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from k3img.errors import BuildError
from k3img.plan import inputs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    (folder / "usr/lib").mkdir(parents=True)
    (folder / "usr/lib/file").write_text("text")
    (folder / "usr/link").symlink_to("lib/file")
    return folder


def test_a_copy_has_the_same_digest_whatever_its_times(overlay: Path, tmp_path: Path) -> None:
    before = inputs.folder_digest(overlay)
    os.utime(overlay / "usr/lib/file", (1, 1))
    assert inputs.folder_digest(overlay.rename(tmp_path / "moved")) == before


def test_names_modes_contents_and_links_count(overlay: Path) -> None:
    seen = {inputs.folder_digest(overlay)}
    file = overlay / "usr/lib/file"
    file.chmod(0o755)
    seen.add(inputs.folder_digest(overlay))
    file.write_text("other")
    seen.add(inputs.folder_digest(overlay))
    file.rename(file.with_name("name"))
    seen.add(inputs.folder_digest(overlay))
    (overlay / "usr/link").unlink()
    (overlay / "usr/link").symlink_to("nowhere")
    seen.add(inputs.folder_digest(overlay))
    (overlay / "empty").mkdir()
    seen.add(inputs.folder_digest(overlay))
    assert len(seen) == 6


def test_a_folder_that_may_not_be_entered_is_never_passed_over(
    overlay: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = type(overlay).iterdir

    def iterdir(path: Path) -> object:
        if path.name == "lib":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(type(overlay), "iterdir", iterdir)
    with pytest.raises(BuildError, match=r"cannot read the folder .*usr/lib: Permission denied"):
        inputs.folder_digest(overlay)


def test_what_is_no_file_is_refused_and_not_waited_for(overlay: Path) -> None:
    os.mkfifo(overlay / "usr/pipe")
    with pytest.raises(BuildError, match="neither a file nor a folder nor a link"):
        inputs.folder_digest(overlay)


def test_a_link_that_leads_out_or_nowhere_is_only_a_link(overlay: Path) -> None:
    (overlay / "out").symlink_to("/")
    (overlay / "loop").symlink_to("loop")
    inputs.folder_digest(overlay)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        inputs.file_digest(tmp_path / "gone")
