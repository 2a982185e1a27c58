"""What can go wrong: the machine broke (ours), or the guest did not do what was asked (a finding)."""

from __future__ import annotations

from k3img.errors import VerifyError


class MachineError(VerifyError):
    """The machine itself broke: QEMU ended early, a socket closed, the guest never came up.

    Not a failed check: whatever needed this machine cannot be judged any more.
    """


class WaitError(VerifyError):
    """A wait passed its deadline, or what it waited for can no longer happen. `details` is the evidence."""


class CommandError(VerifyError):
    """A command in the guest ended otherwise than was asked. `details` is its output."""
