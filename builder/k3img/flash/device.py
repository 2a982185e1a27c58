"""What an image may be written to: disks as lsblk sees them, and files."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k3img import proc
from k3img.errors import FlashError, UsageError
from k3img.node.medium import SEED_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

COLUMNS = "PATH,TYPE,SIZE,RM,HOTPLUG,RO,TRAN,VENDOR,MODEL,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS"
DATA = 2 << 30
"""Bytes that a node's root needs at least, beside both slots."""


@dataclass(frozen=True, kw_only=True)
class Medium:
    """A disk or a file of `size` bytes. `holds` says in words what is on it; `mounted` where that is used."""

    path: Path
    size: int
    model: str
    removable: bool
    read_only: bool = False
    holds: str = "nothing"
    mounted: tuple[str, ...] = ()
    is_file: bool = False

    @property
    def is_system(self) -> bool:
        """Whether the running system is on it."""
        return "/" in self.mounted

    def __str__(self) -> str:
        """One line for people: path, model, size, and whether it may be written."""
        kind = "a file" if self.is_file else "removable" if self.removable else "not removable"
        use = f"in use: {', '.join(self.mounted)}" if self.mounted else "not mounted"
        size = f"{self.size / 2**30:.1f} GiB"
        words = (str(self.path), self.model, size, f"{kind}, {use}, holds {self.holds}")
        return "  ".join(word for word in words if word)


def listed() -> tuple[Medium, ...]:
    """The disks of this machine. Raises `FlashError` when lsblk does not tell."""
    try:
        text = proc.run(["lsblk", "--json", "--bytes", "--output", COLUMNS])
        rows = json.loads(text)["blockdevices"]
    except (ValueError, KeyError) as error:
        raise FlashError(f"lsblk does not say which disks there are: {error}") from error
    return tuple(medium(row) for row in rows)


def medium(row: dict[str, Any]) -> Medium:
    """A row of lsblk's JSON, with its partitions below it."""
    path = Path(row["path"])
    used = dict.fromkeys(point for item in _tree(row) for point in item.get("mountpoints") or () if point)
    # A slot for cards that is built in is not called removable by the kernel, only what lies in it.
    card = path.name.startswith("mmcblk")
    return Medium(
        path=path,
        size=int(row["size"]),
        model=" ".join(f"{row.get('vendor') or ''} {row.get('model') or ''}".split()),
        removable=bool(row.get("rm") or row.get("hotplug") or row.get("tran") == "usb" or card),
        read_only=bool(row.get("ro")),
        holds=_holds(row),
        mounted=tuple(used),
    )


def _tree(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield row
    for child in row.get("children") or ():
        yield from _tree(child)


def _holds(row: dict[str, Any]) -> str:
    """What is on a disk: a k3img image by its version, else file systems."""
    rows = list(_tree(row))
    labels = [str(item.get("partlabel") or "") for item in rows]
    if SEED_LABEL in labels:
        slots = [label.removesuffix("_verity") for label in labels if label.endswith("_verity")]
        return f"k3img {', '.join(slot for slot in slots if slot != '_empty') or '(unknown)'}"
    kinds = [f"{item.get('fstype')} {item.get('label') or ''}".strip() for item in rows if item.get("fstype")]
    return ", ".join(kinds) or ("nothing known" if len(rows) == 1 else f"{len(rows) - 1} partitions")


def find(path: Path) -> Medium:
    """The medium at a path. Raises `UsageError` with the candidates when there is none."""
    try:
        about = path.stat()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=candidates()) from error
    if stat.S_ISREG(about.st_mode):
        return Medium(
            path=path, size=about.st_size, model="", removable=True, is_file=True, holds="what is in it now"
        )
    if not stat.S_ISBLK(about.st_mode):
        raise UsageError(f"{path} is neither a disk nor a file", hint=candidates())
    real = path.resolve()
    for item in listed():
        if item.path == real:
            return item
    raise UsageError(f"{path} is no whole disk", hint=candidates())


def candidates() -> str:
    """The disks that one may want to write to, as a hint."""
    rows = [item for item in listed() if item.removable and item.size and not item.is_system]
    return "Removable disks here:\n" + ("\n".join(f"  {row}" for row in rows) or "  none")


def check(medium: Medium, needed: int, *, parts: str, force: bool) -> None:
    """Raise `FlashError` when a medium must not be written, or is too small for `needed` bytes.

    `parts` says how that sum comes about.
    """
    path = medium.path
    if medium.is_system:
        raise FlashError(f"{path} holds the running system", details=str(medium))
    if medium.mounted:
        hint = f"Unmount it: {'; '.join(f'umount {point}' for point in medium.mounted)}"
        raise FlashError(f"{path} is in use", details=str(medium), hint=hint)
    if medium.read_only:
        raise FlashError(f"{path} is write-protected", hint="A card's adapter has a switch for that.")
    if not medium.removable and not force:
        hint = "Is it the right one? --force writes it all the same."
        raise FlashError(f"{path} is not removable", details=str(medium), hint=hint)
    if medium.size < needed:
        raise FlashError(
            f"{path} is too small: {medium.size / 1e9:.1f} GB, {needed / 1e9:.1f} GB are needed",
            details=parts,
        )
