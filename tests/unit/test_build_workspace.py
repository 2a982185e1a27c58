"""The folder of a build, what is copied into it, how results are published, what a failed mkosi says."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from k3img.build import mkosi, workspace
from k3img.build.model import Packages
from k3img.build.workspace import Workspace
from k3img.errors import BuildError
from k3img.log import Step
from k3img.tools import host

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.tree import Tree


def test_a_workspace_is_emptied_and_locked(tree: Tree, fake_program: FakePrograms) -> None:
    fake_program.add("rm", 'exec /bin/rm "$@"')
    with workspace.opened(tree, "x86") as work:
        (work.root / "left").mkdir()
        (work.output / "half.raw").touch()
    with workspace.opened(tree, "x86") as work:
        assert {path.name for path in work.root.iterdir()} == {"lock", "output", "build.log", "tmp"}
        assert list(work.output.iterdir()) == []
        with (
            pytest.raises(BuildError, match="another build of x86 is running") as caught,
            workspace.opened(tree, "x86"),
        ):
            pass
        assert str(work.log) in caught.value.hint
        with workspace.opened(tree, "other"):
            pass


@pytest.fixture(autouse=True)
def no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own memory is not touched."""
    monkeypatch.setattr(workspace, "MEMORY", tmp_path / "none")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place in memory with room for a build."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(workspace, "MEMORY", folder)
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(workspace, "ROOM", 1 << 20)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 2048 kB\n")
    return folder


def test_trees_are_laid_out_in_memory(tree: Tree, memory: Path, fake_program: FakePrograms) -> None:
    fake_program.add("rm", 'exec /bin/rm "$@"')
    with workspace.opened(tree, "x86") as work:
        assert work.scratch.parent == memory
        assert stat.S_IMODE(work.scratch.stat().st_mode) == 0o700
        left = work.scratch
    assert list(memory.iterdir()) == []
    left.mkdir()
    (left / "killed").touch()
    with workspace.opened(tree, "x86") as work:
        assert list(work.scratch.iterdir()) == []


@pytest.mark.parametrize("meminfo", ["MemAvailable: 2047 kB\n", "MemFree: 9999 kB\n", "nonsense"])
def test_without_much_memory_trees_are_on_disk(tree: Tree, memory: Path, meminfo: str) -> None:
    host.MEMINFO.write_text(meminfo)
    with workspace.opened(tree, "x86") as work:
        assert work.scratch == work.root / "tmp"
        assert list(memory.iterdir()) == []


def test_a_small_place_in_memory_is_not_used(
    tree: Tree, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = os.statvfs(memory)
    shm = SimpleNamespace(f_bavail=255, f_frsize=4096, f_flag=small.f_flag)
    monkeypatch.setattr(os, "statvfs", lambda _: shm)
    with workspace.opened(tree, "x86") as work:
        assert work.scratch == work.root / "tmp"
    shm.f_bavail, shm.f_flag = 256, os.ST_NOEXEC
    with workspace.opened(tree, "other") as work:
        assert work.scratch == work.root / "tmp"


def test_a_name_that_somebody_else_took_is_left_alone(
    tree: Tree, memory: Path, fake_program: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_program.add("rm", 'exec /bin/rm "$@"')
    with workspace.opened(tree, "x86") as work:
        name = work.scratch.name
    (memory / name).mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with workspace.opened(tree, "x86") as work:
        assert work.scratch == work.root / "tmp"
    assert (memory / name).is_dir()


def test_who_waits_for_the_lock_touches_nothing(tree: Tree, fake_program: FakePrograms) -> None:
    with workspace.opened(tree, "x86") as work:
        (work.root / "mine").touch()
        with pytest.raises(BuildError), workspace.opened(tree, "x86"):
            pass
        assert (work.root / "mine").exists()
        with (work.root / "lock").open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_publishing_replaces_by_rename_and_removes_the_old(tmp_path: Path) -> None:
    out, made = tmp_path / "out", tmp_path / "made"
    out.mkdir()
    made.mkdir()
    for name in ("x_1.raw", "manifest.json", ".x_1.raw.part"):
        (out / name).write_text("old")
    (out / "verify").mkdir()
    (made / "x_2.raw").write_text("new")
    (made / "manifest.json").write_text("new")
    before = (out / "manifest.json").stat().st_ino
    workspace.publish({path.name: path for path in sorted(made.iterdir())}, out)
    assert {path.name for path in out.iterdir()} == {"x_2.raw", "manifest.json", "verify"}
    assert (out / "manifest.json").read_text() == "new"
    assert (out / "manifest.json").stat().st_ino != before


def test_what_cannot_be_published_leaves_the_old_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_program: FakePrograms
) -> None:
    """Another disk, and no room on it."""
    fake_program.add("cp", 'eval "to=\\${$#}"; echo half > "$to"; echo "No space left on device" >&2; exit 1')
    out, made = tmp_path / "out", tmp_path / "made"
    out.mkdir()
    made.mkdir()
    (out / "manifest.json").write_text("old")
    (out / "x_1.raw").write_text("old")
    (made / "x_2.raw").write_text("new")
    real = type(made).rename

    def rename(path: Path, target: Path) -> Path:
        if path.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(path, target)

    monkeypatch.setattr(type(made), "rename", rename)
    with pytest.raises(BuildError, match=r"cannot put x_2\.raw into") as caught:
        workspace.publish({"x_2.raw": made / "x_2.raw"}, out)
    assert "No space left" in caught.value.details
    assert {path.name for path in out.iterdir()} == {"manifest.json", "x_1.raw"}
    fake_program.add("cp", 'exec /bin/cp "$@"')
    (made / "manifest.json").write_text("new")
    workspace.publish({path.name: path for path in sorted(made.iterdir())}, out)
    assert (out / "manifest.json").read_text() == "new"
    assert {path.name for path in out.iterdir()} == {"manifest.json", "x_2.raw"}
    assert list(made.iterdir()) == []


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, made = tmp_path / "out", tmp_path / "made"
    out.mkdir()
    made.mkdir()
    (out / "manifest.json").write_text("old")
    names = ("manifest.json", "x.raw", "SHA256SUMS")
    for name in names:
        (made / name).write_text("new")
    real = type(made).rename
    order: list[str] = []

    def rename(path: Path, target: Path) -> Path:
        if target.parent == out and not target.name.startswith("."):
            order.append(target.name)
            assert not (out / "manifest.json").exists()
        return real(path, target)

    monkeypatch.setattr(type(made), "rename", rename)
    workspace.publish({name: made / name for name in names}, out)
    assert order[-1] == "manifest.json"
    assert sorted(order) == sorted(names)


def test_copying_keeps_modes_and_links(tmp_path: Path) -> None:
    source = tmp_path / "overlay"
    (source / "usr").mkdir(parents=True)
    (source / "usr/program").write_text("#!")
    (source / "usr/program").chmod(0o755)
    (source / "usr/link").symlink_to("nowhere")
    workspace.copy_folder(source, tmp_path / "extra")
    assert (tmp_path / "extra/usr/program").stat().st_mode & 0o777 == 0o755
    assert os.readlink(tmp_path / "extra/usr/link") == "nowhere"  # noqa: PTH115 - as written


# --- names of cached results


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "tree/etc").mkdir(parents=True)
    (folder / "tree/etc/a").write_text("a")
    (folder / "tree/link").symlink_to("etc/a")
    (folder / "mkosi.conf").write_text("[Content]\n")
    (folder / "other").write_text("x")
    return folder


def test_the_same_content_has_the_same_name(project_folder: Path, tmp_path: Path) -> None:
    names = ("mkosi.conf", "tree")
    key = mkosi.project_key(project_folder, names, "more")
    assert len(key) == 16
    moved = project_folder.rename(tmp_path / "elsewhere")
    assert mkosi.project_key(moved, names, "more") == key
    (moved / "other").write_text("y")
    os.utime(moved / "mkosi.conf", (1, 1))
    assert mkosi.project_key(moved, names, "more") == key


def test_whatever_decides_the_result_is_in_the_name(project_folder: Path) -> None:
    names = ("mkosi.conf", "tree")
    keys = [mkosi.project_key(project_folder, names, "more"), mkosi.project_key(project_folder, names, "mor")]
    (project_folder / "mkosi.conf").write_text("[Content]\nx")
    keys.append(mkosi.project_key(project_folder, names, "more"))
    (project_folder / "tree/etc/a").write_text("b")
    keys.append(mkosi.project_key(project_folder, names, "more"))
    (project_folder / "tree/etc/a").rename(project_folder / "tree/etc/b")
    keys.append(mkosi.project_key(project_folder, names, "more"))
    (project_folder / "tree/etc/b").chmod(0o755)
    keys.append(mkosi.project_key(project_folder, names, "more"))
    (project_folder / "tree/link").unlink()
    (project_folder / "tree/link").symlink_to("etc/b")
    keys.append(mkosi.project_key(project_folder, names, "more"))
    assert len(set(keys)) == len(keys)


def test_the_end_of_one_part_is_not_the_begin_of_the_next(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, texts in ((one, ("xb\0y", "")), (other, ("x", "y"))):
        folder.mkdir()
        for name, text in zip("ab", texts, strict=True):
            (folder / name).write_text(text)
    assert mkosi.project_key(one, ("a", "b")) != mkosi.project_key(other, ("a", "b"))


# --- what a failed mkosi says


class _Box:
    mkosi = ("mkosi",)
    tools_tree = "/tools"


def run_mkosi(tmp_path: Path, fakes: FakePrograms, script: str) -> Workspace:
    fakes.add("mkosi", script)
    work = Workspace(root=tmp_path / "work", scratch=tmp_path / "scratch")
    for folder in (work.image, work.output):
        folder.mkdir(parents=True, exist_ok=True)
    mkosi.run(
        work.image,
        work,
        _Box(),  # type: ignore[arg-type]
        Step("Building", depth=0),
        packages=Packages(sources="", kept=tmp_path / "kept"),
        output=work.output,
    )
    return work


def test_mkosi_gets_its_folders_and_its_output_is_kept(
    tmp_path: Path, fake_program: FakePrograms, capsys: pytest.CaptureFixture[str]
) -> None:
    work = run_mkosi(tmp_path, fake_program, "echo '‣  Installing Debian'; echo noise")
    assert "noise" in work.log.read_text()
    shown = capsys.readouterr().err
    assert "Installing Debian" in shown
    assert "noise" not in shown
    (call,) = fake_program.calls("mkosi")
    assert f"--package-cache-dir {tmp_path}/kept" in call
    assert call.endswith("--force build")


@pytest.mark.parametrize(("said", "hint"), mkosi.WHAT_TO_TRY, ids=[mark for mark, _ in mkosi.WHAT_TO_TRY])
def test_a_failed_mkosi_says_what_to_try(
    said: str, hint: str, tmp_path: Path, fake_program: FakePrograms
) -> None:
    long = "x" * 5000
    with pytest.raises(BuildError, match="mkosi could not build the image") as caught:
        run_mkosi(tmp_path, fake_program, f'echo "E: {said}" >&2; echo {long}; exit 1')
    assert hint in caught.value.hint
    assert "build.log" in caught.value.hint
    assert f"E: {said}" in caught.value.details
    assert long not in caught.value.details
    assert caught.value.exit_code == 4


def test_a_killed_mkosi_says_so(tmp_path: Path, fake_program: FakePrograms) -> None:
    noise = 'for n in 1 2 3; do echo "/usr/bin/dpkg --root=/buildroot $n"; done'
    with pytest.raises(BuildError, match="could not build the image: it was ended by SIGKILL") as caught:
        run_mkosi(tmp_path, fake_program, f"echo '‣ Installing'; {noise}; kill -9 $$")
    assert caught.value.details == "‣ Installing"
