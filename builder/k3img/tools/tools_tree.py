"""The tools tree: a folder with the programs of Debian 13, for hosts whose own are too old or missing.

mkosi itself makes it, from the host's mirror, once per list of packages. mkosi then runs systemd-repart,
mkfs.erofs, ukify and apt from it (`ToolsTree=`), and we run QEMU and a few more through its own dynamic
loader, without root and without a container. Everything in it belongs to the user who called, so that the
cache can be deleted at any time. See docs/decisions/0002-tools-tree.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import BuildError, MissingToolError
from k3img.log import step
from k3img.tools.apt import sources
from k3img.tools.mkosi import steps, write_sandbox
from k3img.tools.publish import locked, new_folder, remove
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from k3img.tools.mkosi import Mkosi
    from k3img.tree import Tree

# What mkosi runs while it builds an x86-64 image, and what we run to boot one and to look into it.
PACKAGES = (
    *("apt", "bash", "ca-certificates", "coreutils", "cpio", "debian-archive-keyring", "diffutils"),
    *(
        "findutils",
        "gawk",
        "grep",
        "kmod",
        "openssl",
        "python3",
        "python3-pyelftools",
        "sed",
        "tar",
        "util-linux",
        "xz-utils",
        "zstd",
    ),
    *("cryptsetup-bin", "dosfstools", "e2fsprogs", "erofs-utils", "fdisk", "mtools"),
    *("systemd", "systemd-boot-efi", "systemd-boot-tools", "systemd-repart", "systemd-ukify"),
    *("ovmf", "qemu-system-x86", "qemu-utils"),
)

# What an image for another machine needs besides: a tree of its own, which most people never make.
FOR_TARGET = {"arm64": ("qemu-system-arm", "qemu-efi-aarch64", "qemu-user", "device-tree-compiler")}

# Of these only qemu-user's qemu-aarch64, QEMU's program for 64-bit ARM and firmware without Secure Boot stay.
_OTHERS = "[b-hj-oq-rt-z]* aarch64_be alpha arm armeb i386 ppc* s390x sh4* sparc* system-arm".split()
REMOVED_FOR_TARGET = {
    "arm64": (
        *(f"/usr/bin/qemu-{name}" for name in _OTHERS),
        *("/usr/share/AAVMF/AAVMF_CODE.secboot*", "/usr/share/AAVMF/*.ms.fd"),
        *("/usr/share/AAVMF/*.snakeoil.fd", "/usr/share/AAVMF/AAVMF32*", "/usr/share/qemu-efi-aarch64"),
    )
}

# Nobody runs these from here; they are 110 MB of 330.
REMOVED = (
    *("/usr/share/locale", "/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/lintian"),
    *(
        "/usr/share/bash-completion",
        "/usr/share/zsh",
        "/usr/share/bug",
        "/usr/share/i18n",
        "/usr/share/zoneinfo",
    ),
    *("/usr/bin/qemu-system-i386", "/usr/bin/qemu-nbd", "/usr/bin/qemu-io", "/usr/bin/qemu-storage-daemon"),
    *("/usr/share/OVMF/*.ms.fd", "/usr/share/OVMF/*.snakeoil.fd", "/usr/share/OVMF/*.strictnx.fd"),
    *(
        "/usr/share/ovmf",
        "/usr/share/qemu/OVMF.fd",
        "/usr/share/qemu/skiboot.lid",
        "/usr/share/qemu/openbios-*",
    ),
    *(
        "/usr/share/qemu/slof.bin",
        "/usr/share/qemu/hppa-*",
        "/usr/share/qemu/u-boot*",
        "/usr/share/qemu/s390*",
    ),
    *(
        "/usr/lib/x86_64-linux-gnu/perl-base",
        "/usr/bin/perl*",
        "/usr/lib/systemd/catalog",
        "/usr/lib/udev/hwdb.d",
    ),
    *("/usr/lib/python3*/idlelib", "/usr/lib/python3*/ensurepip", "/usr/lib/python3*/pydoc_data"),
    *("/var/cache", "/var/lib/dpkg", "/var/lib/apt", "/var/log/*"),
)

CONFIG = """\
[Distribution]
Distribution=debian
Release={suite}
[Output]
Format=tar
CompressOutput=no
Output=tools
ManifestFormat=json
[Build]
SandboxTrees=sandbox
CacheDirectory=
Incremental=no
[Content]
Bootable=no
WithDocs=no
Packages={packages}
RemoveFiles={removed}
"""

# A setuid program in a cache would stay there with all its bugs after Debian mended them.
FINALIZE = """\
#!/bin/sh
exec find "$BUILDROOT" -xdev -type f -perm /6000 -exec chmod ug-s {} +
"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a tools tree is made of.

    `sources` (deb822) may give exact package versions; `lock` is then the name of that set, and
    `package_cache` the folder that mkosi keeps packages in, when it is not the usual one.
    """

    suite: str = "trixie"
    packages: tuple[str, ...] = PACKAGES
    removed: tuple[str, ...] = REMOVED
    sources: str = ""
    lock: str = ""
    package_cache: Path | None = None

    @classmethod
    def of(cls, target: str) -> Recipe:
        """The usual tree for images of Debian's architecture `target`."""
        return cls(
            packages=(*PACKAGES, *FOR_TARGET.get(target, ())),
            removed=(*REMOVED, *REMOVED_FOR_TARGET.get(target, ())),
        )

    @property
    def config(self) -> str:
        """The text of mkosi.conf."""
        return CONFIG.format(
            suite=self.suite, packages=",".join(self.packages), removed=",".join(self.removed)
        )

    @property
    def digest(self) -> str:
        """Names the tree in the cache. The mirror is no part of it: each has the same packages."""
        text = "\0".join((platform.machine(), self.config, FINALIZE, self.lock))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ToolsTree:
    """A finished tree: its root (give it to mkosi as ToolsTree=) and the version of every package in it."""

    path: Path
    packages: Mapping[str, str]

    def program(self, name: str) -> Path | None:
        """Where a program lies in the tree, or None."""
        places = (self.path / folder / name for folder in ("usr/bin", "usr/sbin", "usr/lib/systemd"))
        return next((place for place in places if place.exists()), None)

    def argv(self, name: str) -> tuple[str, ...]:
        """The words that run a program of the tree outside of it, with the tree's own libraries.

        Raises `MissingToolError` when there is none of that name.
        """
        program = self.program(name)
        lib = self.path / f"usr/lib/{platform.machine()}-linux-gnu"
        loader = next(lib.glob("ld-linux-*.so.*"), None)
        if program is None or loader is None:
            raise MissingToolError(f"the tools tree has no {name}: {self.path}", hint="Delete that folder.")
        start = (
            str(loader),
            "--inhibit-cache",
            "--library-path", f"{lib}:{lib}/systemd",
            "--argv0", name,
            str(program),
        )  # fmt: skip
        if name.startswith("qemu-"):
            # QEMU looks for its modules beside the running file, which is the loader.
            return ("/usr/bin/env", f"QEMU_MODULE_DIR={lib}/qemu", *start)
        return start


def find(tree: Tree, recipe: Recipe | None = None) -> ToolsTree | None:
    """The tree of this recipe in the cache, or None."""
    folder = _place(tree, recipe or Recipe())
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return None
    packages = json.loads(manifest.read_text(encoding="utf-8"))["packages"]
    return ToolsTree(path=folder / "tree", packages=packages)


def find_any(tree: Tree, target: str = "amd64") -> ToolsTree | None:
    """The usual tree of a target, else one that a locked build made: for what only needs the programs."""
    usual = Recipe.of(target)
    if there := find(tree, usual):
        return there
    for manifest in sorted((tree.cache / "tools").glob("*/manifest.json")):
        about = json.loads(manifest.read_text(encoding="utf-8"))
        if about["suite"] == usual.suite and set(usual.packages) <= about["packages"].keys():
            return ToolsTree(path=manifest.parent / "tree", packages=about["packages"])
    return None


def get(tree: Tree, mkosi: Mkosi, recipe: Recipe | None = None) -> ToolsTree:
    """The tree of this recipe, made when it is not there (about a minute, 60 MB from the mirror)."""
    recipe = recipe or Recipe()
    if there := find(tree, recipe):
        return there
    with step(f"Making the tools tree (Debian {recipe.suite})") as this:
        build(tree, mkosi, recipe, this.note)
    made = find(tree, recipe)
    assert made is not None, "it was just published"
    return made


def discard(tree: Tree, recipe: Recipe) -> None:
    """Delete the tree of this recipe, if there is one."""
    place = _place(tree, recipe)
    with locked(place, "the tools tree"):
        remove(place)


def build(tree: Tree, mkosi: Mkosi, recipe: Recipe, note: Callable[[str], None]) -> None:
    """Make and publish the tree, unless somebody else has by now. Raises `BuildError`."""
    with new_folder(_place(tree, recipe), "the tools tree") as folder:
        if folder is None:
            return
        work = make_folder(folder / "work")
        _write_config(work, recipe)
        cache = make_folder(recipe.package_cache or tree.cache / "packages")
        log = make_folder(tree.cache / "logs") / "tools-tree.log"
        log.unlink(missing_ok=True)

        proc.run(
            [
                *mkosi.argv,
                "--directory", work,
                "--output-directory", folder / "out",
                "--workspace-directory", make_folder(folder / "workspace"),
                "--package-cache-dir", cache,
                "build",
            ],
            cwd=work,
            log=log,
            on_line=steps(note),
            hint=f"The whole log: {log}. `k3img doctor` says what mkosi lacks on this machine.",
        )  # fmt: skip
        _unpack(folder, recipe, mkosi)
        give_to_caller(cache)
        give_to_caller(log)


def _write_config(work: Path, recipe: Recipe) -> None:
    (work / "mkosi.conf").write_text(recipe.config, encoding="utf-8")
    script = work / "mkosi.finalize"
    script.write_text(FINALIZE, encoding="utf-8")
    script.chmod(0o755)
    write_sandbox(work / "sandbox", recipe.sources or sources(recipe.suite))


def _unpack(folder: Path, recipe: Recipe, mkosi: Mkosi) -> None:
    """Turn mkosi's output into `tree` and `manifest.json`.

    By way of a tar file: unpacked without owners everything is the caller's, where a directory made by
    an ordinary user's mkosi holds files that only root could delete.
    """
    out, root = folder / "out", folder / "tree"
    root.mkdir()
    proc.run(
        [
            "tar", "--extract", "--file", out / "tools.tar",
            "--no-same-owner", "--no-same-permissions", "--directory", root,
        ]
    )  # fmt: skip
    listed = json.loads((out / "tools.manifest").read_text(encoding="utf-8"))["packages"]
    packages = {package["name"]: package["version"] for package in listed}
    if lost := set(recipe.packages) - packages.keys():
        raise BuildError(f"mkosi's tools tree lacks {', '.join(sorted(lost))}")
    manifest = {
        "suite": recipe.suite,
        "digest": recipe.digest,
        "lock": recipe.lock,
        "mkosi": mkosi.version,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "packages": packages,
    }
    proc.run(["rm", "-rf", out, folder / "work", folder / "workspace"])
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _place(tree: Tree, recipe: Recipe) -> Path:
    return tree.cache / "tools" / recipe.digest
