"""A plan for people: one line a step, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from k3img.plan.model import (
    BootFirmware,
    BuildInitrd,
    CopyCode,
    CopyFile,
    CopyOverlay,
    FetchRuntime,
    InstallSystem,
    MakeDisk,
    MaskUnits,
    Plan,
    Publish,
    Step,
    TrimKernel,
    UnpackRuntime,
    WriteFile,
)
from k3img.profile.kinds import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_text(plan: Plan) -> str:
    """All steps with their reasons, and the digest."""
    rows = [(_what(step), step.reason) for step in plan.steps]
    width = min(max(len(what) for what, _ in rows), 72)
    lines: Sequence[str] = [f"{what:{width}}  {reason}" for what, reason in rows]
    head = f"{plan.name} {plan.version} ({plan.arch})"
    return "\n".join([head, *(f"  {number:2}. {line}" for number, line in enumerate(lines, 1)), plan.digest])


def _what(step: Step) -> str:  # noqa: C901 - one line a kind
    match step:
        case FetchRuntime():
            return f"get k3s {step.version}, sha256 {step.sha256 or 'from the release'}"
        case UnpackRuntime():
            return f"unpack it to {step.into}"
        case BuildInitrd():
            return f"build the initrd: {len(step.programs)} programs, {len(step.modules)} modules named"
        case InstallSystem():
            return f"install {len(step.packages)} packages of {step.suite} and what they need"
        case TrimKernel():
            return (
                f"keep {len(step.modules) + len(step.required)} named modules, {len(step.firmware)} firmware"
            )
        case BootFirmware():
            return f"put boot firmware onto the ESP, from {', '.join(p.name for p in step.packages)}"
        case CopyOverlay():
            return f"copy overlay {step.name}"
        case CopyFile():
            return f"copy {step.source} to {step.path}"
        case CopyCode():
            return f"copy {len(step.files)} files of k3img to {step.into}"
        case WriteFile():
            return f"write {step.path}"
        case MaskUnits():
            return f"mask {len(step.units)} units"
        case MakeDisk():
            return f"make the disk: ESP {step.esp // MIB} MiB, slots of {step.slot // MIB} MiB"
        case Publish():
            return f"publish {', '.join(step.formats)}, UKI, manifest, SHA256SUMS"
        case _:
            assert_never(step)
