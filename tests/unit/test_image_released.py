"""An image as a build leaves it, and as it should not be."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from k3img.errors import UsageError, VerifyError
from k3img.image import released
from k3img.profile.model import Arch
from k3img.verify import testimages

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.tree import Tree

CONTENT = b"image" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def made(folder: Path, **changes: Any) -> Path:
    manifest = {
        "profile": "x86",
        "version": "1.4",
        "arch": "x86-64",
        "board": "uefi",
        "layout": 1,
        "image": {"raw": "x86_1.4.raw", "sha256": DIGEST},
        "runtime": {"version": "v1.36.3+k3s1", "standin": False},
        **changes,
    }
    (folder / "x86_1.4.raw").write_bytes(CONTENT)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  x86_1.4.efi\n{DIGEST}  x86_1.4.raw\n")
    return folder


def test_load(tmp_path: Path) -> None:
    image = released.load(made(tmp_path), "x86")
    assert (image.name, image.arch, image.sha256) == ("x86 1.4", Arch.X86_64, DIGEST)
    assert (image.runtime, image.standin) == ("v1.36.3+k3s1", False)
    assert released.measure(image) == DIGEST


def test_no_image(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no image of x86") as caught:
        released.load(tmp_path / "none", "x86")
    assert caught.value.hint == "Build it: k3img build --profile x86"


@pytest.mark.parametrize(
    "changes",
    [{"image": {}}, {"image": None}, {"arch": "sparc"}, {"layout": 2}, {"runtime": []}, {"layout": None}],
)
def test_manifest_of_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        released.load(made(tmp_path, **changes), "x86")
    assert "k3img build --profile x86" in caught.value.hint


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    (made(tmp_path) / name).write_text("\0 nonsense")
    with pytest.raises(UsageError, match="not as a build leaves it"):
        released.load(tmp_path, "x86")


def test_missing_raw(tmp_path: Path) -> None:
    (made(tmp_path) / "x86_1.4.raw").unlink()
    with pytest.raises(UsageError, match=r"x86_1\.4\.raw is missing"):
        released.load(tmp_path, "x86")


def test_changed_image(tmp_path: Path) -> None:
    image = released.load(made(tmp_path), "x86")
    image.raw.write_bytes(b"other")
    with pytest.raises(VerifyError, match="not the image that was built") as caught:
        released.measure(image)
    assert DIGEST in caught.value.details


def test_test_images(tree: Tree) -> None:
    with pytest.raises(UsageError) as caught:
        testimages.find(tree, Arch.X86_64)
    assert "ci/runtime" in caught.value.hint
    for name in (".work-x", "0123"):
        (tree.cache / "runtime" / name).mkdir(parents=True)
        (tree.cache / "runtime" / name / "test-images-amd64.tar").touch()
    assert testimages.find(tree, Arch.X86_64).parent.name == "0123"
