"""Reading an erofs' tree; the two file systems in data/ were made by mkfs.erofs 1.8.6."""

from __future__ import annotations

import io
import lzma
import stat
from pathlib import Path

import pytest

from k3img.errors import BuildError
from k3img.image.erofs import Entry, Erofs

DATA = Path(__file__).parent / "data"
KINDS = ("compact", "extended")


def content(kind: str) -> bytes:
    return lzma.decompress((DATA / f"erofs-{kind}.xz").read_bytes())


@pytest.mark.parametrize("offset", [0, 12345])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tree(kind: str, offset: int) -> None:
    tree = Erofs(io.BytesIO(bytes(offset) + content(kind)), offset, "x")
    found = {entry.path: entry for entry in tree.walk()}
    # A folder of three blocks, whose last lies behind the inode.
    assert {f"many/a-file-with-a-long-name-{number:03}" for number in range(300)} < found.keys()
    assert len(found) == 304
    assert found["hello"] == Entry(path="hello", mode=stat.S_IFREG | 0o4755, uid=0, gid=0, size=6)
    assert found["many/link"].target == "../hello"
    assert found["many/link"].is_link
    assert (found["empty"].uid, found["empty"].gid) == (1000, 1001)
    assert found["empty"].is_folder
    assert found["hello"].is_file


def test_folders_come_before_what_is_in_them() -> None:
    paths = [entry.path for entry in Erofs(io.BytesIO(content("compact")), 0, "x").walk()]
    assert paths.index("many") < min(paths.index(path) for path in paths if path.startswith("many/"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [2000, 5000, 9000, 20000])
def test_one_that_is_cut_off_is_an_error(kind: str, kept: int) -> None:
    tree = Erofs(io.BytesIO(content(kind)[:kept]), 0, "x.raw")
    with pytest.raises(BuildError, match=r"x\.raw: its erofs is damaged"):
        list(tree.walk())
