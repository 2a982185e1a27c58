"""Starting over, asked for by a file `factory-reset` on the seed partition.

The secrets go back to the partition, the root partition's entry leaves the GPT, and the machine restarts:
systemd-repart makes a new root, as on the first boot, on any firmware (the EFI variable for that cannot be
written under U-Boot). The new root renames the file to `factory-reset.done`. Until then every step is
repeated after a power cut: the entry is dropped last, and the secrets are written whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files, gpt, seed
from k3img.device.seedpart import look_for
from k3img.node.medium import FACTORY_RESET, NODE_FILE, SECRETS

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.device.disk import Medium
    from k3img.device.place import Place

USED = "used"
"""In `/var/lib/k3img`: this root has been through a first boot."""


def asked(folder: Path) -> Path | None:
    """The file that asks for a reset."""
    return look_for(folder, FACTORY_RESET)


def finish(place: Place, folder: Path) -> bool:
    """On a fresh root: the reset is done, say so on the partition. Returns whether there was one."""
    request = asked(folder)
    if request is None or (place.state / USED).exists():
        return False
    request.replace(folder / f"{FACTORY_RESET}.done")
    files.sync_folder(folder)
    return True


def begin(place: Place, folder: Path, medium: Medium) -> str | None:
    """Give the secrets back and drop the root partition. Returns why not, or None: then restart.

    Raises `OSError` when the partition cannot be written.
    """
    if medium.disk is None or medium.root is None:
        return "the root partition was not found on the disk that booted"
    if medium.twins:
        return "two disks carry the same image"
    # node.yaml too: a node that ran on its last good file would come back as nobody.
    last = files.read(place.state / NODE_FILE)
    if last is not None and look_for(folder, NODE_FILE) is None:
        files.write(folder / NODE_FILE, last, mode=None)
    for name, body in seed.kept_secrets(place).items():
        files.write(folder / SECRETS / name, body, mode=None)
        if files.read(folder / SECRETS / name) != body:
            return f"{SECRETS}/{name} could not be given back to the partition"
    if not gpt.drop(medium.disk, medium.root, medium.sector):
        return "the partition table has no entry of the root partition"
    return None
