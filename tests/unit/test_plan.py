"""Plans and what is rendered from them: golden files of every shipped profile, and rules that must hold."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import ROOT

from k3img.plan import inputs, system
from k3img.plan.make import image_id, image_version, make
from k3img.plan.model import CopyFile, CopyOverlay, InstallSystem, MaskUnits, Plan, TrimKernel, WriteFile
from k3img.plan.text import as_text
from k3img.profile.load import load
from k3img.profile.model import Compression, ImageSpec
from k3img.render import mkosi as render

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.profile.model import Profile
    from k3img.tree import Tree

EPOCH = 1_790_000_000
SHIPPED = ("x86", "x86-cloud", "x86-debug", "arm64", "rpi4")


def plan_of(project: Tree, name: str, **changes: Any) -> Plan:
    """The plan of a shipped profile, with the digests of our own code left out: they change every day."""
    profile = load(ROOT / f"profiles/{name}.yaml", project).profile
    return make_plain(dataclasses.replace(profile, **changes))


def make_plain(profile: Profile) -> Plan:
    overlays = dict.fromkeys(("base", "initrd", "debug", "ssh", *profile.os.overlays), "overlay")
    files = dict.fromkeys((*profile.k3s.images, *profile.k3s.manifests), "f" * 64)
    facts = inputs.Inputs(
        source_date_epoch=EPOCH, builder="builder", overlays=overlays, files=files, code={"errors.py": "code"}
    )
    return make(profile, facts)


@pytest.mark.parametrize("name", SHIPPED)
def test_golden(name: str, project: Tree, golden: Callable[[str, str], None]) -> None:
    plan = plan_of(project, name)
    golden(f"{name}/plan.json", json.dumps(plan.to_json(), indent=1) + "\n")
    for path, text in render.image_project(plan).items():
        if not path.endswith(".json"):  # all of it is in plan.json
            golden(f"{name}/{path}", text)
    golden(f"{name}/initrd/mkosi.conf", render.initrd_project(plan)["mkosi.conf"])


def test_the_same_profile_gives_the_same_digest(project: Tree) -> None:
    assert plan_of(project, "x86").digest == plan_of(project, "x86").digest


def test_what_changes_the_image_changes_the_digest(project: Tree) -> None:
    plan = plan_of(project, "x86")
    others = [
        plan_of(project, "x86", debug=True),
        plan_of(project, "x86-cloud"),
        dataclasses.replace(plan, builder="other"),
        dataclasses.replace(plan, lock="other"),
        dataclasses.replace(plan, source_date_epoch=EPOCH + 1),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == len(others) + 1


def test_a_debug_image_says_so_in_its_name(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    assert image_id(dataclasses.replace(profile, debug=True)) == "x86-debug"
    assert image_id(profile) == "x86"


def test_versions_only_grow_with_the_source_date(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    versions = [image_version(profile, EPOCH + hours * 3600) for hours in (0, 1, 30, 24 * 400)]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("name", SHIPPED)
def test_no_image_has_a_login_and_only_debug_has_shells(name: str, project: Tree) -> None:
    plan = plan_of(project, name)
    assert set(system.LOGIN_UNITS) <= set(plan.one(MaskUnits).units)
    assert ("debug" in {step.name for step in plan.all(CopyOverlay)}) is plan.debug


def test_ssh_comes_only_when_asked_for(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    with_ssh = make_plain(dataclasses.replace(profile, os=dataclasses.replace(profile.os, ssh=True)))
    assert "openssh-server" in with_ssh.one(InstallSystem).packages
    assert "openssh-server" not in make_plain(profile).one(InstallSystem).packages


def test_the_agent_never_sees_an_option_of_the_server(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    k3s = dataclasses.replace(profile.k3s, server={"tls-san": ["a.example"]}, disable=("traefik",))
    plan = make_plain(dataclasses.replace(profile, k3s=k3s))
    texts = {step.path: step.text for step in plan.all(WriteFile)}
    assert "tls-san" in texts["/usr/share/k3img/k3s/server.yaml"]
    for word in ("tls-san", "disable", "write-kubeconfig"):
        assert word not in texts["/usr/share/k3img/k3s/agent.yaml"]


def test_what_is_baked_in_lies_where_first_boot_looks(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    k3s = dataclasses.replace(
        profile.k3s,
        images=("images/web.tar",),
        manifests=("m/web.yaml",),
        registries={"mirrors": {"docker.io": {"endpoint": ["https://mirror.example"]}}},
    )
    plan = make_plain(dataclasses.replace(profile, k3s=k3s))
    paths = {copy.path for copy in plan.all(CopyFile)} | {text.path for text in plan.all(WriteFile)}
    assert "/usr/share/k3img/images/ffffffffffff-web.tar" in paths
    assert "/usr/share/k3img/manifests/web.yaml" in paths
    assert "/usr/share/k3img/k3s/registries.yaml" in paths
    assert "/usr/share/k3img/k3s/registries.yaml" not in {
        s.path for s in plan_of(project, "x86").all(WriteFile)
    }


def test_a_proxy_is_handed_to_k3s_alone(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    k3s = dataclasses.replace(profile.k3s, proxy="http://proxy.example:3128", no_proxy=(".shop.example",))
    plan = make_plain(dataclasses.replace(profile, k3s=k3s))
    (text,) = (step.text for step in plan.all(WriteFile) if "proxy.example" in step.text)
    lines = dict(row.split("=", 1) for row in text.splitlines())
    assert lines["HTTP_PROXY"] == lines["HTTPS_PROXY"] == "http://proxy.example:3128"
    without = lines["NO_PROXY"].split(",")
    assert {"127.0.0.0/8", ".internal", ".svc", ".shop.example"} <= set(without)
    units = project.overlays / "base/usr/lib/systemd/system"
    for name in ("k3s.service", "k3s-agent.service"):
        assert "EnvironmentFile=-/usr/share/k3img/k3s/proxy.env\n" in (units / name).read_text()


def test_the_cached_tree_depends_on_no_date(project: Tree) -> None:
    old, new = plan_of(project, "x86"), plan_of(project, "x86", image=ImageSpec(version="9"))
    later = dataclasses.replace(new, source_date_epoch=EPOCH + 99)
    assert render.prepare_input(old) == render.prepare_input(later)
    assert render.initrd_project(old) == render.initrd_project(later)


def test_every_wanted_module_of_the_profile_is_required(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    plan = make_plain(dataclasses.replace(profile, os=dataclasses.replace(profile.os, modules=("xfs",))))
    assert "xfs" in plan.one(TrimKernel).required


def test_the_levels_differ(project: Tree) -> None:
    profile = load(ROOT / "profiles/x86.yaml", project).profile
    images = {level: dataclasses.replace(profile.image, compression=level) for level in Compression}
    plans = {level: make_plain(dataclasses.replace(profile, image=image)) for level, image in images.items()}
    texts = {level: render.image_project(plan)["mkosi.repart/20-usr.conf"] for level, plan in plans.items()}
    assert texts[Compression.FAST] != texts[Compression.SMALL]


def test_text_has_a_reason_for_every_step(project: Tree) -> None:
    plan = plan_of(project, "x86")
    text = as_text(plan)
    assert plan.digest in text
    for step in plan.steps:
        assert step.reason
        assert step.reason in text


def test_a_folder_is_digested_by_names_modes_and_contents(tree: Tree) -> None:
    folder = tree.overlays / "base"
    (folder / "a").write_text("1")
    seen = [inputs.folder_digest(folder)]
    (folder / "a").chmod(0o755)
    seen.append(inputs.folder_digest(folder))
    (folder / "a").write_text("2")
    seen.append(inputs.folder_digest(folder))
    (folder / "a").rename(folder / "b")
    seen.append(inputs.folder_digest(folder))
    (folder / "link").symlink_to("b")
    seen.append(inputs.folder_digest(folder))
    (folder / "empty").mkdir()
    seen.append(inputs.folder_digest(folder))
    assert len(set(seen)) == len(seen)
