"""The right to make a datastore is given once: this is how the node says that it has used it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files
from k3img.device.seedpart import look_for
from k3img.node.medium import BOOTSTRAP_DONE

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.device.place import Place


def mark_bootstrapped(place: Place, folder: Path | None) -> None:
    """The datastore exists: the right to make one is used up, on root and beside node.yaml."""
    files.write(place.state / BOOTSTRAP_DONE, "")
    if folder is not None and look_for(folder, BOOTSTRAP_DONE) is None:
        text = "The datastore was made. Delete this file to let the node make a new, empty one.\r\n"
        files.write(folder / BOOTSTRAP_DONE, text, mode=None)
