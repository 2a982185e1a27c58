#!/usr/bin/env python3
"""Shrinks a freshly installed tree, once, before mkosi caches it: files, kernel modules, firmware.

Modules are unpacked: at run time a CPU would unpack .xz at each load, while erofs packs them as well.
Fails with one message that names everything that k3s needs and this kernel does not have.
"""

from __future__ import annotations

import fnmatch
import json
import lzma
import os
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
    if kernel := spec.get("kernel"):
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
