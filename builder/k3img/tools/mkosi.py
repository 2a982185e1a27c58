"""Where mkosi comes from: PATH when it is new enough, else Debian's package, unpacked into the cache.

mkosi is pure Python without dependencies, so the unpacked package runs anywhere; what it calls (apt,
systemd-repart, mkfs) comes from the tools tree. Debian 13's 25.3 is the oldest that we write
configuration for, and the one that is fetched.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img import proc
from k3img.errors import BuildError, K3imgError
from k3img.log import step
from k3img.tools.apt import PrivateApt, network_settings, sources
from k3img.tools.publish import new_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k3img.tree import Tree

MINIMUM = (25, 3)
SUITE = "trixie"

# A script and not an environment variable: whoever starts mkosi need not know where its modules are.
# Bytecode is made when it is unpacked: under sudo it would later appear as root's in the user's cache.
LAUNCHER = """\
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "usr/lib/python3/dist-packages"))
sys.argv[0] = "mkosi"
sys.dont_write_bytecode = True

from mkosi.__main__ import main

main()
"""


@dataclass(frozen=True, kw_only=True)
class Mkosi:
    """A usable mkosi: the words that start it, its version and whether it is the host's own."""

    argv: tuple[str, ...]
    version: str
    from_host: bool


def numbers(text: str) -> tuple[int, ...]:
    """The version in a line such as `mkosi 25.3` or `QEMU emulator version 10.0.13 (Debian ...)`.

    `26~devel` is 26; a text without a number gives ().
    """
    match = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def find(tree: Tree) -> Mkosi | None:
    """The host's mkosi, else the one in the cache, else None. Starts at most `mkosi --version`."""
    return on_host() or in_cache(tree)


def on_host() -> Mkosi | None:
    """mkosi on PATH, if it is new enough and runs."""
    if (program := proc.which("mkosi")) is None:
        return None
    try:
        text = proc.run([program, "--version"]).strip()
    except K3imgError:
        return None  # a broken one (its Python is gone, say) is as good as none
    if numbers(text) < MINIMUM:
        return None
    return Mkosi(argv=(str(program),), version=text.removeprefix("mkosi "), from_host=True)


def in_cache(tree: Tree) -> Mkosi | None:
    """The newest mkosi that was unpacked into the cache."""
    folders = sorted(_place(tree).glob("mkosi-*/launch.py"), key=lambda file: numbers(file.parent.name[6:]))
    if not folders:
        return None
    launcher = folders[-1]
    version = launcher.parent.name.removeprefix("mkosi-")
    return Mkosi(argv=(sys.executable, str(launcher)), version=version, from_host=False)


def get(tree: Tree, *, mirror: str | None = None) -> Mkosi:
    """Find mkosi, or fetch it from the host's mirror (or `mirror`), signatures checked by apt."""
    if there := find(tree):
        return there
    with step("Fetching mkosi"):
        return fetch(tree, mirror)


def fetch(tree: Tree, mirror: str | None = None) -> Mkosi:
    """Unpack the suite's mkosi into the cache. Raises `BuildError` when the mirror's is too old."""
    arch = proc.run(["dpkg", "--print-architecture"]).strip()
    root = _place(tree) / f"apt-{SUITE}-{arch}"
    with PrivateApt(root, sources(SUITE, mirror), arch) as apt:
        apt.update()
        version = apt.candidates(["mkosi"]).get("mkosi", "")
        if numbers(version) < MINIMUM:
            wanted = ".".join(map(str, MINIMUM))
            raise BuildError(
                f"the mirror's mkosi is {version or 'missing'}, {wanted} or newer is needed",
                hint="Name a mirror that carries Debian 13, or install mkosi yourself.",
            )
        with new_folder(_place(tree) / f"mkosi-{version}", "mkosi") as folder:
            if folder is not None:
                (package,) = apt.download(["mkosi"], folder)
                proc.run(["dpkg-deb", "--extract", package, folder])
                proc.run([sys.executable, "-m", "compileall", "-q", folder / "usr/lib"])
                package.unlink()
                (folder / "launch.py").write_text(LAUNCHER, encoding="utf-8")
    shutil.rmtree(root)  # the lists are 140 MB
    found = in_cache(tree)
    assert found is not None, "it was just put there"
    return found


def write_sandbox(folder: Path, text: str) -> None:
    """Write what apt has in mkosi's sandbox (`SandboxTrees=`): sources, and the host's network settings."""
    files = {
        # The file of this name keeps mkosi from writing sources of its own, whose debug archive mirrors lack.
        "sources.list.d/mkosi.sources": text,
        "apt.conf.d/99k3img": 'Acquire::Languages "none";\n'
        + "".join(f"{line}\n" for line in network_settings()),
    }
    for name, content in files.items():
        path = folder / "etc/apt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(0o644)


def steps(note: Callable[[str], None]) -> Callable[[str], None]:
    """For `proc.run(on_line=...)`: passes on the lines in which mkosi says what it does now."""

    def see(line: str) -> None:
        if line.startswith("‣"):
            note(line.lstrip("‣ "))

    return see


def _place(tree: Tree) -> Path:
    return tree.cache / "tools"
