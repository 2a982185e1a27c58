"""Every program that k3img starts, and which copy of it: the host's when new enough, else the tools tree's.

`find` looks and starts nothing but `--version`; `prepare` fetches what can be fetched. mkosi always works
with the tools tree, so an image does not depend on what the host has installed
(docs/decisions/0002-tools-tree.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import K3imgError, MissingToolError
from k3img.tools import host, mkosi, tools_tree
from k3img.tools.finding import Finding, State, require
from k3img.tools.mkosi import numbers
from k3img.tools.tools_tree import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.tools.mkosi import Mkosi
    from k3img.tools.tools_tree import ToolsTree
    from k3img.tree import Tree


class Where(StrEnum):
    """Whose copy of a program is used."""

    HOST = "host"
    TREE = "tools tree"


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A program we start: the oldest version that does, its Debian package, what it is for."""

    name: str
    package: str
    needed_for: str
    minimum: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that was found: `argv` starts it; `version` is empty when we do not care."""

    tool: Tool
    where: Where
    version: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """UEFI for a virtual machine: the code, and the variables to copy for each machine."""

    code: Path
    vars: Path


# mkfs.erofs 1.8 is the first with the options that the layout needs; QEMU 9 the oldest we test with.
TOOLS = (
    Tool(name="qemu-system-x86_64", package="qemu-system-x86", minimum=(9,), needed_for="booting images"),
    Tool(name="qemu-img", package="qemu-utils", minimum=(9,), needed_for="disks of virtual machines"),
    Tool(name="mkfs.erofs", package="erofs-utils", minimum=(1, 8), needed_for="the /usr file system"),
    Tool(name="dump.erofs", package="erofs-utils", minimum=(1, 8), needed_for="looking into an image"),
    Tool(name="fsck.erofs", package="erofs-utils", minimum=(1, 8), needed_for="looking into an image"),
    Tool(name="systemd-repart", package="systemd-repart", minimum=(257,), needed_for="partitions"),
    Tool(name="veritysetup", package="cryptsetup-bin", minimum=(2, 6), needed_for="checking a /usr at rest"),
    Tool(name="mkfs.vfat", package="dosfstools", needed_for="the seed partition"),
    Tool(name="mcopy", package="mtools", needed_for="files on the ESP and the seed partition"),
)

FOR_TARGET = {
    "arm64": (
        Tool(
            name="qemu-system-aarch64",
            package="qemu-system-arm",
            minimum=(9,),
            needed_for="booting arm64 images",
        ),
        Tool(name="fdtput", package="device-tree-compiler", needed_for="device trees for QEMU's Pi"),
    )
}
"""What images of another architecture need besides `TOOLS`."""

# Debian's names of the edk2 builds without Secure Boot, whose 4 MB variable store is today's default.
FIRMWARE = {
    "amd64": ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd", "ovmf"),
    "arm64": (
        "usr/share/AAVMF/AAVMF_CODE.no-secboot.fd",
        "usr/share/AAVMF/AAVMF_VARS.fd",
        "qemu-efi-aarch64",
    ),
}

FIX = "k3img doctor --fix"


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """Everything that was found, ready to start. Made by `find` and `prepare`."""

    mkosi: tuple[str, ...]
    """The words that start mkosi, environment included."""
    mkosi_version: str
    tree: ToolsTree
    programs: Mapping[str, Program]
    root: Path = Path("/")
    """The host's root; tests have one of their own."""

    @property
    def tools_tree(self) -> Path:
        """What mkosi gets as `ToolsTree=`."""
        return self.tree.path

    def argv(self, name: str) -> tuple[str, ...]:
        """The words that start a program, arguments to follow. Raises `MissingToolError`."""
        if name in self.programs:
            return self.programs[name].argv
        return self.tree.argv(name)

    def version(self, name: str) -> tuple[int, ...]:
        """A program's version as numbers; () when it is not one of `TOOLS` or was not asked."""
        return numbers(self.programs[name].version) if name in self.programs else ()

    def qemu_data(self, program: str = "qemu-system-x86_64") -> tuple[Path, ...]:
        """Folders for QEMU's `-L`, in this order; none for the host's, which knows its own."""
        if self.programs[program].where is Where.HOST:
            return ()
        folders = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
        return tuple(self.tree.path / folder for folder in folders if (self.tree.path / folder).is_dir())

    def firmware(self, arch: str) -> Firmware:
        """UEFI firmware for Debian's `arch`, from the tools tree, else the host.

        Raises `MissingToolError` when neither has it.
        """
        code, variables, package = FIRMWARE[arch]
        for root in (self.tree.path, self.root):
            if (root / code).is_file() and (root / variables).is_file():
                return Firmware(code=root / code, vars=root / variables)
        raise MissingToolError(f"no UEFI firmware for {arch}", hint=f"apt-get install {package}")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What there is, complete or not; `findings` has a line for each program, also for those missing."""

    mkosi: Mkosi | None
    tree: ToolsTree | None
    programs: Mapping[str, Program]
    findings: tuple[Finding, ...]
    wanted: tuple[Tool, ...] = TOOLS

    def toolbox(self) -> Toolbox | None:
        """The toolbox, when it is complete (the host may still lack something else)."""
        if self.mkosi is None or self.tree is None or len(self.programs) < len(self.wanted):
            return None
        return Toolbox(
            mkosi=self.mkosi.argv,
            mkosi_version=self.mkosi.version,
            tree=self.tree,
            programs=self.programs,
        )


def find(tree: Tree, recipe: Recipe | None = None, *, target: str = "amd64") -> Toolbox:
    """The toolbox of this machine for images of `target` (Debian's name), with the tree of `recipe` or any.

    Raises `MissingToolError` that names everything missing.
    """
    seen = survey(tree, recipe, target=target)
    require(seen.findings)
    complete = seen.toolbox()
    assert complete is not None, "require() saw to it"
    return complete


def prepare(
    tree: Tree,
    *,
    target: str = "amd64",
    mirror: str | None = None,
    recipe: Recipe | None = None,
    renew: bool = False,
) -> Toolbox:
    """Like `find`, but first gets mkosi and the tools tree into the cache when they are not there.

    `renew` makes the tools tree anew, with the mirror's packages of today.

    Raises `MissingToolError` for what only the host's apt can mend, `BuildError` when fetching fails.
    """
    require(host.programs())
    wanted = recipe or Recipe.of(target)
    engine = mkosi.get(tree, mirror=mirror)
    if renew:
        tools_tree.discard(tree, wanted)
    tools_tree.get(tree, engine, wanted)
    return find(tree, wanted, target=target)


def survey(tree: Tree, recipe: Recipe | None = None, *, target: str = "amd64") -> Survey:
    """Look for everything, raise nothing."""
    engine = mkosi.find(tree)
    trixie = tools_tree.find(tree, recipe) if recipe else tools_tree.find_any(tree, target)
    wanted = (*TOOLS, *FOR_TARGET.get(target, ()))
    programs: dict[str, Program] = {}
    findings = [*host.programs(), _engine(engine), _tree(trixie)]
    for tool in wanted:
        program, finding = _look(tool, trixie)
        findings.append(finding)
        if program is not None:
            programs[tool.name] = program
    return Survey(mkosi=engine, tree=trixie, programs=programs, findings=tuple(findings), wanted=wanted)


def _engine(engine: Mkosi | None) -> Finding:
    wanted = ".".join(map(str, mkosi.MINIMUM))
    name, needed_for = f"mkosi >= {wanted}", "building images"
    if engine is None:
        return Finding(name=name, state=State.MISSING, found="none", needed_for=needed_for, how=FIX)
    where = Where.HOST if engine.from_host else "cache"
    return Finding(name=name, state=State.OK, found=f"{engine.version} ({where})", needed_for=needed_for)


def _tree(tree: ToolsTree | None) -> Finding:
    name, needed_for = "tools tree", "programs of Debian 13 for mkosi and QEMU"
    if tree is None:
        return Finding(name=name, state=State.MISSING, found="none", needed_for=needed_for, how=FIX)
    found = f"{len(tree.packages)} packages ({tree.path})"
    return Finding(name=name, state=State.OK, found=found, needed_for=needed_for)


def _look(tool: Tool, tree: ToolsTree | None) -> tuple[Program | None, Finding]:
    wanted = ".".join(map(str, tool.minimum))
    name = f"{tool.name} >= {wanted}" if wanted else tool.name
    program, old = _on_host(tool)
    if program is None and tree is not None:
        program = _in_tree(tool, tree)
    if program is not None:
        found = f"{program.version or 'there'} ({program.where}{f'; the host has {old}' if old else ''})"
        return program, Finding(name=name, state=State.OK, found=found, needed_for=tool.needed_for)
    return None, Finding(
        name=name,
        state=State.MISSING,
        found=f"{old}, too old" if old else "none",
        needed_for=tool.needed_for,
        how=FIX,
    )


def _on_host(tool: Tool) -> tuple[Program | None, str]:
    """The host's program if it is new enough; and its version if it is not."""
    if (path := proc.which(tool.name)) is None:
        return None, ""
    version = ""
    if tool.minimum:
        try:
            text = proc.run([path, "--version"])
        except K3imgError:
            return None, "a broken one"
        version = ".".join(map(str, numbers(text)))
        if numbers(text) < tool.minimum:
            return None, version or "a version we cannot read"
    return Program(tool=tool, where=Where.HOST, version=version, argv=(str(path),)), ""


def _in_tree(tool: Tool, tree: ToolsTree) -> Program | None:
    if tree.program(tool.name) is None:
        return None
    # Debian's version without epoch, +dfsg and revision: 1:10.0.13+ds-0+deb13u1 is 10.0.13.
    package = re.sub(r"^\d+:", "", tree.packages.get(tool.package, ""))
    version = ".".join(map(str, numbers(package)))
    return Program(tool=tool, where=Where.TREE, version=version, argv=tree.argv(tool.name))
