"""UEFI for a machine: the code is shared and read-only, the variables are this machine's own copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k3img.tools.toolbox import Firmware
    from k3img.vm.spec import Sockets


def install(firmware: Firmware, sockets: Sockets) -> None:
    """Give a machine fresh variables. A machine that exists keeps its own: they outlive a power cut."""
    if not sockets.vars.exists():
        shutil.copyfile(firmware.vars, sockets.vars)
        sockets.vars.chmod(0o600)
