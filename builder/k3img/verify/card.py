"""A medium's K3IMG partition as a laptop sees it that the card was put into. Its machine must be off."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import ProgramError
from k3img.image import gpt
from k3img.node.medium import SEED_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Card:
    """The partition on `medium`; `argv` gives the words that start mtools' programs."""

    medium: Path
    argv: Callable[[str], tuple[str, ...]]

    def read(self, name: str) -> str:
        """A file's text; empty when there is none."""
        try:
            return proc.run([*self.argv("mtype"), "-i", self._image, f"::{name}"])
        except ProgramError:
            return ""

    def write(self, name: str, text: str) -> None:
        """A file anew."""
        with tempfile.NamedTemporaryFile(prefix="k3img-") as file:
            Path(file.name).write_text(text, encoding="utf-8")
            proc.run([*self.argv("mcopy"), "-o", "-i", self._image, file.name, f"::{name}"])

    def contains(self, data: bytes) -> bool:
        """Whether these bytes are anywhere on it, in a file or not."""
        return data in self._bytes()

    def zero(self) -> bytes:
        """Overwrite the whole partition; the partition table still says that it was seeded.

        Returns what was there, for `restore`.
        """
        whole = self._bytes()
        self.restore(bytes(len(whole)))
        return whole

    def restore(self, whole: bytes) -> None:
        """Put the partition's bytes in place."""
        with self.medium.open("r+b") as file:
            file.seek(self._part.start)
            file.write(whole)

    def check(self) -> None:
        """Raise `ProgramError` unless the file system is clean."""
        with tempfile.NamedTemporaryFile(prefix="k3img-") as copy:
            Path(copy.name).write_bytes(self._bytes())
            proc.run([*self.argv("fsck.vfat"), "-n", copy.name])

    def _bytes(self) -> bytes:
        with self.medium.open("rb") as file:
            file.seek(self._part.start)
            return file.read(self._part.size)

    @property
    def _part(self) -> gpt.Partition:
        return next(part for part in gpt.read(self.medium) if part.label == SEED_LABEL)

    @property
    def _image(self) -> str:
        return f"{self.medium}@@{self._part.start}"
