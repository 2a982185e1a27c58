"""External PostgreSQL."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from k3img.node.model import DatastoreKind
from k3img.verify import secrecy
from k3img.verify.lab import server
from k3img.verify.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k3img.verify.lab import Bed, LabCluster

SERVERS = ("s-1", "s-2")
ANSWERS = 60


@pytest.fixture(scope="module")
def postgres(bed: Bed) -> Iterator[Postgres]:
    """A PostgreSQL on the machines' network."""
    with ExitStack() as stack:
        yield Postgres(stack, bed.host)


@pytest.fixture(scope="module")
def shop(bed: Bed, postgres: Postgres) -> LabCluster:
    """Two servers whose state lies there."""
    nodes = (server("s-1", initializer=True), server("s-2"))
    return bed.cluster("shop", *nodes, datastore=DatastoreKind.EXTERNAL, endpoint=postgres.url)


def test_ready(shop: LabCluster, evidence: Callable[[object], None]) -> None:
    """Two servers, powered on together, become one cluster."""
    shop.flash()
    shop.power_on(*SERVERS)
    shop.wait_ready(*SERVERS, seen_by="s-1", timeout=240)
    assert set(shop.nodes("s-2")) == set(SERVERS)
    assert shop.uid("s-1") == shop.uid("s-2")
    evidence(shop.told())


def test_the_password_is_kept(shop: LabCluster, postgres: Postgres) -> None:
    """The database's password is in no log and no process' arguments."""
    password = postgres.url.split(":")[2].partition("@")[0]
    for name in SERVERS:
        assert password not in secrecy.visible(shop[name].machine), name


def test_restarted(shop: LabCluster, postgres: Postgres, evidence: Callable[[object], None]) -> None:
    """The database is away for half a minute: both servers take writes again, and nothing is lost."""
    shop.keep("before", through="s-1")
    postgres.stop()
    shop.pause(30)
    postgres.start()
    began = shop.now()
    for name in SERVERS:
        shop.wait_until(f"{name} to take a write", lambda name=name: shop.answers(name), timeout=ANSWERS)  # type: ignore[misc]
    evidence(f"{shop.now() - began:.0f} s after the database was back")
    assert shop.has("before", seen_by="s-2")
    shop.wait_ready(*SERVERS, seen_by="s-2")
