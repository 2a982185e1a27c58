"""Rules about several keys of a profile, and about files that it names. Single values: `kinds`, `rules`.

A rule looks only at keys that were read without a problem, so that one mistake is told once.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from k3img.profile import check_cluster, check_k3s
from k3img.profile.boards import BOOT_PACKAGES, Board
from k3img.profile.kinds import MIB
from k3img.profile.model import Arch, KernelFlavour
from k3img.profile.sink import suggest
from k3img.profile.source import COMMAND_LINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.profile.model import Profile
    from k3img.profile.sink import Sink
    from k3img.tree import Tree

MAX_GPT_LABEL = 36
"""Characters of a partition's label; the longest of ours is `<name>_<version>_verity`."""

DATE_VERSION = len("20260101.1200")


def check(profile: Profile, tree: Tree, sink: Sink, *, part: bool) -> None:
    """Report what is wrong with a profile as a whole; a part has no target that rules could be about."""
    _name(profile, sink, part=part)
    if not part:
        _target(profile, sink)
    _image(profile, sink)
    _firmware(profile, sink)
    _files(profile, tree, sink)
    check_k3s.check(profile, sink)
    check_cluster.check(profile, sink)


def _name(profile: Profile, sink: Sink, *, part: bool) -> None:
    if not sink.clean("name"):
        return
    stem = profile.file.stem
    # `k3img build --profile NAME` finds the file by its name, and writes to out/NAME.
    if profile.name != stem and sink.origins["name"] is not COMMAND_LINE:
        sink.problem("name", f"is {profile.name}, the file is called {profile.file.name}", f"Write {stem}.")
    if profile.debug and not part and "debug" not in profile.name:
        hint = "Whoever finds the image must see that anybody may log in."
        sink.problem("name", f"must have debug in it, such as {profile.name}-debug, as debug is true", hint)
    version = len(profile.image.version) if profile.image.version else DATE_VERSION
    length = len(f"{profile.name}_") + version + len("_verity")
    if sink.clean("image.version") and length > MAX_GPT_LABEL:
        what = f"is too long: with a version of {version} characters partition labels have {length}"
        sink.problem("name", what, f"{MAX_GPT_LABEL} are allowed; shorten the name, or set image.version.")


def _target(profile: Profile, sink: Sink) -> None:
    arch, board, os = profile.target.arch, profile.target.board, profile.os
    if not sink.clean("target"):
        return
    if board is Board.RPI4 and arch is not Arch.ARM64:
        sink.problem("target.arch", f"is {arch}, a Raspberry Pi 4 is arm64", "Write arch: arm64.")
        return
    _boot_packages(profile, sink)
    if os.kernel is KernelFlavour.CLOUD and arch is not Arch.X86_64:
        hint = "Write generic, or remove the line."
        sink.problem("os.kernel", f"is cloud, which is for virtual machines of x86-64, not {arch}", hint)
    if os.microcode and arch is not Arch.X86_64:
        sink.problem("os.microcode", f"is for Intel and AMD, the target is {arch}", "Remove it.")


def _boot_packages(profile: Profile, sink: Sink) -> None:
    board, given = profile.target.board, profile.target.boot_packages
    needed = BOOT_PACKAGES.get(board, ())
    for name in needed:
        if name not in given:
            hint = f"Write {name}: {{at-least: VERSION, suites: [SUITE]}} there, or extend rpi4."
            sink.problem(
                "target.boot-packages", f"lacks {name}, which a board of type {board} boots from", hint
            )
    for name, package in given.items():
        if name not in needed:
            hint = f"Known are {', '.join(needed)}." if needed else "Remove it."
            sink.problem(f"target.boot-packages.{name}", f"is nothing that {board} boots from", hint)
        elif not package.suites:
            sink.problem(f"target.boot-packages.{name}.suites", "is empty", "Name a suite such as forky.")


def _image(profile: Profile, sink: Sink) -> None:
    image = profile.image
    if not sink.clean("image.slot", "image.verity"):
        return
    # dm-verity's hash tree is 1/128 of the data (32-byte hashes of 4 KiB blocks); a fifth more is spare.
    least = -(-image.slot * 12 // (10 * 128 * MIB))
    if image.verity < least * MIB:
        what = f"is {image.verity // MIB} MiB, too small for a slot of {image.slot // MIB} MiB"
        sink.problem("image.verity", what, f'Write "{least} MiB" or more.')


def _firmware(profile: Profile, sink: Sink) -> None:
    if not profile.os.firmware or not sink.clean("os.firmware", "os.packages"):
        return
    if not any("firmware" in package for package in profile.os.packages):
        what = "keeps files of firmware packages, os.packages has none of them"
        sink.problem("os.firmware", what, "Add the package, such as firmware-realtek.")


def _files(profile: Profile, tree: Tree, sink: Sink) -> None:
    """Overlays, archives and manifests must be there when the profile is read, not only at the build."""
    for name in profile.os.overlays:
        if not _there((tree.overlays / name).is_dir):
            known = [folder.name for folder in tree.overlays.glob("*") if folder.is_dir()]
            hint = suggest(name, known) or f"Known are {', '.join(sorted(known))}." if known else ""
            sink.problem(sink.items["os.overlays", name], f"there is no folder overlays/{name}", hint)
    for key, files in (("k3s.images", profile.k3s.images), ("k3s.manifests", profile.k3s.manifests)):
        names: dict[str, str] = {}
        for text in files:
            path = sink.items[key, text]
            if not _there((tree.root / text).is_file):
                sink.problem(path, f"there is no file {text}", _neighbours(tree.root / text, tree))
            base = PurePosixPath(text).name
            if base in names:
                hint = "They go into one folder of the image; rename one."
                sink.problem(path, f"has the same file name as {names[base]}", hint)
            names.setdefault(base, text)


def _there(test: Callable[[], bool]) -> bool:
    """What a test of a path says; a folder that may not be entered has nothing for us."""
    try:
        return test()
    except OSError:
        return False


def _neighbours(path: Path, tree: Tree) -> str:
    """The nearest file name in the folder where `path` should be."""
    if not _there(path.parent.is_dir):
        return f"There is no folder {path.parent.relative_to(tree.root)}."
    try:
        files = [str(file.relative_to(tree.root)) for file in path.parent.iterdir() if file.is_file()]
    except OSError as error:
        return f"Its folder cannot be read: {error.strerror}."
    return suggest(str(path.relative_to(tree.root)), files) or "Paths are relative to the project's folder."
