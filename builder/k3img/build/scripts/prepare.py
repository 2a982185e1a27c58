#!/usr/bin/env python3
"""Shrinks a freshly installed tree, once, before mkosi caches it: files, programs, kernel modules, firmware.

Modules are unpacked: at run time a CPU would unpack .xz at each load, while erofs packs them as well.
Fails with one message that names everything that k3s needs and this kernel does not have.
"""

from __future__ import annotations

import compileall
import fnmatch
import json
import lzma
import os
import py_compile
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("BUILDROOT", "/buildroot"))


def main() -> int:
    """Trim $BUILDROOT as $SRCDIR/prepare.json says."""
    spec = json.loads((Path(os.environ["SRCDIR"]) / "prepare.json").read_text())
    remove(spec["remove"])
    if keep := spec.get("keep"):
        trim_programs(set(keep["programs"]))
        trim_rules(set(keep["rules"]))
        trim_libraries()
        trim_units()
    compile_python()
    keep_device_trees(spec.get("device_trees", []))
    if kernel := spec.get("kernel"):
        list_packages()
        folders = sorted((ROOT / "usr/lib/modules").iterdir())
        if len(folders) != 1:
            print(f"k3img: one kernel expected, found: {[f.name for f in folders]}", file=sys.stderr)
            return 1
        problems = trim_kernel(folders[0], kernel)
        if problems:
            print("k3img: this kernel cannot be used:", *problems, sep="\n  ", file=sys.stderr)
            return 1
    return 0


def remove(patterns: list[str]) -> None:
    """Delete what matches the absolute globs."""
    # All are found before any is deleted: a link whose target has gone is no longer found.
    for path in [path for pattern in patterns for path in ROOT.glob(pattern.lstrip("/"))]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def list_packages() -> None:
    """What /usr is made of, for people and scanners: dpkg's own database is not in the image."""
    text = (ROOT / "var/lib/dpkg/status").read_text(encoding="utf-8")
    rows = []
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"[A-Z]\S*: ", line))
        if fields.get("Status", "").endswith(" installed"):
            rows.append(f"{fields['Package']} {fields['Version']} {fields['Architecture']}\n")
    target = ROOT / "usr/lib/k3img/packages"
    target.parent.mkdir(exist_ok=True)
    target.write_text("".join(sorted(rows)))


def keep_device_trees(patterns: list[str]) -> None:
    """Put the wanted device trees of the kernel's package onto the ESP; the others (56 MB on arm64) go."""
    places = [path for path in (ROOT / "usr/lib").glob("linux-image-*") if path.is_dir()]
    esp = ROOT / "efi"
    for place in places:
        for pattern in patterns:
            found = sorted(place.glob(pattern))
            if not found:
                sys.exit(f"k3img: the kernel's package has no device tree {pattern}")
            for path in found:
                esp.mkdir(exist_ok=True)
                shutil.copyfile(path, esp / path.name)
        shutil.rmtree(place)


def compile_python() -> None:
    """Byte-compile Python's own library in the place of its sources, which are half of its size.

    /usr is read-only, and compiling at each boot is slow. Only for the Python that runs this: bytecode is of
    one version.
    """
    own = "python{}.{}".format(*sys.version_info)
    folders = [ROOT / "usr/lib" / name for name in (own, "python3")]
    if not folders[0].is_dir():
        return
    for folder in folders:
        for stale in list(folder.rglob("__pycache__")):
            shutil.rmtree(stale)
        compileall.compile_dir(
            folder,
            quiet=1,
            workers=0,
            legacy=True,
            stripdir=str(ROOT),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        for source in folder.rglob("*.py"):
            if source.with_suffix(".pyc").exists():
                source.unlink()


def trim_programs(wanted: set[str]) -> None:
    """Of all programs keep those with a wanted name, and what their links lead to."""
    places = ("bin", "sbin", "lib/systemd", "lib/systemd/system-generators", "lib/udev")
    programs = [
        path
        for place in places
        for path in (ROOT / "usr" / place).glob("*")
        if path.is_symlink() or (path.is_file() and path.stat().st_mode & 0o111)
    ]
    keep = {path for path in programs if path.name in wanted}
    keep |= {path.resolve() for path in keep}
    for path in programs:
        if path not in keep and path.suffix != ".so":
            path.unlink()


def trim_rules(wanted: set[str]) -> None:
    """Of udev's rules keep the wanted files."""
    for path in (ROOT / "usr/lib/udev/rules.d").glob("*.rules"):
        if path.name not in wanted:
            path.unlink()


def trim_libraries() -> None:
    """Delete the shared libraries that nothing needs which is left."""
    libraries = [path for path in (ROOT / "usr/lib").glob("*-linux-gnu*/*.so*") if not path.is_dir()]
    known = set(libraries)
    todo = [path for path in (ROOT / "usr").rglob("*") if path.is_file() and path not in known]
    # These two are loaded by name: the loader by the kernel, libgcc by glibc when a thread is cancelled.
    todo += [path for path in libraries if path.name.startswith(("ld-linux", "libgcc_s"))]
    keep: set[Path] = set()
    while todo:
        path = todo.pop()
        if path in keep:
            continue
        keep.add(path)
        if path.is_symlink():
            todo.append(path.resolve())
        wanted = needed_libraries(path)
        todo += [library for library in libraries if library.name in wanted]
    for path in libraries:
        if path not in keep:
            path.unlink()


def needed_libraries(path: Path) -> set[str]:
    """What an ELF file is linked with, and what it says that it loads at run time.

    The latter by the notes of https://systemd.io/ELF_DLOPEN_METADATA. Empty for other files.
    """
    # Debian's own reader of ELF files, of the tools tree in which this runs.
    from elftools.common.exceptions import ELFError  # noqa: PLC0415
    from elftools.elf.dynamic import DynamicSection  # noqa: PLC0415
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415
    from elftools.elf.sections import NoteSection  # noqa: PLC0415

    names: set[str] = set()
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return names
        try:
            elf = ELFFile(file)
            dynamic, notes = map(elf.get_section_by_name, (".dynamic", ".note.dlopen"))
            if isinstance(dynamic, DynamicSection):
                names |= {str(getattr(tag, "needed", "")) for tag in dynamic.iter_tags("DT_NEEDED")}
            if isinstance(notes, NoteSection):
                for note in notes.iter_notes():
                    text = note["n_descdata"].rstrip(b"\0").decode()
                    names |= {name for entry in json.loads(text) for name in entry["soname"]}
        except ELFError as error:
            sys.exit(f"k3img: {path}: {error}")
    return names


def trim_units() -> None:
    """Delete units whose program has gone, and links to units that have."""
    units = ROOT / "usr/lib/systemd/system"
    for path in units.glob("*.service"):
        if not path.is_symlink() and not has_program(path):
            path.unlink()
    for path in [path for path in units.rglob("*") if path.is_symlink()]:
        target = path.readlink()
        if target.is_absolute():
            target = ROOT / target.relative_to("/")
        if target != ROOT / "dev/null" and not (path.parent / target).exists():
            path.unlink()


def has_program(unit: Path) -> bool:
    """Whether the first program that a unit starts is there; systemd looks names without a path up."""
    for line in lines(unit):
        if line.startswith("ExecStart=") and (words := line.partition("=")[2].lstrip("@-+!:|").split()):
            return any(
                (ROOT / place / words[0].lstrip("/")).exists() for place in ("", "usr/bin", "usr/sbin")
            )
    return True


def trim_kernel(folder: Path, spec: dict[str, Any]) -> list[str]:
    """Keep the wanted modules and what they depend on; returns what is missing, in words."""
    version = folder.name
    subprocess.run(["depmod", "-b", ROOT, version], check=True)
    files = {
        module_name(Path(line.split(":")[0])): line.split(":")[0] for line in lines(folder / "modules.dep")
    }
    needs = {
        module_name(Path(head)): [module_name(Path(item)) for item in tail.split()]
        for head, _, tail in (line.partition(":") for line in lines(folder / "modules.dep"))
    }
    for line in lines(folder / "modules.softdep"):
        words = line.split()
        if len(words) > 2 and words[0] == "softdep":
            needs.setdefault(canonical(words[1]), []).extend(
                canonical(word) for word in words[2:] if not word.endswith(":")
            )
    builtin = {module_name(Path(line)) for line in lines(folder / "modules.builtin")}

    keep = select(spec["modules"], files) | select(spec["required"], files)
    keep |= {canonical(module) for _, module in spec["configs"] if canonical(module) in files}
    problems = [
        f"module {name}: this kernel has none of that name (profile: os.modules, os.initrd_modules)"
        for name in spec["required"]
        if not select([name], files) and canonical(name) not in builtin
    ]
    problems += missing_configs(version, spec["configs"], keep)
    todo = list(keep)
    while todo:
        for name in needs.get(todo.pop(), ()):
            if name in files and name not in keep:
                keep.add(name)
                todo.append(name)

    for name, relative in files.items():
        if name not in keep:
            (folder / relative).unlink()
    unpack([folder / files[name] for name in sorted(keep)])
    remove_empty(folder / "kernel")
    subprocess.run(["depmod", "-b", ROOT, version], check=True)
    firmware = trim_firmware(spec["firmware"])
    report = {"version": version, "modules": sorted(keep), "firmware": firmware}
    (ROOT / "usr/lib/k3img").mkdir(parents=True, exist_ok=True)
    (ROOT / "usr/lib/k3img/kernel.json").write_text(json.dumps(report, indent=1) + "\n")
    return problems


def select(patterns: list[str], files: dict[str, str]) -> set[str]:
    """Names of the modules that match: a name, a glob over names, or a folder (`fs/erofs/`)."""
    found: set[str] = set()
    for pattern in patterns:
        if "/" in pattern:
            inside = f"kernel/{pattern.strip('/')}"
            found |= {name for name, path in files.items() if path.startswith((f"{inside}/", f"{inside}.ko"))}
        else:
            found |= set(fnmatch.filter(files, canonical(pattern)))
    return found


def missing_configs(version: str, configs: list[list[str]], keep: set[str]) -> list[str]:
    """Which of the kernel options that k3s needs are off, or are modules that the image would lack."""
    path = ROOT / "boot" / f"config-{version}"
    values = dict(
        line.removeprefix("CONFIG_").split("=", 1)
        for line in lines(path)
        if line.startswith("CONFIG_") and "=" in line
    )
    problems = []
    for name, module in configs:
        value = values.get(name)
        if value not in ("y", "m"):
            problems.append(f"CONFIG_{name} is not set in kernel {version}; k3s needs it")
        elif value == "m" and canonical(module) not in keep:
            problems.append(
                f"CONFIG_{name} is a module, and {module or 'its module'} is not in the image; k3s needs it"
            )
    return problems


def unpack(paths: list[Path]) -> None:
    """Replace each NAME.ko.xz by NAME.ko."""

    def one(path: Path) -> None:
        if path.suffix == ".xz":
            path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
            path.unlink()

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, paths))


def trim_firmware(wanted: list[str]) -> list[str]:
    """Delete all firmware but the wanted files and folders, and the targets of their links."""
    base = ROOT / "usr/lib/firmware"
    if not base.is_dir():
        return []
    keep: set[Path] = set()
    for pattern in wanted:
        for path in base.glob(pattern.rstrip("/")):
            keep |= {path, *path.rglob("*")} if path.is_dir() else {path}
    keep |= {path.resolve() for path in keep if path.is_symlink()}
    for path in base.rglob("*"):
        if path not in keep and (path.is_symlink() or not path.is_dir()):
            path.unlink()
    remove_empty(base)
    return sorted(str(path.relative_to(base)) for path in keep if path.is_file())


def remove_empty(folder: Path) -> None:
    """Delete folders that hold nothing any more."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()


def lines(path: Path) -> list[str]:
    """A file's lines; none if it is not there."""
    return path.read_text().splitlines() if path.exists() else []


def module_name(path: Path) -> str:
    """`kernel/fs/nls/nls_ascii.ko.xz` -> `nls-ascii`."""
    return canonical(path.name.split(".ko")[0])


def canonical(name: str) -> str:
    """The kernel takes `-` and `_` in module names for the same."""
    return name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
