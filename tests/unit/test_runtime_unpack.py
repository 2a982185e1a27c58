"""Taking the runtime out of self-extracting files that are made here: good ones, odd ones, hostile ones."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from k3img.errors import BuildError, ProgramError
from k3img.profile.model import Arch
from k3img.runtime.release import Artifact, Proof
from k3img.runtime.unpack import find_archive, unpack
from k3img.tools.archive import MAGIC, Unpacker, frame_end, next_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSION = "v1.36.3+k3s1"
NOISE = random.Random(1).randbytes(400_000)

# Python warns where it knows filters, and Debian 12's does not know them.
EVERYTHING: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}

PROGRAMS = {
    "bin/k3s": VERSION.encode() + NOISE,
    "bin/runc": b"runc",
    "bin/containerd-shim-runc-v2": b"shim",
    "bin/cni": b"cni",
    "bin/aux/xtables-nft-multi": b"xtables",
}
LINKS = {
    "bin/containerd": "k3s",
    "bin/kubectl": "k3s",
    "bin/host-local": "cni",
    "bin/bridge": "cni",
    "bin/aux/iptables": "xtables-nft-multi",
    "bin/aux/mount": "../runc",
}


@dataclass
class Content:
    """What goes into the archive; the lists are made from it unless given."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(PROGRAMS))
    links: dict[str, str] = field(default_factory=lambda: dict(LINKS))
    sums: str | None = None
    link_list: str | None = None
    more: list[tuple[tarfile.TarInfo, bytes]] = field(default_factory=list)
    mode: int = 0o755

    def lists(self) -> dict[str, bytes]:
        names = sorted(name.removeprefix("bin/") for name in self.files if name.startswith("bin/"))
        sums = "".join(f"{hashlib.sha256(self.files[f'bin/{n}']).hexdigest()}  {n}\n" for n in names)
        links = "".join(f"{n.removeprefix('bin/')} {t}\n" for n, t in sorted(self.links.items()))
        return {
            "bin/.sha256sums": (sums if self.sums is None else self.sums).encode(),
            "bin/.links": (links if self.link_list is None else self.link_list).encode(),
            "etc/notes": b"not in the lists",
        }

    def tar(self) -> bytes:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(entry("./bin", type=tarfile.DIRTYPE))
            for name, data in {**self.lists(), **self.files}.items():
                tar.addfile(entry(f"./{name}", size=len(data), mode=self.mode), io.BytesIO(data))
            for name, target in self.links.items():
                tar.addfile(entry(f"./{name}", type=tarfile.SYMTYPE, linkname=target))
            for info, data in self.more:
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()


def entry(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime, info.uid, info.mode = 1_700_000_000, 1234, 0o755
    for key, value in values.items():
        setattr(info, key, value)
    return info


def compress(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=3, **options).compress(data)  # type: ignore[arg-type]


def self_extracting(*archives: bytes, names: tuple[str, ...] | None = None, tail: bytes = b"tail") -> bytes:
    """Bytes like a Go program with go:embed: texts packed without ends, the archive somewhere as it is."""
    texts = names if names is not None else tuple(hashlib.sha256(a).hexdigest() for a in archives)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0" + (62).to_bytes(2, "little") + bytes(100)
    listed = b"".join(b"embed/abcdef" + name.encode() + b".tar.zstfff" for name in texts)
    return head + MAGIC + b"no frame" + listed + MAGIC + NOISE[:1000] + b"".join(archives) + tail


def artifact(folder: Path, data: bytes, version: str = VERSION) -> Artifact:
    path = folder / "k3s"
    path.write_bytes(data)
    return Artifact(
        path=path,
        version=version,
        arch=Arch.X86_64,
        name="k3s",
        sha256=hashlib.sha256(data).hexdigest(),
        source="test",
        proof=Proof.NOTHING,
    )


def made(folder: Path, content: Content) -> Artifact:
    return artifact(folder, self_extracting(compress(content.tar())))


def refused(folder: Path, what: Artifact, match: str) -> BuildError:
    """The error, after making sure that nothing at all is left."""
    with pytest.raises(BuildError, match=match) as caught:
        unpack(what, folder / "runtime")
    assert {path.name for path in folder.iterdir()} == {"k3s"}
    return caught.value


# --- good ones


def test_a_release_is_unpacked_whole(tmp_path: Path) -> None:
    archive = compress(Content().tar())
    got = unpack(artifact(tmp_path, self_extracting(archive)), tmp_path / "runtime")
    assert got.archive == hashlib.sha256(archive).hexdigest()
    assert got.version == VERSION
    assert (got.folder / "bin/k3s").read_bytes() == PROGRAMS["bin/k3s"]
    assert got.files["bin/runc"].sha256 == hashlib.sha256(b"runc").hexdigest()
    assert got.size > len(NOISE)
    assert {n: t for n, t in got.links.items() if n.startswith("bin/")} == LINKS
    assert {n: t for n, t in got.links.items() if n.startswith("cni/")} == {
        "cni/cni": "../bin/cni",
        "cni/host-local": "../bin/cni",
        "cni/bridge": "../bin/cni",
    }
    assert (got.folder / "cni/host-local").resolve().read_bytes() == b"cni"
    assert {path.name for path in tmp_path.iterdir()} == {"k3s", "runtime"}


def test_owners_modes_and_times_are_the_same_each_time(tmp_path: Path) -> None:
    content = Content(mode=0o4775)
    content.files["bin/plain"] = b"text"
    info = entry("./share/plain", size=1, mode=0o600)
    content.more = [(info, b"x")]
    got = unpack(made(tmp_path, content), tmp_path / "runtime")
    status = {path.relative_to(got.folder): path.lstat() for path in (got.folder, *got.folder.rglob("*"))}
    assert {s.st_mtime for s in status.values()} == {0}
    assert (got.folder / "bin/k3s").stat().st_mode & 0o7777 == 0o755
    assert (got.folder / "share/plain").stat().st_mode & 0o7777 == 0o644
    assert got.folder.stat().st_mode & 0o7777 == 0o755
    assert (got.folder / "bin").stat().st_mode & 0o7777 == 0o755


def test_cni_plugins_that_are_files(tmp_path: Path) -> None:
    content = Content()
    del content.files["bin/cni"], content.links["bin/host-local"], content.links["bin/bridge"]
    content.files |= {"bin/host-local": b"one", "bin/portmap": b"two"}
    got = unpack(made(tmp_path, content), tmp_path / "runtime")
    cni = {n: t for n, t in got.links.items() if n.startswith("cni/")}
    assert cni == {"cni/host-local": "../bin/host-local", "cni/portmap": "../bin/portmap"}


def test_an_archive_of_several_frames(tmp_path: Path) -> None:
    tar = Content().tar()
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    archive = compress(tar[:100_000]) + skippable + compress(tar[100_000:])
    got = unpack(artifact(tmp_path, self_extracting(archive)), tmp_path / "runtime")
    assert (got.folder / "bin/k3s").read_bytes() == PROGRAMS["bin/k3s"]


def test_frames_and_magics_inside_the_archive(tmp_path: Path) -> None:
    content = Content()
    inner = compress(NOISE)
    content.files["bin/inner.zst"] = MAGIC + inner + MAGIC * 50
    archive = compress(content.tar())  # incompressible, so the inner frame lies in it as it is
    assert inner[100:1000] in archive
    got = unpack(artifact(tmp_path, self_extracting(archive)), tmp_path / "runtime")
    assert got.files["bin/inner.zst"].size == len(inner) + 204


def test_names_of_archives_that_are_not_there(tmp_path: Path) -> None:
    archive = compress(Content().tar())
    names = ("0" * 64, hashlib.sha256(archive).hexdigest(), "f" * 64)
    got = unpack(artifact(tmp_path, self_extracting(archive, names=names)), tmp_path / "runtime")
    assert got.archive == names[1]


@pytest.mark.parametrize("options", [{"write_checksum": True}, {"write_content_size": False}, {}])
def test_the_end_of_a_frame(options: dict[str, bool]) -> None:
    for data in (b"", b"a", b"a" * 1_000_000, NOISE, NOISE[:300] * 9):
        frame = compress(data, **options)
        assert frame_end(b"xyz" + frame + MAGIC, 3) == 3 + len(frame)
        assert next_frame(frame, 0) == len(frame)
        for cut in (len(frame) - 1, len(frame) // 2, 4, 5, 6):
            assert frame_end(frame[:cut], 0) is None


def test_noise_never_breaks_the_walk() -> None:
    for seed in range(2000):
        data = MAGIC + random.Random(seed).randbytes(seed % 60)
        end = next_frame(data, 0)
        assert end is None or end <= len(data)


# --- what cannot be proven


def test_a_file_without_an_archive(tmp_path: Path) -> None:
    refused(tmp_path, artifact(tmp_path, b"\x7fELF" + NOISE), "no embedded archive")
    refused(tmp_path, artifact(tmp_path, b""), "is empty")


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    data = self_extracting(compress(Content().tar()), tail=b"")
    refused(tmp_path, artifact(tmp_path, data[:-1]), "no archive whose sha256 is its name")


def test_one_changed_byte(tmp_path: Path) -> None:
    data = bytearray(self_extracting(compress(Content().tar())))
    data[-1000] ^= 1
    refused(tmp_path, artifact(tmp_path, bytes(data)), "no archive whose sha256 is its name")


def test_two_archives_that_are_both_proven(tmp_path: Path) -> None:
    other = Content()
    other.files["bin/runc"] = b"another"
    data = self_extracting(compress(Content().tar()), b"between", compress(other.tar()))
    refused(tmp_path, artifact(tmp_path, data), "holds 2 archives")


def test_two_copies_of_one_archive_are_one(tmp_path: Path) -> None:
    archive = compress(Content().tar())
    (tmp_path / "x").write_bytes(self_extracting(archive, b"between", archive))
    assert find_archive(tmp_path / "x")[2] == hashlib.sha256(archive).hexdigest()


# --- what is proven by its name but wrong inside


def test_a_file_that_is_not_what_the_list_says(tmp_path: Path) -> None:
    content = Content()
    content.sums = content.lists()["bin/.sha256sums"].decode()
    content.files["bin/runc"] = b"tampered"
    error = refused(tmp_path, made(tmp_path, content), "not what its own list says")
    assert "runc" in error.details
    assert hashlib.sha256(b"tampered").hexdigest() in error.details


def test_a_file_or_link_that_no_list_names(tmp_path: Path) -> None:
    content = Content()
    content.sums = content.lists()["bin/.sha256sums"].decode()
    content.files["bin/aux/extra"] = b"extra"
    assert "not listed" in refused(tmp_path, made(tmp_path, content), "1 differences").details
    content = Content()
    content.link_list = content.lists()["bin/.links"].decode()
    content.links["bin/extra"] = "runc"
    refused(tmp_path, made(tmp_path, content), "1 differences")


def test_a_listed_file_or_link_that_is_missing_or_leads_elsewhere(tmp_path: Path) -> None:
    content = Content()
    content.sums = content.lists()["bin/.sha256sums"].decode()
    del content.files["bin/aux/xtables-nft-multi"]
    assert "no such file" in refused(tmp_path, made(tmp_path, content), "1 differences").details
    content = Content()
    content.link_list = content.lists()["bin/.links"].decode()
    content.links["bin/kubectl"] = "runc"
    assert "found runc" in refused(tmp_path, made(tmp_path, content), "1 differences").details


def test_no_list_or_one_that_cannot_be_read(tmp_path: Path) -> None:
    refused(tmp_path, made(tmp_path, Content(sums="just-one-word\n")), "cannot be read")
    refused(tmp_path, made(tmp_path, Content(files={}, links={})), "0 differences")
    empty = tarfile.TarInfo("x")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(empty)
    refused(tmp_path, artifact(tmp_path, self_extracting(compress(out.getvalue()))), "has no bin/.sha256sums")


@pytest.mark.parametrize("name", ["bin/k3s", "bin/runc", "bin/containerd-shim-runc-v2"])
def test_half_a_runtime_is_refused(tmp_path: Path, name: str) -> None:
    content = Content()
    del content.files[name]
    refused(tmp_path, made(tmp_path, content), f"lacks .*{name}")


def test_a_runtime_that_cannot_be_executed_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, made(tmp_path, Content(mode=0o644)), "lacks bin/k3s")


def test_a_loop_of_links_is_no_program(tmp_path: Path) -> None:
    content = Content()
    content.links |= {"bin/containerd": "loop", "bin/loop": "containerd"}
    refused(tmp_path, made(tmp_path, content), "lacks bin/containerd")


def test_the_standin_is_never_taken_for_k3s(tmp_path: Path) -> None:
    content = Content()
    content.files["bin/k3s"] = b"v1.36.3+standin1" + NOISE
    refused(tmp_path, made(tmp_path, content), "holds the runtime for tests")
    data = self_extracting(compress(content.tar()))
    got = unpack(artifact(tmp_path, data, "v1.36.3+standin1"), tmp_path / "runtime")
    assert got.version == "v1.36.3+standin1"


# --- hostile tars (a hash proves who made them, not that they mean well)


@pytest.mark.parametrize(
    ("name", "values", "match"),
    [
        ("../evil", {}, "leads out"),
        ("bin/../../evil", {}, "leads out"),
        ("/etc/evil", {}, "leads out"),
        ("bin/out", {"type": tarfile.SYMTYPE, "linkname": "/etc"}, "leads out"),
        ("bin/out", {"type": tarfile.SYMTYPE, "linkname": "../../x"}, "leads out"),
        ("bin/out", {"type": tarfile.SYMTYPE, "linkname": "../x/../../y"}, "leads out"),
        ("bin/out", {"type": tarfile.SYMTYPE, "linkname": ""}, "leads out"),
        ("bin/hard", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}, "no file of it"),
        ("bin/hard", {"type": tarfile.LNKTYPE, "linkname": "bin/kubectl"}, "no file of it"),
        ("bin/null", {"type": tarfile.CHRTYPE}, "no file, folder or link"),
        ("bin/pipe", {"type": tarfile.FIFOTYPE}, "no file, folder or link"),
        ("bin/sda", {"type": tarfile.BLKTYPE}, "no file, folder or link"),
        ("bin/runc", {}, "twice"),
        ("bin/kubectl", {}, "twice"),
        ("bin", {}, "twice"),
        ("bin/runc/below", {}, "no folder"),
        ("bin/kubectl/below", {}, "no folder"),
        (".", {}, "leads out"),
    ],
)
def test_hostile_members(tmp_path: Path, name: str, values: dict[str, object], match: str) -> None:
    content = Content()
    info = entry(name, size=0, **values)
    content.more = [(info, b"")]
    refused(tmp_path, made(tmp_path, content), match)


def test_writing_through_a_link_to_a_folder(tmp_path: Path) -> None:
    content = Content()
    content.more = [
        (entry("bin/here", type=tarfile.SYMTYPE, linkname="."), b""),
        (entry("bin/here/runc", size=0), b""),
    ]
    refused(tmp_path, made(tmp_path, content), "below bin/here, which is no folder")


def test_hard_links_inside_are_fine(tmp_path: Path) -> None:
    content = Content()
    runc = content.files["bin/runc"]
    content.sums = content.lists()["bin/.sha256sums"].decode() + f"{hashlib.sha256(runc).hexdigest()}  twin\n"
    content.more = [(entry("bin/twin", type=tarfile.LNKTYPE, linkname="./bin/runc"), b"")]
    got = unpack(made(tmp_path, content), tmp_path / "runtime")
    assert (got.folder / "bin/twin").read_bytes() == runc


def test_a_tar_that_ends_early(tmp_path: Path) -> None:
    tar = Content().tar()
    for cut in (len(tar) // 2, 700, 100):
        data = self_extracting(compress(tar[:cut]))
        refused(
            tmp_path, artifact(tmp_path, data), "damaged|ends in the middle|not what its own list|has no bin"
        )


def test_a_frame_that_is_whole_but_no_zstd_inside(tmp_path: Path) -> None:
    block = (1 | 2 << 1 | 100 << 3).to_bytes(3, "little") + NOISE[:100]
    refused(tmp_path, artifact(tmp_path, self_extracting(MAGIC + b"\x20\x64" + block)), "damaged")


def test_more_than_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    unpacker = Unpacker(root=tmp_path / "x", limit=10)
    unpacker.add_file("a", io.BytesIO(b"12345"), 5, executable=False)
    with pytest.raises(BuildError, match="more than"):
        unpacker.add_file("b", io.BytesIO(b"123456"), 6, executable=False)


def test_a_file_shorter_than_announced(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="in the middle of a"):
        Unpacker(root=tmp_path).add_file("a", io.BytesIO(b"1234"), 5, executable=False)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    with pytest.raises(BuildError, match="exists already"):
        unpack(made(tmp_path, Content()), tmp_path / "runtime")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(Unpacker, "add_file", full)
    refused(tmp_path, made(tmp_path, Content()), "No space left")


# --- the file unpacks itself


def left_by_itself(content: Content, name: str = "ab" * 32) -> Callable[[Path, Path], None]:
    """A `run_self` that leaves what k3s leaves: data/HASH, a lock, `current`."""

    def run(file: Path, data_dir: Path) -> None:
        folder = data_dir / "data" / name
        folder.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(content.tar())) as tar:
            for member in tar:
                tar.extract(member, folder, **EVERYTHING)
        (data_dir / "data/.lock").touch()
        (data_dir / "data/current").symlink_to(folder)

    return run


def hidden(folder: Path) -> Artifact:
    return artifact(folder, b"\x7fELF" + NOISE)


def test_a_file_that_must_unpack_itself(tmp_path: Path) -> None:
    got = unpack(hidden(tmp_path), tmp_path / "runtime", run_self=left_by_itself(Content()))
    assert got.archive == "ab" * 32
    assert (got.folder / "bin/k3s").read_bytes() == PROGRAMS["bin/k3s"]
    assert (got.folder / "bin/runc").stat().st_mtime == 0
    assert {path.name for path in tmp_path.iterdir()} == {"k3s", "runtime"}


def test_it_may_end_with_an_error_once_it_has_unpacked(tmp_path: Path) -> None:
    def run(file: Path, data_dir: Path) -> None:
        left_by_itself(Content())(file, data_dir)
        raise ProgramError("k3s failed", status=1, output="missing kernel options")

    assert unpack(hidden(tmp_path), tmp_path / "runtime", run_self=run).version == VERSION


def test_what_it_left_is_checked_as_well(tmp_path: Path) -> None:
    content = Content()
    content.sums = content.lists()["bin/.sha256sums"].decode()
    content.files["bin/runc"] = b"tampered"
    with pytest.raises(BuildError, match="not what its own list says"):
        unpack(hidden(tmp_path), tmp_path / "runtime", run_self=left_by_itself(content))
    content = Content()
    content.links["bin/out"] = "/etc"
    with pytest.raises(BuildError, match="leads out"):
        unpack(hidden(tmp_path), tmp_path / "runtime", run_self=left_by_itself(content))
    assert {path.name for path in tmp_path.iterdir()} == {"k3s"}


def test_it_left_nothing(tmp_path: Path) -> None:
    def run(file: Path, data_dir: Path) -> None:
        raise ProgramError("k3s failed", status=1, output="exec format error")

    with pytest.raises(BuildError, match="did not unpack itself") as caught:
        unpack(hidden(tmp_path), tmp_path / "runtime", run_self=run)
    assert "exec format error" in caught.value.details
    assert "no embedded archive" in caught.value.details


def test_it_is_not_run_when_the_archive_is_proven_but_wrong(tmp_path: Path) -> None:
    def run(file: Path, data_dir: Path) -> None:
        pytest.fail("was run")

    with pytest.raises(BuildError, match="lacks bin/k3s"):
        unpack(made(tmp_path, Content(mode=0o644)), tmp_path / "runtime", run_self=run)
