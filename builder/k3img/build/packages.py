"""Debian packages of a build: from which sources, and what a lock keeps of them.

Usually mkosi takes the newest from the mirror. A locked build gets the lock's files and no others: they
are fetched by sha256 before mkosi starts, and lie as a flat repository inside the folder that mkosi keeps
packages in. That folder is what its sandbox shows to apt, at one path for every user and every cache, so
no mount of ours is needed (mkosi 25.3: installer/__init__.py `mounts`, distributions/debian.py `install`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from k3img import log, proc
from k3img.build.model import Packages, Supplies
from k3img.errors import BuildError, ProgramError
from k3img.plan.model import BuildInitrd, InstallSystem
from k3img.tools import debrepo, tools_tree
from k3img.tools.apt import PackageFile, PrivateApt, sha256_of, sources
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from k3img.build.workspace import Workspace
    from k3img.plan.model import Plan
    from k3img.runtime.lock import Lock
    from k3img.tools.apt import PackageKey, PackageRecord
    from k3img.tree import Tree

SECTIONS = ("image", "initrd", "tools")
"""The lists of a lock that apt installs from; the board's firmware is not installed."""

KEPT = "cache/apt/archives"
"""Where in mkosi's PackageCacheDirectory= the .deb files are; its sandbox shows them below /var."""

LOCKED_SOURCES = """\
# {section} of the lock, sha256 {digest}
Types: deb
URIs: file:/var/{kept}/locked
Suites: ./
Trusted: yes
"""


def newest(plan: Plan, tree: Tree) -> Supplies:
    """The mirror's packages, whatever they are today."""
    system, kept = plan.one(InstallSystem), tree.cache / "packages"
    text = sources(system.suite, system.mirror, components=system.components)
    initrd = plan.one(BuildInitrd)
    return Supplies(
        image=Packages(sources=text, kept=kept),
        initrd=Packages(sources=sources(initrd.suite, initrd.mirror), kept=kept),
        tools=None,
    )


def locked(plan: Plan, lock: Lock, tree: Tree, work: Workspace, note: Callable[[str], None]) -> Supplies:
    """The lock's packages and no others, ready in the workspace.

    Raises `BuildError` when the lock is not this plan's, or one of its packages cannot be had any more.
    """
    usual = tools_tree.Recipe.of(plan.arch.debian)
    recipe = replace(usual, lock=lock.digest_of("tools"))
    suites = _Suites(plan, tree, work.log)
    wanted = {
        "image": plan.one(InstallSystem).packages,
        "initrd": plan.one(BuildInitrd).packages,
        "tools": recipe.packages,
    }
    made = {}
    for section in SECTIONS:
        files = lock.packages.get(section, ())
        check_arch(section, files, suites.arch(section))
        if section == "tools" and tools_tree.find(tree, recipe) is not None:
            continue
        debs = fetch(files, tree, suites, section, note)
        kept = make_folder(work.root / "packages" / section)
        there = debrepo.write(debs, make_folder(kept / KEPT) / "locked")
        check_complete(section, wanted[section], there)
        text = LOCKED_SOURCES.format(section=section, digest=lock.digest_of(section), kept=KEPT)
        made[section] = Packages(sources=text, kept=kept, as_of=lock.made)
    return Supplies(
        image=made["image"],
        initrd=made["initrd"],
        tools=replace(
            recipe,
            sources=made["tools"].sources if "tools" in made else "",
            package_cache=made["tools"].kept if "tools" in made else None,
        ),
    )


def check_arch(section: str, files: Collection[PackageFile], arch: str) -> None:
    """Raise `BuildError` unless a section of a lock has packages, all of them for `arch` or for any."""
    if not files:
        raise BuildError(f"the lock file has no packages for the {section}", hint="`k3img lock` adds them.")
    if others := sorted({file.arch for file in files} - {arch, "all"}):
        raise BuildError(
            f"the lock file has packages of {', '.join(others)} for the {section}; this build needs {arch}",
            hint="The tools are this machine's, all else is the profile's. `k3img lock` makes it anew.",
        )


def check_complete(section: str, wanted: Iterable[str], there: Iterable[debrepo.Deb]) -> None:
    """Raise `BuildError` when a package that the profile asks for is not locked: apt would say less."""
    names = {name for deb in there for name in (deb.name, *provides(deb.control))}
    if missing := sorted(set(wanted) - names):
        raise BuildError(
            f"the lock file lacks {', '.join(missing)} for the {section}",
            hint="The profile asks for more than when it was locked: run `k3img lock` again.",
        )


def provides(control: str) -> set[str]:
    """Names in the `Provides` field of a package's control text."""
    line = next((line for line in control.splitlines() if line.startswith("Provides: ")), "Provides: ")
    return {item.split("(")[0].strip() for item in line.removeprefix("Provides: ").split(",")} - {""}


def fetch(
    files: Collection[PackageFile], tree: Tree, suites: _Suites, section: str, note: Callable[[str], None]
) -> list[Path]:
    """Every file as CACHE/debs/SHA256.deb: found there, kept by mkosi, or in the mirror's pool."""
    place = make_folder(tree.cache / "debs")
    missing = [file for file in files if not _have(file, place, tree.cache / "packages" / KEPT)]
    if missing:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            note(f"{section}: {done} of {len(missing)} packages fetched")

        with suites.apt(section) as apt:
            try:
                apt.update()
            except ProgramError as error:
                raise BuildError(
                    f"{len(missing)} locked packages are not in the cache, and the mirror cannot be asked",
                    details=error.details,
                    hint=error.hint,
                ) from error
            apt.fetch(missing, place, advance=advance)
    give_to_caller(place)
    return [place / f"{file.sha256}.deb" for file in files]


def _have(file: PackageFile, place: Path, kept: Path) -> bool:
    """Whether a file is there by its sha256, maybe after taking what apt left for an earlier build."""
    deb = place / f"{file.sha256}.deb"
    if sha256_of(deb) == file.sha256:
        return True
    earlier = kept / f"{file.name}_{file.version.replace(':', '%3a')}_{file.arch}.deb"
    if sha256_of(earlier) != file.sha256:
        return False
    deb.unlink(missing_ok=True)
    try:
        deb.hardlink_to(earlier)
    except OSError:  # it belongs to somebody else, or lies on another disk
        return False
    return True


def pin(about: Mapping[str, Any], plan: Plan, tree: Tree, log_file: Path) -> dict[str, list[PackageFile]]:
    """What the packages of a manifest are in the mirror's index, by section of the lock.

    Raises `BuildError` that names what the mirror does not have any more.
    """
    suites = _Suites(plan, tree, log_file)
    listed: Mapping[str, list[dict[str, str]]] = about["packages"]
    names = {item["name"] for items in listed.values() for item in items}
    index: dict[str, dict[PackageKey, PackageRecord]] = {}
    found: dict[str, list[PackageFile]] = {}
    lost: list[str] = []
    for section in SECTIONS:
        root = str(suites.apt(section).root)
        if root not in index:
            with suites.apt(section) as apt, log.step("Asking the mirror for its packages"):
                apt.update()
                index[root] = apt.index(names)
        found[section] = []
        for item in listed[section]:
            arches = (item["architecture"],) if "architecture" in item else (suites.arch(section), "all")
            keys = ((item["name"], item["version"], arch) for arch in arches)
            record = next((index[root][key] for key in keys if key in index[root]), None)
            if record is not None:
                found[section].append(record.pin)
            else:
                lost.append(_lost(section, item, index[root]))
    if lost:
        raise BuildError(
            f"the mirror does not have {len(lost)} of the image's packages any more",
            details="\n".join(lost),
            hint="`k3img lock --update` builds with what there is now, and locks that.",
        )
    return found


def _lost(section: str, item: Mapping[str, str], index: Iterable[PackageKey]) -> str:
    now = sorted({version for name, version, _ in index if name == item["name"]})
    return (
        f"{section}: {item['name']} {item['version']}: the mirror has {', '.join(now) or 'no such package'}"
    )


class _Suites:
    """Which private apt knows the packages of a section."""

    def __init__(self, plan: Plan, tree: Tree, log_file: Path) -> None:
        system, usual = plan.one(InstallSystem), tools_tree.Recipe()
        host = proc.run(["dpkg", "--print-architecture"]).strip()
        image = sources(system.suite, system.mirror, components=system.components)
        # One root is enough when the tools come from where the image comes from: lists are 140 MB.
        same = (system.suite, system.mirror, plan.arch.debian) == (usual.suite, None, host)
        self._tree, self._log = tree, log_file
        self._ours = (image, plan.arch.debian)
        self._tools = self._ours if same else (sources(usual.suite), host)

    def arch(self, section: str) -> str:
        """Debian's name of the architecture that a section is for."""
        return (self._tools if section == "tools" else self._ours)[1]

    def apt(self, section: str) -> PrivateApt:
        """apt that knows a section's packages, not entered yet."""
        text, arch = self._tools if section == "tools" else self._ours
        name = hashlib.sha256(f"{arch}\0{text}".encode()).hexdigest()[:12]
        return PrivateApt(self._tree.cache / "apt" / f"{arch}-{name}", text, arch, log=self._log)
