"""Where things are: the project's folders, and the cache. Nobody else joins these paths by hand."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from k3img.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A project's folders.

    `root` holds `profiles/` and `overlays/`; `out` is where images land; `cache` outlives checkouts
    and may be deleted at any time.
    """

    root: Path
    cache: Path

    @property
    def profiles(self) -> Path:
        """The folder of the profiles and their lock files."""
        return self.root / "profiles"

    @property
    def overlays(self) -> Path:
        """The folder of the trees that profiles copy over the root."""
        return self.root / "overlays"

    @property
    def out(self) -> Path:
        """The folder of finished images: `out/PROFILE/`."""
        return self.root / "out"

    def profile(self, name: str) -> Path:
        """The file of a profile given by name, or by path when it looks like one."""
        if "/" in name or name.endswith((".yaml", ".yml")):
            return Path(name)
        return self.profiles / f"{name}.yaml"


def find(start: Path | None = None) -> Tree:
    """The project around `start` (default: the working directory): the nearest folder with `profiles/`.

    Raises `UsageError` when there is none up to the root directory.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "profiles").is_dir() and (folder / "overlays").is_dir():
            return Tree(root=folder, cache=cache_dir())
    raise UsageError(
        f"no k3img project here: {here} and the folders above have no profiles/ and overlays/",
        hint="Change into the project's folder, or name it with --tree DIR.",
    )


def cache_dir() -> Path:
    """`$K3IMG_CACHE`, else `~/.cache/k3img` of the user who called (also under sudo)."""
    if named := os.environ.get("K3IMG_CACHE"):
        return Path(named).absolute()
    uid = caller()[0]
    home = Path(pwd.getpwuid(uid).pw_dir) if uid != os.geteuid() else Path.home()
    return home / ".cache/k3img"


def caller() -> tuple[int, int]:
    """User and group id of the person who called: the one behind sudo, else ours."""
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        return int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", "0"))
    return os.geteuid(), os.getegid()


def make_folder(path: Path) -> Path:
    """Make a folder and its missing parents, all of them the caller's; returns `path`."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        os.chown(folder, *caller())
    return path


def give_to_caller(path: Path) -> None:
    """Under sudo: hand a file, or a folder with all that is in it, to the person who called."""
    uid, gid = caller()
    if uid == os.geteuid():
        return
    for item in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        os.chown(item, uid, gid, follow_symlinks=False)
