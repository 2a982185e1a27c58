"""A cluster's secrets in a file that may be committed."""

from __future__ import annotations

import io
import stat
import tarfile
from typing import TYPE_CHECKING

import pyrage
import pytest
from click.testing import CliRunner
from tests.unit.test_cluster import LAB, NOW, profile

from k3img.cli import cluster as command
from k3img.cluster import found, sealed, store
from k3img.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.cluster.store import Kept
    from k3img.tree import Tree

WORDS = "correct horse"
ME = pyrage.x25519.Identity.generate()
TO_ME = [str(ME.to_public())]
"""A passphrase takes seconds, by intent; where the way does not matter a key is used."""


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return store.create(tmp_path / "secrets/lab", "lab", now=NOW)


def opened(kept: Kept, **how: object) -> Kept | None:
    """The folder goes, and is made again."""
    kept.folder.rename(kept.folder.with_name("gone"))
    sealed.unseal(kept.folder, **how)  # type: ignore[arg-type]
    return store.load(kept.folder)


def test_by_a_passphrase(kept: Kept) -> None:
    file = sealed.seal(kept.folder, passphrase=WORDS)
    data = file.read_bytes()
    assert data.startswith(b"age-encryption.org/v1")
    assert kept.secrets.server.encode() not in data
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = opened(kept, passphrase=WORDS)
    assert again is not None
    assert again.secrets == kept.secrets


def test_for_recipients(kept: Kept, tmp_path: Path) -> None:
    one, two = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    sealed.seal(kept.folder, recipients=[str(one.to_public()), str(two.to_public())])
    (tmp_path / "key").write_text(f"# created: today\n{two}\n")
    again = opened(kept, identity=tmp_path / "key")
    assert again is not None
    assert again.secrets == kept.secrets


def test_a_wrong_passphrase_leaves_nothing(kept: Kept) -> None:
    sealed.seal(kept.folder, passphrase=WORDS)
    with pytest.raises(UsageError, match="does not open") as caught:
        opened(kept, passphrase="wrong")
    assert "right passphrase" in caught.value.hint
    assert not kept.folder.exists()


def test_a_key_of_somebody_else(kept: Kept, tmp_path: Path) -> None:
    sealed.seal(kept.folder, recipients=[str(pyrage.x25519.Identity.generate().to_public())])
    (tmp_path / "key").write_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(UsageError, match="does not open"):
        opened(kept, identity=tmp_path / "key")


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"\xff", b"AGE-SECRET-KEY-1XXX"])
def test_what_is_no_identity(kept: Kept, tmp_path: Path, data: bytes) -> None:
    sealed.seal(kept.folder, recipients=TO_ME)
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(UsageError, match="identity"):
        opened(kept, identity=tmp_path / "key")


@pytest.mark.parametrize("text", ["age1x", "bob", "ssh-rsa AAAA"])
def test_what_is_no_recipient(kept: Kept, text: str) -> None:
    with pytest.raises(UsageError, match="is no recipient"):
        sealed.seal(kept.folder, recipients=[text])
    assert not sealed.beside(kept.folder).exists()


def test_a_folder_that_is_there_stays(kept: Kept) -> None:
    sealed.seal(kept.folder, recipients=TO_ME)
    with pytest.raises(UsageError, match="is there already"):
        sealed.unseal(kept.folder)
    assert store.load(kept.folder) is not None


def test_a_file_that_holds_something_else(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(str(ME))
    sealed.beside(kept.folder).write_bytes(pyrage.encrypt(b"no archive", [ME.to_public()]))
    with pytest.raises(UsageError, match="holds no secrets of a cluster"):
        opened(kept, identity=tmp_path / "key")
    assert not kept.folder.exists()


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out"])
def test_names_that_lead_out(kept: Kept, tmp_path: Path, name: str) -> None:
    (tmp_path / "key").write_text(str(ME))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        item = tarfile.TarInfo(name)
        item.size = 1
        archive.addfile(item, io.BytesIO(b"x"))
    sealed.beside(kept.folder).write_bytes(pyrage.encrypt(packed.getvalue(), [ME.to_public()]))
    with pytest.raises(UsageError, match="is no file of ours"):
        opened(kept, identity=tmp_path / "key")
    assert not (tmp_path / "out").exists()


def test_the_commands(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = profile(tree, LAB).cluster
    at = ["--tree", str(tree.root), "--profile", "lab"]

    def run(name: str, typed: str = "") -> str:
        result = CliRunner().invoke(command.cluster, [name, *at], input=typed, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert WORDS not in result.output
        return result.output

    run("create")
    run("seal", f"{WORDS}\n{WORDS}\n")
    place = found.folder(tree, "lab")
    place.rename(place.with_name("gone"))
    with pytest.raises(UsageError, match="are elsewhere") as caught:
        found.kept(tree, lab, tree.profiles / "lab.yaml", make=True)
    assert "k3img cluster unseal" in caught.value.hint
    monkeypatch.setenv("K3IMG_PASSPHRASE", WORDS)
    assert str(place) in run("unseal")
