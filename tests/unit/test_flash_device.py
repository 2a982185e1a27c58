"""Which media may be written, by what lsblk says of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from k3img.cli import flash as command
from k3img.errors import FlashError, UsageError
from k3img.flash import device

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import FakePrograms

    from k3img.tree import Tree

GB = 10**9


def row(name: str, **about: Any) -> dict[str, Any]:
    base = {"path": f"/dev/{name}", "type": "disk", "size": 32 * GB, "rm": False, "hotplug": False}
    return {**base, "ro": False, "mountpoints": [None], **about}


SYSTEM = row(
    "nvme0n1",
    model="Samsung 990",
    children=[
        row("nvme0n1p1", type="part", mountpoints=["/boot/efi"], fstype="vfat"),
        row(
            "nvme0n1p2",
            type="part",
            fstype="crypto_LUKS",
            children=[row("dm-0", type="crypt", mountpoints=["/", "/home"])],
        ),
    ],
)
CARD = row("sdb", rm=True, vendor="SanDisk ", model="Ultra  Fit", tran="usb")
OLD = row(
    "mmcblk0",
    children=[
        row("mmcblk0p1", type="part", partlabel="esp", fstype="vfat"),
        row("mmcblk0p2", type="part", partlabel="K3IMG", fstype="vfat"),
        row("mmcblk0p3", type="part", partlabel="rpi4_1.4", fstype="erofs"),
        row("mmcblk0p4", type="part", partlabel="rpi4_1.4_verity"),
        row("mmcblk0p6", type="part", partlabel="_empty_verity"),
    ],
)
DATA = row("sda", model="WD", children=[row("sda1", type="part", fstype="ext4", label="photos")])


def check(about: dict[str, Any], *, needed: int = GB, force: bool = False) -> None:
    device.check(device.medium(about), needed, parts="1 + 1", force=force)


def refused(about: dict[str, Any], **options: Any) -> FlashError:
    with pytest.raises(FlashError) as caught:
        check(about, **options)
    return caught.value


def test_a_card_is_good() -> None:
    check(CARD)
    assert str(device.medium(CARD)) == (
        "/dev/sdb  SanDisk Ultra Fit  29.8 GiB  removable, not mounted, holds nothing known"
    )


def test_a_card_in_a_slot_that_is_built_in() -> None:
    check(OLD)
    assert device.medium(OLD).holds == "k3img rpi4_1.4"


@pytest.mark.parametrize("force", [False, True])
def test_the_system_is_never_written(force: bool) -> None:
    assert "holds the running system" in refused(SYSTEM, force=force).brief


@pytest.mark.parametrize("force", [False, True])
def test_what_is_mounted_is_never_written(force: bool) -> None:
    about = {**CARD, "children": [row("sdb1", type="part", mountpoints=["/media/x", None])]}
    error = refused(about, force=force)
    assert "is in use" in error.brief
    assert "umount /media/x" in error.hint


def test_swap_is_use() -> None:
    assert "is in use" in refused({**CARD, "mountpoints": ["[SWAP]"]}).brief


def test_other_disks_need_force() -> None:
    assert "--force" in refused(DATA).hint
    assert "photos" in refused(DATA).details
    check(DATA, force=True)


def test_one_that_is_too_small_says_the_sum() -> None:
    error = refused(CARD, needed=33 * GB)
    assert error.brief == "/dev/sdb is too small: 32.0 GB, 33.0 GB are needed"
    assert error.details == "1 + 1"


def test_a_write_protected_card() -> None:
    assert "write-protected" in refused({**CARD, "ro": True}).brief


@pytest.fixture
def lsblk(fake_program: FakePrograms) -> None:
    text = json.dumps({"blockdevices": [SYSTEM, CARD, OLD, DATA]})
    fake_program.add("lsblk", f"cat <<'END'\n{text}\nEND")


@pytest.mark.usefixtures("lsblk")
def test_candidates_are_the_removable_ones() -> None:
    lines = device.candidates().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["/dev/sdb", "/dev/mmcblk0"]


@pytest.mark.usefixtures("lsblk")
def test_what_is_no_medium(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "neither a disk nor a file")):
        with pytest.raises(UsageError, match=said) as caught:
            device.find(path)
        assert "/dev/sdb" in caught.value.hint


def test_a_file_is_a_medium(tmp_path: Path) -> None:
    (tmp_path / "card").write_bytes(b"12345")
    found = device.find(tmp_path / "card")
    assert (found.size, found.removable, found.is_file) == (5, True, True)


def test_lsblk_that_says_nothing(fake_program: FakePrograms) -> None:
    fake_program.add("lsblk", "echo no json")
    with pytest.raises(FlashError, match="does not say which disks"):
        device.listed()


@pytest.mark.usefixtures("lsblk")
def test_without_a_medium_they_are_listed() -> None:
    answer = CliRunner().invoke(command.flash, ["--profile", "x86"], standalone_mode=False)
    assert "/dev/sdb  SanDisk Ultra Fit" in answer.output


def test_without_rights_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("K3IMG_CACHE", "/a cache")
    monkeypatch.setattr("sys.argv", ["/x/.venv/bin/k3img", "flash", "--profile", "rpi4", "/dev/sdb"])
    with pytest.raises(FlashError) as caught:
        command.may_write(device.medium(CARD))
    assert caught.value.hint == (
        "sudo 'K3IMG_CACHE=/a cache' /x/.venv/bin/k3img flash --profile rpi4 /dev/sdb"
    )


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, tree: Tree, tmp_path: Path) -> tuple[list[str], list[Any]]:
    """A command line that would write, and what was written so far."""
    done: list[Any] = []

    def flash(*args: Any, **named: Any) -> type[Written]:
        done.append((args, named))
        return Written

    monkeypatch.setattr("k3img.flash.run.flash", flash)
    monkeypatch.setattr("k3img.flash.run.check", lambda *a, **k: None)
    monkeypatch.setattr("k3img.image.released.load", lambda *a, **k: Named())
    monkeypatch.setattr(command, "fits", lambda *a: None)
    (tmp_path / "card").touch()
    (tree.profiles / "lab.yaml").write_text("target: {arch: x86-64}\nk3s: {version: v1.36.3+k3s1}\n")
    return ["--tree", str(tree.root), "--profile", "lab", str(tmp_path / "card")], done


def test_whoever_does_not_say_yes_is_not_written_to(ready: tuple[list[str], list[Any]], tree: Tree) -> None:
    arguments, done = ready
    answer = CliRunner().invoke(command.flash, arguments, input="n\n", standalone_mode=False)
    assert isinstance(answer.exception, click.exceptions.Abort)
    assert "Erase it and write x86 1?" in answer.output
    assert done == []
    assert not (tree.root / "secrets").exists(), "nobody agreed to a cluster"
    assert [path.name for path in tree.profiles.iterdir()] == ["lab.yaml"]


def test_a_medium_is_seeded(ready: tuple[list[str], list[Any]], tree: Tree) -> None:
    arguments, done = ready
    answer = CliRunner().invoke(command.flash, arguments, input="y\n", standalone_mode=False)
    assert answer.exception is None
    assert "node lab-1: server of cluster lab" in answer.output
    assert "k3img wait lab" in answer.output
    assert b"bootstrap: true" in done[0][1]["content"]["node.yaml"]
    assert (tree.root / "secrets/lab/ledger.yaml").exists()
    again = CliRunner().invoke(command.flash, arguments, input="n\n", standalone_mode=False)
    assert "this replaces it" in again.output
    assert "every object in the cluster is lost" in again.output
    refused = CliRunner().invoke(command.flash, [*arguments, "--yes"], standalone_mode=False)
    assert isinstance(refused.exception, UsageError)
    assert len(done) == 1


def test_a_medium_for_nobody(ready: tuple[list[str], list[Any]], tree: Tree) -> None:
    arguments, done = ready
    answer = CliRunner().invoke(command.flash, [*arguments, "--yes", "--unseeded"], standalone_mode=False)
    assert "not seeded" in answer.output
    assert done[0][1]["content"] == {}
    assert not (tree.root / "secrets").exists()


def test_a_node_that_is_not_there(ready: tuple[list[str], list[Any]], tree: Tree) -> None:
    arguments, _ = ready
    answer = CliRunner().invoke(command.flash, [*arguments, "--node", "x"], standalone_mode=False)
    assert isinstance(answer.exception, UsageError)
    assert "lab has no node x" in str(answer.exception)
    assert not (tree.root / "secrets").exists()


class Written:
    mapped, size, seconds = 1, 2, 3.0


class Named:
    name = "x86 1"
