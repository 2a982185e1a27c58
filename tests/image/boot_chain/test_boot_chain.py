"""Boot chain of the Raspberry Pi

U-Boot, systemd-boot, UKI, verity, root. There is a serial console and nothing else.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from k3img.verify.boot import PI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k3img.verify.life import Life
    from k3img.verify.plugin import VerifyPlugin

U_BOOT, STATUS = 60, 300
"""Seconds with KVM; stretched without. Firmware reads the UKI at 1.4 MB/s."""


@pytest.fixture(scope="session")
def life(verify: VerifyPlugin) -> Iterator[Life]:
    """QEMU's Raspberry Pi 4, with the image on its card."""
    with ExitStack() as stack:
        yield verify.open_life(stack, PI)


def test_u_boot(life: Life, evidence: Callable[[object], None]) -> None:
    """The image's own U-Boot starts, and is new enough to rename files, which counting boots needs."""
    life.machine.start()
    found = life.machine.wait_for_console(r"U-Boot (\d{4})\.(\d\d)\S*", timeout=U_BOOT)
    evidence(found[0])
    assert (int(found[1]), int(found[2])) >= (2025, 7)


def test_status(life: Life, evidence: Callable[[object], None]) -> None:
    """The node's status on the console names the target that was reached."""
    found = life.machine.wait_for_console(r"^k3img: state=(\w+) .*target=(\S+).*$", timeout=STATUS)
    evidence(found[0])
    assert found[1] not in ("fault", "stopped")
    assert found[2] in ("basic.target", "multi-user.target")


def test_usr(life: Life, evidence: Callable[[object], None]) -> None:
    """/usr is the one that was built: the status line has verity's root hash."""
    found = life.machine.wait_for_console(r"^k3img: .*usrhash=([0-9a-f]{64})", timeout=STATUS)
    evidence(found[1])
    assert found[1] == life.image.manifest["usrhash"]


def test_no_restart(life: Life) -> None:
    """The machine was not reset on the way."""
    assert life.machine.qmp.count("RESET") == 0
