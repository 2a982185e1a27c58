"""The parts of ci/full. Each calls ci/* and k3img as a person would, and raises when something is not right.

A part is run by `python -m ci.parts NAME CONTEXT`, a process of its own that ci/full can end.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ci import datastores, labs, media, raw_image, sealed, seeded, workflow
from ci.steps import (
    Context,
    PartError,
    build,
    clone,
    complete,
    do,
    empty,
    expect,
    linked,
    may_use_sudo,
    need,
    ordinary_user,
    outside,
    say,
    verify,
)

from k3img.verify.scenarios import CLUSTERS

if TYPE_CHECKING:
    from collections.abc import Callable

SCENARIO_NEEDS = {"external-postgres": {"pg_createcluster": "postgresql"}, "no-ntp": {"chronyd": "chrony"}}
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"


@dataclass(frozen=True)
class Part:
    """A part: what it proves, and about how many minutes it takes on 2 cores without KVM."""

    name: str
    minutes: float
    about: str
    run: Callable[[Context], None]
    needs_image: bool = True


def user_build(ctx: Context) -> None:
    """An ordinary user with a clone and a cache of their own sets up and builds, then with sudo as well."""
    with ordinary_user() as (home, become):
        project = home / "k3img"
        do("git", "-c", "safe.directory=*", "clone", "--quiet", "--no-hardlinks", ctx.root, project)
        do("cp", "-r", ctx.mirror, home / "mirror")  # compiling the stand-in is not what this is about
        if become:
            do("chown", "-R", f"{home.stat().st_uid}:{home.stat().st_gid}", home)
        # The place where it is without this variable, which sudo does not hand on.
        env = {"K3IMG_CACHE": str(home / ".cache/k3img"), **outside(ctx)}
        cache = ("env", f"K3IMG_CACHE={home}/.cache/k3img")
        do(*become, *cache, "ci/setup", cwd=project, env=env)
        mirror = ("--k3s-mirror", str(home / "mirror"), "--set", f"k3s.version={ctx.standin}")
        do(*become, *cache, ".venv/bin/k3img", "build", "--profile", "x86", *mirror, cwd=project, env=env)
        if become:
            Path("/dev/net/tun").chmod(0o666)  # as udev does where there is one
        wait = ("verify", "--profile", "x86", "--scenario", "wait")  # a bridge, a second network, a router
        do(*become, *cache, ".venv/bin/k3img", *wait, cwd=project, env=env)
        # What is different for somebody who is not root.
        do(*become, *cache, ".venv/bin/pytest", "tests/build/test_selfrun.py", cwd=project, env=env)
        theirs, ours = complete(project / "out/x86"), complete(ctx.image)
        if theirs["packages"] == ours["packages"]:
            same = theirs["image"]["sha256"] == ours["image"]["sha256"]
            expect(same, f"not byte for byte what {ctx.image} has")
        else:
            say(f"not compared with {ctx.image}: the mirror has other packages now")
        if become:
            with may_use_sudo():
                sudo = ("sudo", project / ".venv/bin/k3img", "build", "--profile", "x86", "--out", "out/sudo")
                do(*become, *sudo, *mirror, "--set", "image.compression=fast", cwd=project, env=env)
            complete(project / "out/sudo")
            foreign = do("find", home, "-user", "root", "-print", "-quit")
            expect(not foreign, f"belongs to root: {foreign}")
        expect(not do("git", "-c", "safe.directory=*", "status", "--short", cwd=project), "git status")


def hardware(ctx: Context) -> None:
    """Every disk controller and every network card at least once."""
    report = verify(ctx, "x86", linked(ctx), "--scenario", "hardware", "--hardware", "all")
    groups = sorted({check["group"] for check in report["checks"]})
    say(f"groups: {', '.join(groups)}")


def link_down(ctx: Context) -> None:
    """First boot without a link, which comes later than every limit."""
    verify(ctx, "x86", linked(ctx), "--scenario", "link-down")


def scenario(ctx: Context, *, name: str) -> None:
    """Several machines in one network."""
    for program, package in SCENARIO_NEEDS.get(name, {}).items():
        need(program, package)
    verify(ctx, "x86", linked(ctx), "--scenario", name)


def levels(ctx: Context) -> None:
    """Both levels of compression."""
    rows = []
    for level in ("fast", "small"):
        about = build(ctx, "x86", out=ctx.work / level, level=level)
        packed = next(item["size"] for name, item in about["files"].items() if name.endswith(".raw.zst"))
        seconds = sum(about["seconds"].values())
        rows.append((level, packed, about["slot"]["used"], seconds))
    say(f"{'level':8}{'.raw.zst':>12}{'/usr':>12}{'build':>10}")
    for level, packed, used, seconds in rows:
        say(f"{level:8}{packed / 1e6:9.1f} MB{used / 1e6:9.1f} MB{seconds:8.0f} s")
    expect(rows[0][1] > rows[1][1], "small is not smaller than fast")


def x86_cloud(ctx: Context) -> None:
    """The cloud profile, built and verified."""
    build(ctx, "x86-cloud")
    verify(ctx, "x86-cloud", ctx.root / "out/x86-cloud")


def x86_debug(ctx: Context) -> None:
    """The debug profile has a root shell on the serial console."""
    build(ctx, "x86-debug")
    boot = ("k3img", "boot", "--profile", "x86-debug")
    answer = on_terminal(*boot, ask="echo console-$((6*7)) $(id -u)", expected="console-42 0")
    expect(answer, "the root console did not answer within 15 minutes")


def etcd(ctx: Context) -> None:
    """A profile whose datastore is etcd."""
    folder = ctx.work / "image"
    build(ctx, "x86", "--set", "cluster.datastore=etcd", out=folder)
    verify(ctx, "x86", folder)


def ssh(ctx: Context) -> None:
    """An image with an ssh server, and a real ssh client."""
    need("ssh", "openssh-client")
    folder = ctx.work / "image"
    build(ctx, "x86", "--set", "os.ssh=true", out=folder)
    verify(ctx, "x86", folder, "--scenario", "ssh")


def arm64(ctx: Context) -> None:
    """An image for ARM machines with UEFI, built and verified on this one."""
    on_arm(ctx)
    build(ctx, "arm64", level="small")
    keep(ctx, ctx.root / "out/arm64")
    sealed.inspect(ctx, ctx.root / "out/arm64")
    verify(ctx, "arm64", ctx.root / "out/arm64", arch="arm64")


def rpi4(ctx: Context) -> None:
    """The Raspberry Pi 4: its own chain up to the root, and the same image on `virt` up to a pod."""
    on_arm(ctx)
    build(ctx, "rpi4", level="small")
    keep(ctx, ctx.root / "out/rpi4")
    sealed.inspect(ctx, ctx.root / "out/rpi4")
    verify(ctx, "rpi4", ctx.root / "out/rpi4", arch="arm64")


def keep(ctx: Context, folder: Path) -> None:
    """Leave a built image in the cache, where ci/test finds it by its plan and inspects it."""
    about = complete(folder)
    place = ctx.cache / "images" / about["plan_digest"]
    empty(place)
    for name in ("manifest.json", f"{about['image']['raw']}.zst"):
        do("cp", folder / name, place)


def on_arm(ctx: Context) -> None:
    """Programs of arm64 run here, and the stand-in and the pods' images are there for them."""
    do("k3img", "doctor", "--fix", "--target", "arm64")
    do("ci/runtime", "arm64", cwd=ctx.root)


def locked(ctx: Context) -> None:
    """`k3img lock` once, then `build --locked`, in a clone (the lock is no file of ours)."""
    project = clone(ctx)
    runtime = ctx.standin_options if ctx.runtime != ("--locked",) else ()
    do("k3img", "lock", "--profile", "x86", *runtime, cwd=project)
    expect((project / "profiles/x86.lock.yaml").is_file(), "there is no lock")
    do("k3img", "build", "--locked", "--profile", "x86", *runtime, cwd=project)
    first = complete(project / "out/x86")
    again = do("k3img", "build", "--locked", "--profile", "x86", *runtime, cwd=project)
    expect("nothing has changed" in again, "a second locked build did something")
    expect(first["locked"], "the manifest does not say that it is locked")


def build_failures(ctx: Context) -> None:
    """Builds that must fail, and how."""
    need("qemu-aarch64-static", "qemu-user-static")
    need("gpg", "gnupg")
    do("pytest", "tests/build", cwd=ctx.root)


def k3s_file(ctx: Context) -> None:
    """ci/test with a release file, as somebody with a k3s file at hand would run it."""
    said = do("ci/test", "--k3s", ctx.mirror / ctx.standin / "k3s", cwd=ctx.root, env=outside(ctx))
    expect("machine tests ran on the k3s file" in said, "it does not say what it ran on")


def second_run(ctx: Context) -> None:
    """ci/test in a fresh clone with an empty cache, and once more."""
    project = clone(ctx)
    env = {"K3IMG_CACHE": str(ctx.work / "cache"), **outside(ctx)}
    seconds = []
    said = ""
    for _ in range(2):
        began = time.monotonic()
        said = do("ci/test", "--runtime", "standin", cwd=project, env=env)
        seconds.append(time.monotonic() - began)
    say(f"first run {seconds[0] / 60:.1f} minutes, second {seconds[1] / 60:.1f}")
    expect("nothing has changed" in said, "the second run built the image again")
    expect(not do("git", "status", "--short", cwd=project), "git status is not clean")


def html(ctx: Context) -> None:
    """The report's page in a headless Chromium."""
    need("chromium", "chromium")
    said = do("pytest", "tests/browser", cwd=ctx.root)
    expect("skipped" not in said.splitlines()[-1], "a test was skipped")


def run_workflow(ctx: Context) -> None:
    """The `run:` lines of .github/workflows, in a fresh clone with a cache of its own."""
    project = clone(ctx)
    count = 0
    for file in sorted((project / ".github/workflows").glob("*.y*ml")):
        for job in workflow.jobs(file.read_text(encoding="utf-8")):
            say(f"== {file.name}: job {job.name}{'' if job.run_by_us else f' ({workflow.NOT_RUN})'}")
            if not job.run_by_us:
                continue
            env = {"K3IMG_CACHE": str(ctx.work / "cache"), **outside(ctx)}
            workflow.run(job, clone=project, scratch=ctx.work / job.name, env=env, do=do)
            count += len(job.steps)
    expect(count, "no run: line was run")


def actionlint(ctx: Context) -> None:
    """The workflows, linted by actionlint."""
    files = sorted((ctx.root / ".github/workflows").glob("*.y*ml"))
    expect(files, "there are no workflows")
    do("ci/runtime", "go", "run", ACTIONLINT, *files, cwd=ctx.root)


def runtime_go_tests(ctx: Context) -> None:
    """The stand-in's own tests."""
    do("ci/runtime", "test", cwd=ctx.root)


def readme(ctx: Context) -> None:
    """What README's quick start tells people to type, line by line, in a fresh clone."""
    project = clone(ctx)
    lines = quick_start((project / "README.md").read_text(encoding="utf-8"))
    expect({"ci/demo", "ci/test"} <= {*lines}, "the quick start has no ci/demo or ci/test")
    for line in lines:
        typed = line
        if line.startswith("k3img build") and ctx.runtime != ("--locked",):
            typed = shlex.join((*line.split(), *ctx.standin_options))
            say(f"README has {line!r}; k3s cannot be had here, so the stand-in is named")
        script = f"[ ! -e .venv/bin/activate ] || . .venv/bin/activate\n{typed}"
        if line.startswith("k3img boot"):
            argv = ("bash", "-c", script.replace("k3img boot", "exec k3img boot"))
            expect(on_terminal(*argv, cwd=project, expected="get nodes"), f"{line}: no kubectl line")
        else:
            do("bash", "-euo", "pipefail", "-c", script, cwd=project, env=outside(ctx))


def quick_start(text: str) -> tuple[str, ...]:
    """The lines in the blocks of README's section "Quick start", without comments."""
    section = re.search(r"^## Quick start\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```\w*\n(.*?)^```", section[1] if section else "", flags=re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return tuple(line for line in lines if line)


def on_terminal(
    *argv: str, expected: str, ask: str = "", cwd: Path | None = None, minutes: float = 15
) -> bool:
    """Run `k3img boot` as a person does, at a terminal, until it says `expected`, then Ctrl-C.

    `ask` is typed every 15 seconds. Returns whether it said it.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd or ".")
        os.execvp(argv[0], argv)
    began = typed = time.monotonic()
    seen = b""
    while expected.encode() not in seen and time.monotonic() - began < minutes * 60:
        block = _read(terminal, 1)
        if block is None:  # the program has ended
            break
        seen = (seen + block)[-65536:]
        if ask and time.monotonic() - typed > 15:
            typed = time.monotonic()
            os.write(terminal, b"\r" + ask.encode() + b"\r")
    os.write(terminal, b"\x03")
    deadline = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        expect(time.monotonic() < deadline, f"Ctrl-C did not end {argv[0]} within a minute")
        if _read(terminal, 0.5) is None:
            time.sleep(0.2)
    return expected.encode() in seen


def _read(terminal: int, seconds: float) -> bytes | None:
    """What a terminal's program says within some seconds, shown too; None when it has ended."""
    if terminal not in select.select([terminal], [], [], seconds)[0]:
        return b""
    try:
        block = os.read(terminal, 65536)
    except OSError:
        return None
    os.write(sys.stdout.fileno(), block)
    return block


PARTS = (
    Part("actionlint", 1, "workflows are right", actionlint, needs_image=False),
    Part("runtime-go-tests", 15, "the stand-in's own tests", runtime_go_tests, needs_image=False),
    Part("build-failures", 15, "builds that must fail, and how", build_failures, needs_image=False),
    Part("html", 1, "the report in a browser", html, needs_image=False),
    Part("hardware", 15, "every disk controller and network card", hardware),
    Part("link-down", 15, "first boot without a link", link_down),
    Part("raw-image", 6, "the raw image alone: written, booted, read elsewhere", raw_image.run),
    Part("sealed", 8, "k3img inspect: a good image, and copies that are broken", sealed.run),
    Part("flash", 12, "a medium written by k3img flash, and again by bmaptool", media.flash),
    Part("two-media", 15, "two media in one machine, flashed and as plain copies", media.two_media),
    Part("seeded", 20, "a server that k3img flash seeded, and flashed again", seeded.run),
    Part("bad-media", 3, "media that must not be written, and that fail", media.bad_media),
    Part("exports", 15, "every format of k3img export", media.exports),
    Part("levels", 8, "both levels of compression", levels),
    Part("x86-cloud", 18, "the cloud profile", x86_cloud),
    Part("x86-debug", 10, "the debug profile's root console", x86_debug),
    Part("etcd", 18, "etcd in the place of sqlite", etcd),
    Part("datastores", 3, "MariaDB, etcd and NATS under the stand-in's server", datastores.run),
    Part("lab", 12, "k3img lab: kubectl from outside, Ctrl-C, a crash", labs.run),
    Part("ssh", 12, "keys get in by ssh, passwords and other keys do not", ssh),
    *(Part(f"lab-{name}", 15, one.purpose, partial(scenario, name=name)) for name, one in CLUSTERS.items()),
    Part("arm64", 60, "an image for ARM machines with UEFI", arm64),
    Part("rpi4", 40, "the Raspberry Pi 4's image and its boot chain", rpi4),
    Part("locked", 12, "k3img lock, then build --locked", locked),
    Part("user-build", 20, "an ordinary user sets up, builds, and has a lab", user_build),
    Part("test-k3s-file", 15, "ci/test --k3s FILE", k3s_file),
    Part("readme", 45, "what README tells people to type", readme),
    Part("workflow", 50, "the workflow's run: lines in a fresh clone", run_workflow),
    Part("second-run", 65, "ci/test with an empty cache, and again", second_run, needs_image=False),
)


def main(name: str, context: str) -> int:
    """Run one part in this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    part = next(part for part in PARTS if part.name == name)
    try:
        part.run(Context.from_json(context))
    except PartError as error:
        say(f"FAILED {name}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
