"""Whether KVM works here, found out by booting a tiny guest; /dev/kvm alone says nothing.

There are hosts where /dev/kvm opens and guests die: a nested hypervisor that cannot emulate what firmware
does is the common one. So the guest is the very UEFI firmware that images boot with, and a program of a few
bytes that it loads from a disk and that ends QEMU with a number of our choice.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import struct
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import ProgramError
from k3img.log import step
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3img.tools.toolbox import Firmware, Toolbox
    from k3img.tree import Tree

LIMIT = 40
"""Seconds for the guest. It takes 3 with KVM that works."""

CODE = 0x2A
SUCCESS = CODE << 1 | 1  # what isa-debug-exit makes of it

DEVICE = Path("/dev/kvm")


@dataclass(frozen=True, kw_only=True)
class Kvm:
    """The answer, its reason and what to do; `remembered` when no guest was booted for it now."""

    works: bool
    why: str
    how: str = "QEMU emulates instead, several times slower; on a virtual machine that is often all there is"
    remembered: bool = False


def works(toolbox: Toolbox, tree: Tree, *, again: bool = False) -> Kvm:
    """The remembered answer for this kernel, processor and QEMU; else, or with `again`, a guest is booted."""
    if closed := _closed(DEVICE):
        return closed
    file, key = tree.cache / "kvm.json", _key(toolbox)
    answers = _answers(file)
    if key in answers and not again:
        works_, why = answers[key]
        return Kvm(works=works_, why=why, remembered=True)
    with step("Finding out whether KVM works"):
        answer = probe(toolbox)
    make_folder(file.parent)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({**answers, key: (answer.works, answer.why)}, indent=1), encoding="utf-8")
    give_to_caller(part.rename(file))
    return answer


def probe(toolbox: Toolbox, *, accelerator: str = "kvm", limit: float = LIMIT) -> Kvm:
    """Boot the guest now. (`accelerator` is for showing that the guest itself is right: tcg must do.)"""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="k3img-kvm-") as name:
        folder = Path(name)
        argv = _argv(toolbox, folder, toolbox.firmware("amd64"), accelerator)
        failures: list[str] = []

        def see(line: str) -> None:
            # QEMU stops the guest after such an error and would wait for ever.
            if "KVM internal error" in line or "emulation failure" in line:
                failures.append(line.strip())
                _end(folder / "pid")

        try:
            proc.run(argv, cwd=folder, timeout=limit, on_line=see)
        except ProgramError as error:
            seconds = time.monotonic() - began
            if error.status == SUCCESS:
                return Kvm(works=True, why=f"firmware booted in {seconds:.1f} s")
            if failures:
                return Kvm(works=False, why=f"firmware crashed: {failures[0]}")
            if error.status == -signal.SIGALRM:
                return Kvm(works=False, why=f"firmware did not boot within {limit:.0f} s")
            last = error.details.strip().splitlines()
            return Kvm(works=False, why=f"QEMU died: {last[-1].split(': ')[-1] if last else error.brief}")
    return Kvm(works=False, why="the guest switched itself off, which it never does")


def _argv(toolbox: Toolbox, folder: Path, firmware: Firmware, accelerator: str) -> Sequence[str]:
    boot = folder / "disk/EFI/BOOT"
    boot.mkdir(parents=True)
    (boot / "BOOTX64.EFI").write_bytes(efi_program(CODE))
    shutil.copyfile(firmware.vars, folder / "vars.fd")
    data = [word for path in toolbox.qemu_data() for word in ("-L", str(path))]
    return (
        *toolbox.argv("qemu-system-x86_64"),
        *data,
        "-machine", f"q35,accel={accelerator}",
        "-cpu", "host" if accelerator == "kvm" else "max",
        "-m", "256",
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        "-pidfile", str(folder / "pid"),
        "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={firmware.code}",
        "-drive", f"if=pflash,format=raw,unit=1,file={folder}/vars.fd",
        "-drive", f"if=none,id=disk,format=raw,readonly=on,file=fat:{folder}/disk",
        "-device", "virtio-blk-pci,drive=disk",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04",
    )  # fmt: skip


def efi_program(code: int) -> bytes:
    """An x86-64 EFI program (PE32+, 1 KiB) that writes `code` to port 0xf4 and then stands still."""
    machine_code = bytes((0xB0, code, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD))  # mov al,code; out 0xf4,al; hlt; jmp $-1
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    # Relocations stripped no: firmware may load it anywhere, and position-independent code does not mind.
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x0022)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, 512, 0, 0, 0x1000, 0x1000)
    optional += struct.pack("<QIIHHHHHHI", 0x400000, 0x1000, 512, 0, 0, 0, 0, 5, 2, 0)
    optional += struct.pack("<IIIHHQQQQII", 0x2000, 512, 0, 10, 0, 0, 0, 0, 0, 0, 16)
    section = struct.pack(
        "<8sIIIIIIHHI", b".text", len(machine_code), 0x1000, 512, 512, 0, 0, 0, 0, 0x60000020
    )
    headers = dos + coff + optional.ljust(240, b"\0") + section
    return headers.ljust(512, b"\0") + machine_code.ljust(512, b"\0")


def _closed(device: Path) -> Kvm | None:
    """The answer when the device cannot even be opened. Not remembered: a group's membership mends it."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Kvm(works=False, why=f"there is no {device}")
    except PermissionError:
        user = pwd.getpwuid(os.geteuid()).pw_name
        how = f"as root: adduser {user} kvm; then log in again"
        return Kvm(works=False, why=f"{device} is not ours to open", how=how)
    except OSError as error:
        return Kvm(works=False, why=f"{device}: {error.strerror}")
    return None


def _key(toolbox: Toolbox) -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    version = ".".join(map(str, toolbox.version("qemu-system-x86_64")))
    return f"{os.uname().release} | {model[1] if model else os.uname().machine} | qemu {version}"


def _answers(file: Path) -> dict[str, tuple[bool, str]]:
    """What the file remembers; nothing when it is not there or was damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(key): (bool(works_), str(why)) for key, (works_, why) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _end(pidfile: Path) -> None:
    with contextlib.suppress(OSError, ValueError):  # it may have ended by itself
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
