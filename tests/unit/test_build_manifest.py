"""What a manifest says of an image, and when an image counts as finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT
from tests.unit import disks

from k3img.build import manifest, run
from k3img.build.model import Request
from k3img.errors import BuildError
from k3img.plan import inputs
from k3img.plan.inputs import file_digest
from k3img.plan.make import make
from k3img.plan.model import MakeDisk, Plan
from k3img.profile.load import load
from k3img.profile.model import Arch
from k3img.runtime.release import Artifact, Proof

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.tree import Tree

VERSION = "v1.36.3+k3s1"


@pytest.fixture
def plan(project: Tree) -> Plan:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    facts = inputs.Inputs(
        source_date_epoch=1_795_000_000,
        builder="",
        overlays=dict.fromkeys(("base", "initrd"), "d"),
        files={},
        code={},
    )
    return make(profile, facts)


def artifact(version: str = VERSION) -> Artifact:
    return Artifact(
        path=ROOT / "k3s",
        version=version,
        arch=Arch.X86_64,
        name="k3s",
        sha256="a" * 64,
        source="here",
        proof=Proof.LOCK,
    )


def described(plan: Plan, path: Path, **options: Any) -> dict[str, Any]:
    facts = {"locked": False, "packages_as_of": "2026-11-25"}
    return manifest.describe(plan, disks.image(path, **options), artifact(), facts=facts)


def test_layout_and_sizes_are_read_from_the_image_itself(plan: Plan, tmp_path: Path) -> None:
    about = described(plan, tmp_path / "x.raw", blocks=3)
    assert about["slot"] == {"size": 8192, "verity": 8192, "used": 3 * 4096}
    assert about["usrhash"].startswith("00112233")
    assert [part["label"] for part in about["partitions"]] == ["esp", "K3IMG", "x86_1", "x86_1"]
    assert about["runtime"]["standin"] is False
    assert about["locked"] is False
    assert about["plan_digest"] == plan.digest
    assert about["recipe"] == plan.recipe
    json.dumps(about)


def test_a_usr_too_big_for_its_slot(plan: Plan, tmp_path: Path) -> None:
    slot = plan.one(MakeDisk).slot
    with pytest.raises(BuildError, match="more than 80% of its slot") as caught:
        described(plan, tmp_path / "x.raw", blocks=int(slot * 0.81 / 4096))
    assert "image.slot" in caught.value.hint
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("used", "slot"), [(0, 100), (80, 100), (79, 100)])
def test_room_for_an_update_is_enough(used: int, slot: int) -> None:
    manifest.check_slot(used, slot)


def test_one_byte_too_many() -> None:
    with pytest.raises(BuildError):
        manifest.check_slot(801, 1000)


def test_sums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    digest = file_digest(tmp_path / "a")
    assert digest == hashlib.sha256(b"abc").hexdigest()
    assert manifest.sums({"b": "2" * 64, "a": digest}) == f"{digest}  a\n{'2' * 64}  b\n"


# --- finished or not


def finished_image(folder: Path, plan: Plan, **more: Any) -> Request:
    folder.mkdir()
    (folder / "x.raw").write_bytes(b"raw")
    about = {
        "plan_digest": plan.digest,
        "recipe": plan.recipe,
        "locked": False,
        "image": {"raw": "x.raw", "sha256": "b" * 64},
        "runtime": {"sha256": "a" * 64},
        "files": {"x.raw": {"size": 3, "sha256": "b" * 64}},
    }
    (folder / "manifest.json").write_text(json.dumps({**about, **more}))
    return Request(out=folder)


def test_an_image_of_this_plan_is_finished(plan: Plan, tree: Tree) -> None:
    request = finished_image(tree.root / "out", plan)
    image = run.finished(plan, request, tree)
    assert image is not None
    assert not image.fresh
    assert image.raw == tree.root / "out/x.raw"
    assert image.sha256 == "b" * 64


@pytest.mark.parametrize("damage", ["gone", "short", "no json", "not ours"])
def test_a_damaged_result_does_not_count(damage: str, plan: Plan, tree: Tree) -> None:
    request = finished_image(tree.root / "out", plan)
    raw, about = request.out / "x.raw", request.out / "manifest.json"
    match damage:
        case "gone":
            raw.unlink()
        case "short":
            raw.write_bytes(b"ra")
        case "no json":
            about.write_text("{")
        case _:
            about.write_text('{"files": []}')
    assert run.finished(plan, request, tree) is None


def test_another_plan_or_a_wish_for_newer_packages(plan: Plan, tree: Tree) -> None:
    request = finished_image(tree.root / "out", plan)
    assert run.finished(dataclasses.replace(plan, version="2"), request, tree) is None
    assert run.finished(plan, dataclasses.replace(request, refresh=True), tree) is None


def test_locked_is_content_with_a_locked_image_only(plan: Plan, tree: Tree) -> None:
    request = finished_image(tree.root / "out", plan)
    assert run.finished(plan, dataclasses.replace(request, locked=True), tree) is None
    request = finished_image(tree.root / "out2", plan, locked=True)
    assert run.finished(plan, dataclasses.replace(request, locked=True), tree) is not None
    assert run.finished(plan, request, tree) is not None


def test_another_k3s_file_is_another_image(plan: Plan, tree: Tree, tmp_path: Path) -> None:
    request = finished_image(tree.root / "out", plan)
    k3s = tmp_path / "k3s"
    k3s.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + (62).to_bytes(2, "little") + VERSION.encode())
    assert run.finished(plan, dataclasses.replace(request, k3s=k3s), tree) is None
    digest = hashlib.sha256(k3s.read_bytes()).hexdigest()
    request = finished_image(tree.root / "out2", plan, runtime={"sha256": digest})
    assert run.finished(plan, dataclasses.replace(request, k3s=k3s), tree) is not None


def test_a_lock_changes_the_digest_but_not_the_recipe(plan: Plan) -> None:
    locked = dataclasses.replace(plan, lock="l")
    assert locked.digest != plan.digest
    assert locked.recipe == plan.recipe
    assert dataclasses.replace(plan, version="2").recipe != plan.recipe
