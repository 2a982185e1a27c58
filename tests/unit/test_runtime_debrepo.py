"""A repository made of packages that the test makes itself, in each compression that Debian uses."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from k3img.errors import BuildError
from k3img.tools import debrepo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
CONTROL = "Package: {name}\nVersion: {version}\nArchitecture: {arch}\nDescription: short\n long\n .\n end\n"


def member(name: str, data: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)


def tar_of(name: str, text: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for each, data in (("./md5sums", b"x"), (name, text.encode())):
            info = tarfile.TarInfo(each)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def deb(
    path: Path,
    name: str = "hello",
    version: str = "1.0-1",
    arch: str = "amd64",
    kind: str = ".xz",
    more: str = "",
) -> Path:
    control = CONTROL.format(name=name, version=version, arch=arch) + more
    parts = (
        member("debian-binary", b"2.0\n"),
        member("odd/", b"123"),  # an odd length is padded
        member(f"control.tar{kind}", COMPRESS[kind](tar_of("./control", control))),
        member("data.tar.xz", b"never looked at"),
    )
    path.write_bytes(b"!<arch>\n" + b"".join(parts))
    return path


@pytest.mark.parametrize("kind", COMPRESS)
def test_every_compression(tmp_path: Path, kind: str) -> None:
    path = deb(tmp_path / "x.deb", kind=kind)
    got = debrepo.read_deb(path)
    assert (got.name, got.version, got.arch) == ("hello", "1.0-1", "amd64")
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert got.size == path.stat().st_size
    assert got.control.endswith(" .\n end\n")


def test_a_repository(tmp_path: Path) -> None:
    debs = [
        deb(tmp_path / ("b" * 64 + ".deb"), name="zlib", version="1:1.3+really~2"),
        deb(tmp_path / ("a" * 64 + ".deb"), arch="all"),
    ]
    debrepo.write(debs, tmp_path / "repo", suite="trixie")
    packages = (tmp_path / "repo/Packages").read_text()
    blocks = packages.split("\n\n")
    assert [block.splitlines()[0] for block in blocks if block] == ["Package: hello", "Package: zlib"]
    assert "Filename: ./zlib_1.3+really~2_amd64.deb\n" in packages
    assert f"SHA256: {hashlib.sha256(debs[1].read_bytes()).hexdigest()}" in blocks[0]
    release = (tmp_path / "repo/Release").read_text()
    assert f" {hashlib.sha256(packages.encode()).hexdigest()} {len(packages.encode())} Packages" in release
    assert "Architectures: amd64 all" in release
    assert (tmp_path / "repo/hello_1.0-1_all.deb").read_bytes() == debs[1].read_bytes()


def test_index_fields_of_a_package_itself_are_dropped(tmp_path: Path) -> None:
    path = deb(tmp_path / "x.deb", more="Filename: /evil\nsha256: 00\nSize: 1\nTag: kept\n")
    text = debrepo.packages_text([debrepo.read_deb(path)])
    assert "evil" not in text
    assert text.lower().count("sha256:") == 1
    assert text.count("Size:") == 1
    assert "Tag: kept" in text


def test_the_same_file_twice_is_one_and_two_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    one, same = deb(tmp_path / "1.deb"), deb(tmp_path / "2.deb")
    assert len(debrepo.write([one, same], tmp_path / "repo")) == 1
    with pytest.raises(BuildError, match="two different files"):
        debrepo.write([one, deb(tmp_path / "3.deb", version="7:1.0-1")], tmp_path / "repo2")
    assert not (tmp_path / "repo2").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"!<arch>\n",
        b"!<arch>\n" + b"x" * 59,
        b"!<arch>\n" + b"x" * 60,
        b"!<arch>\n" + member("debian-binary", b"2.0\n"),
        b"!<arch>\n" + member("control.tar.xz", b"no xz"),
        b"!<arch>\n" + member("control.tar.zst", b"no zst"),
        b"!<arch>\n" + member("control.tar.gz", b"no gz"),
        b"!<arch>\n" + member("control.tar.rar", b""),
        b"!<arch>\n" + member("control.tar", tar_of("./other", "x")),
        b"!<arch>\n" + member("control.tar", tar_of("./control", "Package: x\n")),
        b"!<arch>\n" + member("control.tar.gz", gzip.compress(tar_of("./control", "x"))[:40]),
    ],
)
def test_what_is_no_package(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.deb").write_bytes(data)
    with pytest.raises(BuildError, match="Debian package"):
        debrepo.read_deb(tmp_path / "x.deb")
    with pytest.raises(BuildError, match="Debian package"):
        debrepo.read_deb(tmp_path / "absent.deb")
