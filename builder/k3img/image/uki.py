"""A unified kernel image: a PE file whose sections are kernel, initrd, command line (UAPI group: UKI)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pefile

from k3img.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MACHINES = {0x8664: "x86-64", 0xAA64: "arm64"}
"""IMAGE_FILE_MACHINE_* of the PE header, as `Arch` spells them."""


@dataclass(frozen=True, kw_only=True)
class Uki:
    """What a UKI says of itself; `sizes` has the bytes of every section by name."""

    name: str
    arch: str
    command_line: tuple[str, ...]
    os_release: Mapping[str, str]
    kernel: str
    sizes: Mapping[str, int]

    def option(self, key: str) -> str:
        """The value of `key=` on the command line, the last one; empty when it is not there."""
        found = [word.partition("=")[2] for word in self.command_line if word.startswith(f"{key}=")]
        return found[-1] if found else ""


def read(path: Path) -> Uki:
    """Read a UKI. Raises `BuildError` when it is no PE file."""
    try:
        with pefile.PE(str(path), fast_load=True) as file:
            machine = int(file.FILE_HEADER.Machine)
            texts, sizes = {}, {}
            for section in file.sections:
                name = section.Name.rstrip(b"\0").decode(errors="replace")
                sizes[name] = int(section.Misc_VirtualSize)
                if name in (".cmdline", ".osrel", ".uname"):
                    data = section.get_data()[: section.Misc_VirtualSize]
                    texts[name] = data.rstrip(b"\0").decode(errors="replace")
    except (pefile.PEFormatError, OSError) as error:
        raise BuildError(f"{path.name} is no UKI: {error}") from error
    return Uki(
        name=path.name,
        arch=MACHINES.get(machine, f"machine {machine:#x}"),
        command_line=tuple(texts.get(".cmdline", "").split()),
        os_release=variables(texts.get(".osrel", "")),
        kernel=texts.get(".uname", "").strip(),
        sizes=sizes,
    )


def variables(text: str) -> dict[str, str]:
    """The lines NAME=value of an os-release file, without quotes."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, _, value in pairs}
