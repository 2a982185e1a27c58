"""What the parts of ci/full are made of: programs with their output shown, images, clones, a test user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "profile version layout plan_digest usrhash runtime packages kernel sizes slot files image".split()
PACKAGES = ("image", "initrd", "tools")

USER = "k3img-ci-full"
USER_IS_OURS = "made by ci/full of k3img, to be removed"


class PartError(Exception):
    """A part failed; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a part works with.

    `work` is its own folder, empty at the start. `mirror` is the stand-in's folder, laid out like a release;
    `runtime` are the options of `k3img build` that name the runtime, and `images` the pods' images; none
    of the three is there for parts that need no image.
    """

    root: Path
    cache: Path
    work: Path
    mirror: Path = Path()
    runtime: tuple[str, ...] = ()
    images: Path = Path()

    @property
    def image(self) -> Path:
        """The folder of the x86 image that all parts share."""
        return self.root / "out/x86"

    @property
    def standin(self) -> str:
        """The stand-in's version."""
        (folder,) = self.mirror.glob("v*+standin*")
        return folder.name

    @property
    def standin_options(self) -> tuple[str, ...]:
        """The options of `k3img build` that take the stand-in."""
        return ("--k3s-mirror", str(self.mirror), "--set", f"k3s.version={self.standin}")

    def to_json(self) -> str:
        """For the process that runs the part."""
        texts = {name: str(value) for name, value in vars(self).items()}
        return json.dumps({**texts, "runtime": self.runtime})

    @classmethod
    def from_json(cls, text: str) -> Context:
        """The other way."""
        data = json.loads(text)
        runtime = tuple(data.pop("runtime"))
        return cls(runtime=runtime, **{name: Path(value) for name, value in data.items()})


def say(text: str) -> None:
    """A line of ours, in order with the programs' output."""
    print(text, flush=True)


def do(*argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program with its output shown; returns that output. Raises `PartError` when it fails."""
    return ends(0, *argv, cwd=cwd, env=env)


def ends(
    status: int, *argv: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a program that must end with a status; else as `do`."""
    words = [str(word) for word in argv]
    say(f"+ {' '.join(words)}" + (f"   (in {cwd})" if cwd else ""))
    seen = []
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            seen.append(line)
    if child.returncode != status:
        raise PartError(f"exit status {child.returncode}, not {status}: {' '.join(words)}")
    return "".join(seen)


def need(program: str, package: str) -> None:
    """Install Debian's package unless its program is there. Raises `PartError` when not root."""
    if shutil.which(program):
        return
    expect(os.geteuid() == 0, f"{program} is missing; as root: apt-get install {package}")
    do("apt-get", "update", "--quiet")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    do("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package, env=quiet)


def empty(folder: Path) -> None:
    """An empty folder in its place. What caches hold may be read-only or another's, so rm does it."""
    subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)
    folder.mkdir(parents=True)


def expect(condition: object, otherwise: str) -> None:
    """Raise `PartError` unless the condition holds."""
    if not condition:
        raise PartError(otherwise)


def outside(ctx: Context) -> dict[str, str]:
    """The environment of somebody who knows nothing of this checkout's .venv."""
    own = str(ctx.root / ".venv/bin")
    path = os.pathsep.join(folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own)
    return {"PATH": path, "VIRTUAL_ENV": ""}


def build(
    ctx: Context, profile: str, *more: str, out: Path | None = None, level: str = "fast"
) -> dict[str, Any]:
    """Build a profile into its own folder or `out`; returns the manifest, whose files are all there.

    The shared x86 image is a release; those of single parts are packed fast, which their parts are not about.
    """
    folder = out or ctx.root / "out" / profile
    # A lock is of one profile; k3s itself is proven by the release's own hashes for the others.
    runtime = () if ctx.runtime == ("--locked",) and profile != "x86" else ctx.runtime
    packing = ("--set", f"image.compression={level}")
    do("k3img", "build", "--profile", profile, "--out", folder, *runtime, *packing, *more)
    manifest = complete(folder)
    do("k3img", "inspect", folder / manifest["image"]["raw"])
    return manifest


def complete(folder: Path) -> dict[str, Any]:
    """The manifest of a finished image. Raises `PartError` when it lacks something, or a hash is wrong."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    missing = [key for key in MANIFEST if not manifest.get(key)]
    missing += [f"packages.{key}" for key in PACKAGES if not manifest.get("packages", {}).get(key)]
    expect(not missing, f"{folder}/manifest.json lacks {', '.join(missing)}")
    do("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder)
    return manifest


def linked(ctx: Context, name: str = "image") -> Path:
    """The x86 image once more, as hard links: reports of this part do not replace those of others."""
    folder = ctx.work / name
    folder.mkdir(parents=True)
    for file in ctx.image.iterdir():
        if file.is_file():
            (folder / file.name).hardlink_to(file)
    return folder


def verify(ctx: Context, profile: str, folder: Path, *more: str, arch: str = "amd64") -> dict[str, Any]:
    """Verify an image; returns the report. Its pages stay in FOLDER/verify."""
    images = ctx.images.with_name(f"test-images-{arch}.tar")
    junit = folder / "verify/junit.xml"
    report_file = folder / "verify/report.json"
    report_file.unlink(missing_ok=True)
    try:
        do(
            "k3img", "verify", "--profile", profile, "--out", folder,
            "--test-images", images, "--junit", junit, *more,
        )  # fmt: skip
    except PartError as error:
        raise PartError(failed_checks(report_file) or str(error)) from error
    report: dict[str, Any] = json.loads(report_file.read_text(encoding="utf-8"))
    expect(junit.is_file() and (folder / "verify/report.html").is_file(), "a report is missing")
    expect(report["image"]["sha256"] in (folder / "SHA256SUMS").read_text(), "another image was verified")
    say(f"{folder}/verify/report.html: {report['verdict']}")
    return report


def failed_checks(report: Path) -> str:
    """What the report of a verification says went wrong, for the ledger; empty when there is no report."""
    try:
        read: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    bad = [f"{check['name']} ({check['outcome']})" for check in read["checks"] if not check["ok"]]
    return "; ".join([read["verdict"], *bad])


def kubectl(ctx: Context, kubeconfig: Path, *words: str) -> str:
    """What kubectl, which the stand-in has in it, answers."""
    program = (ctx.mirror / ctx.standin / "k3s", "--data-dir", ctx.work / "kubectl", "kubectl")
    return do(*program, "--kubeconfig", kubeconfig, *words)


def clone(ctx: Context, name: str = "clone") -> Path:
    """A fresh clone of the commit; what is not committed is not in it."""
    folder = ctx.work / name
    do("git", "-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks", ctx.root, folder)
    return folder


def copy_project(ctx: Context, into: Path) -> Path:
    """Profiles and overlays in a folder of their own, to be changed; returns it."""
    for name in ("profiles", "overlays"):
        shutil.copytree(ctx.root / name, into / name, symlinks=True)
    return into


@contextmanager
def ordinary_user() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A user with subordinate ids and a home, removed at the end: the home, and the words that become it.

    For somebody who is no root it is just themselves.
    """
    home = Path("/var/tmp") / USER
    if os.geteuid() != 0:
        home = home.with_name(f"{USER}-{os.geteuid()}")
        home.mkdir(exist_ok=True)
        yield home, ()
        shutil.rmtree(home, ignore_errors=True)
        return
    remove_user()
    do("useradd", "--create-home", "--home-dir", home, "--comment", USER_IS_OURS, USER)
    try:
        if not any(line.startswith(f"{USER}:") for line in _lines("/etc/subuid")):
            do("usermod", "--add-subuids", "500000-565535", "--add-subgids", "500000-565535", USER)
        kept = ("PIP_", "SSL_", "http", "no_proxy", "HTTP", "NO_PROXY")
        variables = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(kept)]
        path = "PATH=/usr/local/bin:/usr/bin:/bin"
        become = ("runuser", "-u", USER, "--", "env", "-i", f"HOME={home}", f"USER={USER}", path, *variables)
        yield home, become
    finally:
        remove_user()


@contextmanager
def may_use_sudo() -> Iterator[None]:
    """Let the test user become root by sudo, for a while."""
    need("sudo", "sudo")
    rule = Path("/etc/sudoers.d") / USER
    rule.write_text(f"{USER} ALL=(root) NOPASSWD: ALL\n", encoding="ascii")
    try:
        yield
    finally:
        rule.unlink()


def remove_user() -> None:
    """Remove the test user and its home, if there is one and it is ours."""
    try:
        account = pwd.getpwnam(USER)
    except KeyError:
        return
    expect(account.pw_gecos.startswith(USER_IS_OURS), f"the user {USER} is not ours to remove")
    do("userdel", USER)
    do("rm", "-rf", "--one-file-system", account.pw_dir)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []
