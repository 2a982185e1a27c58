"""Lock files: what is written is read back, the same content is the same text, bad files are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from k3img.errors import BuildError, ProfileError
from k3img.profile.model import Arch
from k3img.runtime import lock as locks
from k3img.runtime.lock import Lock
from k3img.runtime.release import Artifact, Proof
from k3img.tools.apt import PackageFile

VERSION = "v1.36.3+k3s1"
DAY = "2026-11-25"


def package(name: str = "libc6", **values: str) -> PackageFile:
    every = {
        "version": "2.41-12+deb13u5",
        "arch": "amd64",
        "sha256": "c" * 64,
        "filename": f"pool/main/x/{name}_1%3a2.41-12~1+deb13u5_amd64.deb",
        "suite": "trixie",
    }
    return PackageFile(name=name, **{**every, **values})


def artifact(sha256: str = "a" * 64, version: str = VERSION, arch: Arch = Arch.X86_64) -> Artifact:
    return Artifact(
        path=Path("/cache/k3s"),
        version=version,
        arch=arch,
        name="k3s" if arch is Arch.X86_64 else "k3s-arm64",
        sha256=sha256,
        source="https://mirror/v1.36.3%2Bk3s1/k3s",
        proof=Proof.CHECKSUMS,
    )


def full() -> Lock:
    lock = Lock(made=DAY, extra={"ca": {"x86": {"sha256": "d" * 64, "days": 3650}}, "a": [1, "2", None]})
    lock = lock.with_k3s(artifact(), made=DAY).with_k3s(artifact("b" * 64, arch=Arch.ARM64), made=DAY)
    lock = lock.with_packages("tools", [package("mkosi"), package("apt", version="on")], made=DAY)
    return lock.with_packages("image", [package(), package("systemd", arch="all", version="1e3")], made=DAY)


def problems(text: str) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        locks.parse(text.encode(), "x.lock.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x86.lock.yaml"
    locks.write(full(), path)
    assert locks.read(path) == full()
    text = path.read_text()
    assert text.startswith("# What x86 is built from")
    assert locks.text(locks.parse(text.encode(), "x"), "x86") == text
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["x86.lock.yaml"]


def test_each_package_is_a_line() -> None:
    text = locks.text(full(), "x86")
    assert sum("name: " in line for line in text.splitlines()) == 4
    assert text.index("name: libc6") < text.index("name: systemd") < text.index("name: apt")


def test_the_order_that_things_came_in_does_not_matter() -> None:
    one = Lock(made=DAY).with_packages("image", [package("aa"), package("bb"), package("aa")], made=DAY)
    other = Lock(made=DAY).with_packages("image", [package("bb"), package("aa")], made=DAY)
    assert locks.text(one, "x") == locks.text(other, "x")
    assert one.digest == other.digest


def test_the_digest_is_of_what_is_built_alone() -> None:
    lock = full()
    assert lock.k3s is not None
    same = replace(lock, made="2031-01-01")
    file = replace(lock.k3s.files["amd64"], source="/elsewhere")
    assert same.digest == lock.digest
    assert replace(lock, k3s=replace(lock.k3s, files={**lock.k3s.files, "amd64": file})).digest == lock.digest
    others = [
        replace(lock, k3s=None),
        replace(lock, extra={}),
        replace(lock, packages={}),
        replace(lock, k3s=replace(lock.k3s, version="v1.36.4+k3s1")),
        replace(lock, packages={**lock.packages, "image": (package(sha256="e" * 64),)}),
        replace(lock, packages={"image": lock.packages["tools"], "tools": lock.packages["image"]}),
    ]
    assert len({lock.digest, *(other.digest for other in others)}) == len(others) + 1


def test_no_file_is_no_lock(tmp_path: Path) -> None:
    assert locks.read(tmp_path / "absent") is None
    assert locks.path_of(Path("profiles/x86.yaml")) == Path("profiles/x86.lock.yaml")
    with pytest.raises(ProfileError):
        locks.read(tmp_path)


def test_a_changed_hash_of_a_locked_version_names_both() -> None:
    lock = full()
    assert lock.with_k3s(artifact(), made="2031-01-01") is lock
    with pytest.raises(BuildError, match="is not the one in the lock file") as caught:
        lock.with_k3s(artifact("f" * 64), made=DAY)
    assert "a" * 64 in caught.value.details
    assert "f" * 64 in caught.value.details
    with pytest.raises(BuildError, match="libc6 2") as caught:
        lock.with_packages("image", [package(sha256="f" * 64)], made=DAY)
    assert "c" * 64 in caught.value.details


def test_a_new_version_makes_room_for_itself() -> None:
    lock = full().with_k3s(artifact("f" * 64, version="v1.36.4+k3s1"), made="2026-12-01")
    assert lock.k3s is not None
    assert lock.made == "2026-12-01"
    assert set(lock.k3s.files) == {"amd64"}
    newer = lock.with_packages("image", [package(version="3", sha256="f" * 64)], made="2026-12-02")
    assert [p.version for p in newer.packages["image"]] == ["3"]
    assert newer.packages["tools"] == lock.packages["tools"]


def test_keys_of_a_later_version_are_kept() -> None:
    text = f'format: 1\nmade: "{DAY}"\nca: {{x: [1, {{y: z}}]}}\nlater: 3\n'
    lock = locks.parse(text.encode(), "x")
    assert yaml.safe_load(locks.text(lock, "x")) == yaml.safe_load(text)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x86.lock.yaml"
    path.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(BuildError, match="No space left"):
        locks.write(full(), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x86.lock.yaml"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot write"):
        locks.write(full(), tmp_path / "absent" / "x.lock.yaml")


def test_every_problem_has_its_line() -> None:
    text = locks.text(full(), "x86")
    lines = text.replace("c" * 64, "C" * 64).replace("format: 1", "format: 2").splitlines()
    found = problems("\n".join(lines))
    assert len(found) == 5
    assert any(f"x.lock.yaml:{lines.index('format: 2') + 1}: format: " in each for each in found)
    bad = [n for n, line in enumerate(lines, 1) if "C" * 64 in line]
    assert sorted(bad) == sorted(int(each.split(":")[1]) for each in found if "sha256" in each)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "must be a mapping"),
        ("- 1", 1, "must be a mapping"),
        ("format: 1\nmade: 2026-11-25", 2, "a date, quoted"),
        ("format: 1\nmade: ''", 2, "a date"),
        ("format: 1", 1, "made: is missing"),
        ('format: 1\nmade: "2026-11-25"\non: 1', 1, "the key True"),
        ('format: 1\nmade: "2026-11-25"\nk3s: x', 3, "k3s: must be a mapping"),
        ('format: 1\nmade: "2026-11-25"\nk3s:\n  version: 1.30', 4, "but it is 1.3"),
        ('format: 1\nmade: "2026-11-25"\nk3s:\n  version: x\n  files:\n    amd64: {file: k3s}', 6, "missing"),
        ('format: 1\nmade: "2026-11-25"\npackages:\n  other: []', 4, "unknown; there are image"),
        ('format: 1\nmade: "2026-11-25"\npackages:\n  image: {}', 4, "must be a list"),
        ('format: 1\nmade: "2026-11-25"\npackages:\n  image:\n  - 3', 5, "must be a mapping"),
        ("format: 1\nmade: [", 0, "not YAML"),
        ("format: 1\n\tmade: x", 2, "not YAML"),
        ("a: !!python/object/apply:os.system [ls]", 1, "not YAML"),
        ("\0", 0, "not YAML"),
    ],
)
def test_bad_files(text: str, line: int, what: str) -> None:
    found = problems(text)
    assert any(what in each for each in found), found
    if line:
        assert any(each.startswith(f"x.lock.yaml:{line}: ") for each in found), found


def test_keys_twice() -> None:
    assert any("twice" in each for each in problems('format: 1\nmade: "2026-11-25"\nmade: "2026-11-26"\n'))


@pytest.mark.parametrize(
    "values",
    [
        {"filename": "/etc/passwd.deb"},
        {"filename": "pool/../../x.deb"},
        {"filename": "pool/x y.deb"},
        {"filename": "pool/x"},
        {"name": "Bad Name"},
        {"sha256": "0" * 63},
        {"sha256": "0" * 65},
        {"arch": ""},
        {"suite": " "},
        {"extra": "x"},
        {"version": 3},
    ],
)
def test_bad_packages(values: dict[str, Any]) -> None:
    item = {
        "name": "a0",
        "version": "1",
        "arch": "all",
        "sha256": "0" * 64,
        "filename": "p/a.deb",
        "suite": "t",
    }
    text = yaml.safe_dump({"format": 1, "made": DAY, "packages": {"image": [{**item, **values}]}})
    assert len(problems(text)) == 1


def test_hostile_files_end_quickly() -> None:
    assert "not UTF-8" in problems_of(b"a\n\xff")
    assert "larger than" in problems_of(b"x" * (21 << 20))
    assert "nest" in problems_of(b"[" * 100_000)
    assert "nested too deeply" in problems_of(b"[" * 50 + b"]" * 50)
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(97 + n)}: &{chr(97 + n)} [{','.join([f'*{chr(96 + n)}'] * 9)}]\n" for n in range(1, 12)
    )
    assert "aliases" in problems_of(bomb.encode())


def problems_of(data: bytes) -> str:
    with pytest.raises(ProfileError) as caught:
        locks.parse(data, "x")
    return "\n".join(map(str, caught.value.problems))
