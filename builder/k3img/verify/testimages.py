"""The archive of container images for test pods: made with the stand-in, never part of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k3img.errors import UsageError
from k3img.verify.boot import TESTS_SERIAL

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.profile.model import Arch
    from k3img.tree import Tree


def find(tree: Tree, arch: Arch) -> Path:
    """Where `ci/runtime` left it. Raises `UsageError` when it did not: a check must not silently go away."""
    name = f"test-images-{arch.debian}.tar"
    # Folders whose name begins with a dot are runs of ci/runtime that are under way, or were cut off.
    found = [path for path in tree.cache.glob(f"runtime/*/{name}") if not path.parent.name.startswith(".")]
    if not found:
        raise UsageError(
            f"there is no {name} in {tree.cache}/runtime: the test pod has no image to run",
            hint="`ci/runtime images` makes it; or name one with --test-images FILE.",
        )
    return max(found, key=lambda path: path.stat().st_mtime)


IMPORT = f"/usr/lib/k3s/bin/k3s ctr -n k8s.io images import /dev/disk/by-id/virtio-{TESTS_SERIAL}"
"""In the guest: takes the images from the disk that the machine was given."""


def web(name: str, **more: Any) -> dict[str, Any]:
    """A Pod that serves a page; `more` goes into its spec."""
    container = {"name": "web", "image": "k3img.test/web:1", "imagePullPolicy": "Never"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **more},
    }
