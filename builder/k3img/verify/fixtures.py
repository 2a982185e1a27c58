"""What the checks of `tests/image` get from `k3img verify`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    from k3img.verify.lab import Bed
    from k3img.verify.life import Life
    from k3img.verify.plugin import VerifyPlugin
    from k3img.vm.machine import Machine

PLUGIN: pytest.StashKey[VerifyPlugin] = pytest.StashKey()
"""Where a run keeps its plugin; without it there is no machine to ask."""


@pytest.fixture(scope="session")
def verify(request: pytest.FixtureRequest) -> VerifyPlugin:
    """The run's plugin: checks open machines of their own with it."""
    return request.config.stash[PLUGIN]


@pytest.fixture(scope="session")
def life(verify: VerifyPlugin) -> Iterator[Life]:
    """The machine that a scenario's checks share, off at first."""
    with ExitStack() as stack:
        yield verify.open_life(stack)


@pytest.fixture(scope="session")
def bed(verify: VerifyPlugin) -> Iterator[Bed]:
    """The network that a lab scenario's machines share."""
    with ExitStack() as stack:
        yield verify.open_bed(stack)


@pytest.fixture
def machine(life: Life) -> Machine:
    """The shared machine itself."""
    return life.machine


@pytest.fixture
def host(verify: VerifyPlugin, life: Life) -> Host:
    """Testinfra's view of the shared machine."""
    return verify.testinfra(life)


@pytest.fixture
def evidence(verify: VerifyPlugin) -> Callable[[object], None]:
    """Call it with what was seen; it is kept with the check."""
    return verify.note


@pytest.fixture
def ready(life: Life) -> Life:
    """The shared machine once its node is Ready; else the check is skipped (another one fails)."""
    if not life.ready:
        pytest.skip("the node did not become Ready")
    return life
