"""What scenarios of the lab share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k3img.verify.lab import server

if TYPE_CHECKING:
    from k3img.verify.lab import Bed, LabCluster


@pytest.fixture(scope="session")
def one_server(bed: Bed) -> LabCluster:
    """A cluster of a server, to which scenarios that share it add their agents. Nothing is written yet."""
    return bed.cluster("shop", server("a-1", initializer=True))
