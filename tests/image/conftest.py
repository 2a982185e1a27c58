"""Checks of a booted image, for `k3img verify`, which opens the machines (k3img.verify.plugin).

Without it there is no machine to ask, so a plain `pytest` does not even collect them. The fixtures are in
k3img.verify.fixtures: `life` and `machine` (the shared machine), `host` (testinfra's view of it), `ready`
(skips when the node is not Ready), `evidence` (keeps what was seen), `verify` (opens further machines).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from k3img.verify.fixtures import PLUGIN

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.verify.life import Life


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave everything out unless `k3img verify` runs us."""
    return None if PLUGIN in config.stash else True


@pytest.fixture(scope="session")
def image_info(life: Life) -> dict[str, Any]:
    """What the build wrote into the image about the image."""
    found: dict[str, Any] = json.loads(life.machine.succeed("cat /usr/lib/k3img/image.json"))
    return found
