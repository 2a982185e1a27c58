"""A board's boot firmware: which package is taken, what is said when there is none, what goes on the ESP."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from tests.unit.test_build_packages import Mirror, deb

from k3img import proc
from k3img.build import firmware
from k3img.errors import BuildError
from k3img.plan.model import BootFirmware, BootPackage
from k3img.profile.model import Arch
from k3img.runtime.lock import Lock
from k3img.tools.apt import PackageRecord

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.tools.debrepo import Deb
    from k3img.tree import Tree

WANTED = (
    BootPackage(name="pi-firmware", at_least="5", suites=("forky", "sid")),
    BootPackage(name="u-boot", at_least="7", suites=("experimental",)),
)
STEP = BootFirmware(
    packages=WANTED,
    files=(("pi-firmware", "usr/lib/start*.elf", ""), ("u-boot", "usr/lib/boot.bin", "u-boot.bin")),
    device_trees=(),
    texts=(("config.txt", "arm_64bit=1\n"),),
    mirror=None,
    reason="",
)
DAY = "2026-11-25"


@pytest.fixture(autouse=True)
def mirror(monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror, and versions that are plain numbers: dpkg itself compares those of Debian."""
    monkeypatch.setattr(firmware, "older", lambda one, other: int(one) < int(other))
    there = Mirror()
    monkeypatch.setattr(firmware, "PrivateApt", there)
    monkeypatch.setattr(firmware, "sources", lambda suite, mirror, **options: f"{suite} {mirror} {options}")
    return there


def record(name: str, version: str, suite: str) -> PackageRecord:
    digest = hashlib.sha256(f"{name}{version}{suite}".encode()).hexdigest()
    return PackageRecord(
        name=name, version=version, arch="all", sha256=digest, size=1, filename="x.deb", uri="", suite=suite,
        stanza="",
    )  # fmt: skip


def get(tree: Tree, *, lock: Lock | None = None, kept: Path | None = None) -> tuple[Deb, ...]:
    return firmware.get(STEP, Arch.ARM64, tree, lock=lock, kept=kept, log=None, note=lambda _: None)


def stock(mirror: Mirror) -> Lock:
    pins = [mirror.add("pi-firmware", "6", "all"), mirror.add("u-boot", "8", "arm64")]
    places = {"pi-firmware": "sid", "u-boot": "experimental"}
    mirror.records = [PackageRecord(**{**vars(item), "suite": places[item.name]}) for item in mirror.records]
    return Lock(made=DAY).with_packages(firmware.SECTION, pins, made=DAY)


def test_the_newest_of_the_named_suites() -> None:
    there = [
        record("pi-firmware", "6", "sid"),
        record("pi-firmware", "9", "sid"),
        record("pi-firmware", "12", "experimental"),
        record("u-boot", "7", "experimental"),
    ]
    assert [item.version for item in firmware.choose(WANTED, there)] == ["9", "7"]


def test_all_that_is_missing_is_said_at_once() -> None:
    there = [record("pi-firmware", "4", "forky"), record("pi-firmware", "9", "trixie")]
    with pytest.raises(BuildError, match="boot firmware cannot be had") as caught:
        firmware.choose(WANTED, there)
    first, second = caught.value.details.splitlines()
    assert "4 (forky), 9 (trixie); 5 or newer is wanted, from forky, sid" in first
    assert second == "u-boot: the mirror has none; 7 or newer is wanted, from experimental"
    assert "--package-dir" in caught.value.hint


def test_lists_may_be_old_but_are_signed(mirror: Mirror, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def apt(_: Path, text: str, *__: object, **___: object) -> Mirror:
        said.append(text)
        return mirror(tree.cache, text, "arm64")

    monkeypatch.setattr(firmware, "PrivateApt", apt)
    stock(mirror)
    get(tree)
    assert "'check_valid_until': False" in said[0]
    assert "trusted" not in said[0].lower()


def test_without_a_lock_the_mirror_is_asked(mirror: Mirror, tree: Tree) -> None:
    stock(mirror)
    assert [(item.name, item.version) for item in get(tree)] == [("pi-firmware", "6"), ("u-boot", "8")]


def test_a_lock_gives_its_files_and_asks_for_them_once(mirror: Mirror, tree: Tree) -> None:
    lock = stock(mirror)
    mirror.add("u-boot", "9", "arm64")
    assert [item.version for item in get(tree, lock=lock)] == ["6", "8"]
    mirror.broken = True
    assert [item.version for item in get(tree, lock=lock)] == ["6", "8"]


def test_a_locked_file_that_is_gone_stops_the_build(mirror: Mirror, tree: Tree) -> None:
    lock = stock(mirror)
    mirror.files.clear()
    with pytest.raises(BuildError, match="not to be had"):
        get(tree, lock=lock)


def test_a_kept_file_takes_its_place(mirror: Mirror, tree: Tree, tmp_path: Path) -> None:
    lock = stock(mirror)
    mirror.files.clear()
    mirror.broken = True
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "a.deb").write_bytes(deb("pi-firmware", "6", "all"))
    (kept / "b.deb").write_bytes(deb("u-boot", "8", "arm64"))
    (kept / "c.deb").write_bytes(deb("u-boot", "99", "arm64"))
    assert [item.version for item in get(tree, lock=lock, kept=kept)] == ["6", "8"]
    assert [item.version for item in get(tree, kept=kept)] == ["6", "99"]


def test_kept_files_that_are_too_old_are_not_taken(mirror: Mirror, tree: Tree, tmp_path: Path) -> None:
    stock(mirror)
    (tmp_path / "a.deb").write_bytes(deb("pi-firmware", "4", "all"))
    assert [item.version for item in get(tree, kept=tmp_path)] == ["6", "8"]


def test_a_lock_that_is_older_than_the_profile(mirror: Mirror, tree: Tree) -> None:
    pins = [mirror.add("pi-firmware", "4", "all"), mirror.add("u-boot", "8", "arm64")]
    lock = Lock(made=DAY).with_packages(firmware.SECTION, pins, made=DAY)
    with pytest.raises(BuildError, match="has pi-firmware 4; the profile wants 5"):
        get(tree, lock=lock)
    with pytest.raises(BuildError, match="lacks pi-firmware"):
        get(tree, lock=Lock(made=DAY))


def test_a_mirror_that_cannot_be_asked(mirror: Mirror, tree: Tree) -> None:
    mirror.broken = True
    with pytest.raises(BuildError, match="cannot be asked") as caught:
        get(tree)
    assert "--package-dir" in caught.value.hint


def test_what_lies_on_the_esp(
    mirror: Mirror, tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock(mirror)
    content = {"pi-firmware": ["start4.elf", "startx.elf"], "u-boot": ["boot.bin"]}

    def extract(argv: tuple[str, str, Path, Path], **_: object) -> str:
        folder = argv[3] / "usr/lib"
        folder.mkdir(parents=True)
        for file in content[argv[3].name]:
            (folder / file).write_text(file)
        return ""

    monkeypatch.setattr(proc, "run", extract)
    debs = get(tree)
    esp = tmp_path / "efi"
    firmware.place(STEP, debs, esp, tmp_path / "scratch")
    assert {path.name: path.read_text() for path in esp.iterdir()} == {
        "start4.elf": "start4.elf",
        "startx.elf": "startx.elf",
        "u-boot.bin": "boot.bin",
        "config.txt": "arm_64bit=1\n",
    }
    content["u-boot"] = []
    with pytest.raises(BuildError, match=r"u-boot 8 has no usr/lib/boot\.bin"):
        firmware.place(STEP, debs, esp, tmp_path / "scratch")
