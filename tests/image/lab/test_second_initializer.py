"""Second initializer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from k3img import proc
from k3img.errors import ProgramError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = """# Two nodes that would both make a datastore
target: {arch: x86-64}
k3s: {version: v1.36.3+k3s1}
cluster:
  datastore: etcd
  nodes:
    s-1: {initializer: true, dhcp-reserved: true}
    s-2: {initializer: true, dhcp-reserved: true}
    s-3: {dhcp-reserved: true}
"""


def test_refused(tmp_path: Path, evidence: Callable[[object], None]) -> None:
    """A second initializer is refused when the file is read, with its line."""
    for name in ("profiles", "overlays"):
        (tmp_path / name).mkdir()
    file = tmp_path / "profiles/shop.yaml"
    file.write_text(TEXT)
    with pytest.raises(ProgramError) as caught:
        proc.run([sys.executable, "-m", "k3img", "check", "--tree", tmp_path, file])
    evidence(caught.value.details)
    assert "shop.yaml:8: cluster.nodes.s-2.initializer: is a second initializer" in caught.value.details
