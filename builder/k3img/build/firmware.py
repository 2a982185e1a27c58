"""A board's boot firmware: found in the suites that the profile allows, fetched by sha256, put onto the ESP.

These suites are not those of the image, and some are never released: nobody renews the date until which
their lists are valid. Signatures are checked; Valid-Until is not, because the lock's sha256 pins the files.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from k3img import proc
from k3img.errors import BuildError, ProgramError
from k3img.plan.model import BootFirmware
from k3img.tools import debrepo
from k3img.tools.apt import PackageRecord, PrivateApt, sha256_of, sources
from k3img.tree import give_to_caller, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from k3img.plan.model import BootPackage, Plan
    from k3img.profile.model import Arch
    from k3img.runtime.lock import Lock
    from k3img.tools.apt import PackageFile
    from k3img.tools.debrepo import Deb
    from k3img.tree import Tree

AnyPackage = TypeVar("AnyPackage", "PackageRecord", "Deb")

SECTION = "boot"
"""Its packages in a lock and in a manifest."""

UPDATE = "`k3img lock --update` takes what there is now; --package-dir DIR takes a .deb that you kept."


def apt_for(step: BootFirmware, arch: Arch, tree: Tree, log: Path | None) -> PrivateApt:
    """apt that knows all the suites of a board's packages, not entered yet."""
    suites = dict.fromkeys(suite for package in step.packages for suite in package.suites)
    components = ("main", "non-free-firmware")
    text = "\n".join(
        sources(suite, step.mirror, components=components, check_valid_until=False) for suite in suites
    )
    name = hashlib.sha256(f"{arch.debian}\0{text}".encode()).hexdigest()[:12]
    return PrivateApt(tree.cache / "apt" / f"{arch.debian}-boot-{name}", text, arch.debian, log=log)


def get(
    step: BootFirmware,
    arch: Arch,
    tree: Tree,
    *,
    lock: Lock | None,
    kept: Path | None,
    log: Path | None,
    note: Callable[[str], None],
) -> tuple[Deb, ...]:
    """The packages of a step, from `kept` (a folder of .deb files), the cache, or the mirror.

    With `lock` exactly its files, else the newest. Raises `BuildError` when one cannot be had, and says
    what the mirror has now.
    """
    place = make_folder(tree.cache / "debs")
    if lock is not None:
        pins = locked(step, lock)
        take_kept(kept, place, pins)
        missing = [pin for pin in pins if sha256_of(place / f"{pin.sha256}.deb") != pin.sha256]
        if missing:
            note(f"fetching {', '.join(pin.name for pin in missing)}")
            with _updated(step, arch, tree, log) as apt:
                apt.fetch(missing, place, hint=UPDATE)
        return tuple(debrepo.read_deb(place / f"{pin.sha256}.deb") for pin in pins)
    if kept is not None and (found := newest_of(step.packages, kept)) is not None:
        return found
    note("asking the mirror for boot firmware")
    with _updated(step, arch, tree, log) as apt:
        pins = [
            record.pin
            for record in choose(step.packages, apt.index({p.name for p in step.packages}).values())
        ]
        files = apt.fetch(pins, place)
    give_to_caller(place)
    return tuple(debrepo.read_deb(files[pin.sha256]) for pin in pins)


def pin(about: Mapping[str, Any], plan: Plan, tree: Tree, log: Path | None) -> list[PackageFile]:
    """What the boot firmware of a manifest is in the mirror's index.

    Raises `BuildError` when the mirror does not have it any more.
    """
    found: list[PackageFile] = []
    for step in plan.all(BootFirmware):
        with _updated(step, plan.arch, tree, log) as apt:
            records = list(apt.index({package.name for package in step.packages}).values())
        for item in about["packages"].get(SECTION, ()):
            same = next((r for r in records if r.sha256 == item["sha256"]), None)
            if same is None:
                have = ", ".join(sorted({r.version for r in records if r.name == item["name"]}))
                gone = f"{item['name']} {item['version']}"
                raise BuildError(
                    f"the mirror does not have {gone} any more; it has {have or 'none'}",
                    hint="`k3img lock --update` builds with what there is now, and locks that.",
                )
            found.append(same.pin)
    return found


@contextmanager
def _updated(step: BootFirmware, arch: Arch, tree: Tree, log: Path | None) -> Iterator[PrivateApt]:
    """A private apt with fresh lists."""
    with apt_for(step, arch, tree, log) as apt:
        try:
            apt.update()
        except ProgramError as error:
            raise BuildError(
                "the mirror cannot be asked for the board's boot firmware",
                details=error.details,
                hint=f"{error.hint} {UPDATE}",
            ) from error
        yield apt


def locked(step: BootFirmware, lock: Lock) -> list[PackageFile]:
    """What the lock has for a step. Raises `BuildError` when it lacks a package, or has one too old."""
    files = {file.name: file for file in lock.packages.get(SECTION, ())}
    for package in step.packages:
        file = files.get(package.name)
        if file is None:
            raise BuildError(
                f"the lock file lacks {package.name} for the board", hint="Run `k3img lock` again."
            )
        if older(file.version, package.at_least):
            raise BuildError(
                f"the lock file has {package.name} {file.version}; the profile wants {package.at_least}",
                hint="`k3img lock --update` locks what there is now.",
            )
    return [files[package.name] for package in step.packages]


def choose(packages: Iterable[BootPackage], records: Iterable[PackageRecord]) -> list[PackageRecord]:
    """The newest version of each that is new enough and in one of its suites.

    Raises `BuildError` that names every package that the mirror does not have, and what it has.
    """
    there = list(records)
    chosen: list[PackageRecord] = []
    lost: list[str] = []
    for package in packages:
        if fit := _newest(package, (record for record in there if record.suite in package.suites)):
            chosen.append(fit)
        else:
            have = sorted({f"{r.version} ({r.suite})" for r in there if r.name == package.name})
            lost.append(f"{package.name}: the mirror has {', '.join(have) or 'none'}")
            lost[-1] += f"; {package.at_least} or newer is wanted, from {', '.join(package.suites)}"
    if lost:
        raise BuildError("the board's boot firmware cannot be had", details="\n".join(lost), hint=UPDATE)
    return chosen


def take_kept(folder: Path | None, place: Path, pins: Iterable[PackageFile]) -> None:
    """Copy the files of a lock that lie in a folder into the cache; others there are passed over."""
    wanted = {pin.sha256 for pin in pins}
    for deb in sorted(folder.glob("*.deb")) if folder else ():
        if (digest := sha256_of(deb)) in wanted and sha256_of(place / f"{digest}.deb") != digest:
            shutil.copyfile(deb, place / f"{digest}.deb")
            give_to_caller(place / f"{digest}.deb")


def newest_of(packages: Sequence[BootPackage], folder: Path) -> tuple[Deb, ...] | None:
    """Of the .deb files in a folder the newest of each package that is new enough; None unless it has all."""
    debs = [debrepo.read_deb(path) for path in sorted(folder.glob("*.deb"))]
    found = [fit for package in packages if (fit := _newest(package, debs))]
    return tuple(found) if len(found) == len(packages) else None


def _newest(package: BootPackage, there: Iterable[AnyPackage]) -> AnyPackage | None:
    """Of the packages of that name the newest that is new enough; of equal ones the last."""
    fit: AnyPackage | None = None
    for one in there:
        if one.name == package.name and not older(one.version, fit.version if fit else package.at_least):
            fit = one
    return fit


def older(one: str, other: str) -> bool:
    """Whether a Debian version is older than another."""
    try:
        proc.run(["dpkg", "--compare-versions", one, "lt", other])
    except ProgramError:
        return False
    return True


def place(step: BootFirmware, debs: Iterable[Deb], esp: Path, scratch: Path) -> None:
    """Lay a step's files out in `esp`, the folder that becomes the ESP's root.

    Raises `BuildError` when a package does not have a file.
    """
    make_folder(esp)
    for deb in debs:
        root = make_folder(scratch / deb.name)
        proc.run(["dpkg-deb", "--extract", deb.path, root])
        for package, pattern, name in step.files:
            if package != deb.name:
                continue
            files = sorted(root.glob(pattern))
            if not files:
                raise BuildError(f"{deb.name} {deb.version} has no {pattern}", hint=UPDATE)
            for file in files:
                shutil.copyfile(file, esp / (name or file.name))
        shutil.rmtree(root)
    for name, text in step.texts:
        (esp / name).write_text(text, encoding="ascii")
