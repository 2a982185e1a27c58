"""A part of ci/full: one server that `k3img flash` seeded; its kubeconfig is there before it has power."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml
from ci import raw_image
from ci.steps import Context, copy_project, do, empty, ends, expect, kubectl, say

from k3img.image import gpt

if TYPE_CHECKING:
    from pathlib import Path

CONFIGMAP = ("create", "configmap", "kept", "--from-literal=a=b")


def run(ctx: Context) -> None:
    """Flash, boot, kubectl; flash the same node again: its datastore is gone, its kubeconfig works."""
    empty(ctx.work)
    project, medium = copy_project(ctx, ctx.work / "project"), ctx.work / "medium"
    raw_image.used(medium)
    said = flash(ctx, project, medium)
    expect("node x86-1: server of cluster x86" in said, "it does not say which node the medium is")
    kubeconfig = project / "secrets/x86/kubeconfig.yaml"
    before = keys(kubeconfig)
    boot(ctx, medium, kubeconfig, has_map=False)
    boot(ctx, medium, kubeconfig, has_map=True)
    nothing_secret(ctx, medium, project / "secrets/x86")
    command = ("k3img", "flash", *options(ctx, project), medium)
    expect("--new-datastore" in ends(2, *command), "a second flash does not say what it takes")
    boot(ctx, medium, kubeconfig, has_map=True)
    flash(ctx, project, medium, "--replace", "--new-datastore")
    boot(ctx, medium, kubeconfig, has_map=False)
    expect(keys(kubeconfig) == before, "the kubeconfig has other keys")


def keys(kubeconfig: Path) -> tuple[str, str]:
    """What of a kubeconfig does not change when a server moves."""
    content = yaml.safe_load(kubeconfig.read_text())
    authority = content["clusters"][0]["cluster"]["certificate-authority-data"]
    return authority, content["users"][0]["user"]["client-key-data"]


def options(ctx: Context, project: Path) -> tuple[str | Path, ...]:
    """What is flashed."""
    return ("--tree", project, "--profile", "x86", "--out", ctx.image, "--yes")


def flash(ctx: Context, project: Path, medium: Path, *more: str) -> str:
    """Flash the only node."""
    return do("k3img", "flash", *options(ctx, project), *more, medium)


def boot(ctx: Context, medium: Path, kubeconfig: Path, *, has_map: bool) -> None:
    """Power on, and use the kubeconfig that the builder made; `has_map`: what was made is still there."""
    with raw_image.powered_on(ctx, medium) as (qemu, port):
        tree = kubeconfig.parents[2]
        here = ("--address", f"127.0.0.1:{port}")
        do("k3img", "wait", "--tree", tree, "--timeout", str(raw_image.MINUTES * 60), *here, "x86")
        qemu.check()
        (node,) = json.loads(kubectl(ctx, kubeconfig, "get", "nodes", "-o", "json"))["items"]
        expect(node["metadata"]["name"] == "x86-1", f"the node is called {node['metadata']['name']}")
        maps = kubectl(ctx, kubeconfig, "get", "configmaps", "-o", "name")
        expect(("configmap/kept" in maps) is has_map, "the datastore is not the one that was expected")
        if not has_map:
            kubectl(ctx, kubeconfig, *CONFIGMAP)


def nothing_secret(ctx: Context, medium: Path, secrets: Path) -> None:
    """The seed partition holds no secret any more, in no file and in no sector."""
    seed = next(part for part in gpt.read(medium) if part.label == "K3IMG")
    with medium.open("rb") as file:
        file.seek(seed.start)
        data = file.read(seed.size)
    for name in ("server-password", "agent-password"):
        expect((secrets / name).read_bytes().strip() not in data, f"the K3IMG partition still holds {name}")
    expect(b"PRIVATE KEY" not in data, "the K3IMG partition still holds a private key")
    expect(yaml.safe_load(raw_image.read(ctx, medium, "node.yaml")), "node.yaml is gone as well")
    expect("kubeconfig.yaml" not in do(*listing(ctx, medium, seed.start)), "a seeded node wrote a kubeconfig")
    say("no secret lies on the K3IMG partition")


def listing(ctx: Context, medium: Path, start: int) -> tuple[str | Path, ...]:
    """The program that lists the K3IMG partition."""
    return (*raw_image.tools(ctx).argv("mdir"), "-b", "-i", f"{medium}@@{start}", "::")
