"""How a plan becomes an image: the contents page of the build."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import zstandard

from k3img import log, proc
from k3img.build import firmware, manifest, mkosi, packages, selfrun, workspace
from k3img.build.model import Image, Request, Supplies
from k3img.build.prune import prune, used
from k3img.errors import BuildError
from k3img.image import blockmap
from k3img.plan.inputs import file_digest
from k3img.plan.model import BootFirmware, FetchRuntime, MakeDisk, Plan, Publish, UnpackRuntime
from k3img.profile.model import Compression, Format
from k3img.runtime import release
from k3img.runtime.unpack import Runtime, unpack
from k3img.tools import binfmt
from k3img.tools import toolbox as tools
from k3img.tools.publish import new_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from k3img.build.workspace import Workspace
    from k3img.runtime.lock import Lock
    from k3img.runtime.release import Artifact
    from k3img.tools.debrepo import Deb
    from k3img.tools.toolbox import Toolbox
    from k3img.tree import Tree

ZSTD = {
    Compression.FAST: zstandard.ZstdCompressionParameters.from_level(2, threads=-1, write_checksum=True),
    Compression.SMALL: zstandard.ZstdCompressionParameters.from_level(
        12, window_log=25, enable_ldm=True, threads=-1, write_checksum=True
    ),
}
"""Of the published file. /usr is packed already: level 12 takes 0.1 % off a small image, 8 % off a fast one;
19 saves 0.2 % more, in 20 times the time. Looking for long matches saves 0.04 % and costs 6 s of 8."""


@dataclass
class Phases:
    """Seconds of each phase, in order; they go into the manifest."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, title: str) -> Iterator[log.Step]:
        """Show and time one phase."""
        with log.step(title) as this:
            yield this
        self.seconds[title] = round(this.seconds, 1)


def build(plan: Plan, request: Request, *, tree: Tree, lock: Lock | None = None) -> Image:
    """Carry out a plan and publish its results in `request.out`, or find that they are there already.

    Raises `MissingToolError`, `BuildError`; then nothing of an older image has been touched.
    """
    if (done := finished(plan, request, tree)) is not None:
        return done
    phases = Phases()
    with workspace.opened(tree, plan.name) as work:
        try:
            supplies = find_packages(plan, request, tree, work, lock, phases)
            toolbox = prepare_tools(plan, request, tree, supplies, phases)
            artifact = fetch_runtime(plan, request, tree, lock, phases)
            runtime = unpack_runtime(artifact, plan, tree, work, toolbox, phases)
            boot = get_boot_firmware(plan, request, tree, work, lock, phases)
            initrd = build_initrd(plan, request, tree, work, toolbox, supplies, phases)
            workspace.write_image_project(work, plan, tree, supplies.image.sources, boot)
            taken = build_image(request, tree, work, toolbox, supplies, initrd, runtime, phases)
            raw = sparse_image(plan, work)
            found = facts(work, initrd, toolbox, runtime, boot, taken) | {"locked": request.locked}
            described = manifest.describe(plan, raw, artifact, facts=found)
            image = publish(plan, request, work, raw, described, phases)
            prune(tree.cache)
            return image
        except OSError as error:
            raise BuildError(
                f"cannot write {error.filename or work.root}: {error.strerror}",
                hint="Free some space or mend the permissions; K3IMG_CACHE names another cache.",
            ) from error


def finished(plan: Plan, request: Request, tree: Tree) -> Image | None:
    """The image in `request.out` if it is what this plan would give, else None."""
    image = manifest.load(request.out)
    if image is None or request.refresh or image.manifest["plan_digest"] != plan.digest:
        return None
    if request.locked and not image.manifest.get("locked"):
        return None
    if request.k3s is not None or request.k3s_mirror is not None:
        wanted = release.resolve(
            plan.one(FetchRuntime).version,
            plan.arch,
            file=request.k3s,
            mirror=request.k3s_mirror,
            cache=tree.cache,
        )
        if wanted.sha256 != image.manifest["runtime"]["sha256"]:
            return None
    return image


def find_packages(
    plan: Plan, request: Request, tree: Tree, work: Workspace, lock: Lock | None, phases: Phases
) -> Supplies:
    """Where Debian's packages come from: the mirror, or what the lock says, all of it fetched."""
    if not request.locked:
        return packages.newest(plan, tree)
    if lock is None:
        raise BuildError("--locked, but there is no lock", hint="`k3img lock` writes it.")
    with phases.phase("Getting the locked packages") as this:
        return packages.locked(plan, lock, tree, work, this.note)


def prepare_tools(plan: Plan, request: Request, tree: Tree, supplies: Supplies, phases: Phases) -> Toolbox:
    """mkosi and the tools tree, fetched when they are not in the cache."""
    with phases.phase("Looking for tools"):
        target = plan.arch.debian
        box = tools.prepare(tree, target=target, recipe=supplies.tools, renew=request.renew_tools)
        binfmt.require(target)
        return box


def fetch_runtime(plan: Plan, request: Request, tree: Tree, lock: Lock | None, phases: Phases) -> Artifact:
    """The k3s file, proven by its sha256."""
    wanted = plan.one(FetchRuntime)
    with phases.phase(f"Getting k3s {wanted.version}"):
        artifact = release.resolve(
            wanted.version,
            wanted.arch,
            file=request.k3s,
            mirror=request.k3s_mirror,
            lock=lock.k3s if lock else None,
            cache=tree.cache,
            locked=request.locked,
        )
    if artifact.first_seen and not artifact.standin:
        log.line(f"k3s {artifact.version} is not in a lock file yet; `k3img lock` pins it for good")
    return artifact


def unpack_runtime(
    artifact: Artifact, plan: Plan, tree: Tree, work: Workspace, toolbox: Toolbox, phases: Phases
) -> Path:
    """The unpacked runtime's folder in the cache, named by the file's sha256."""
    folder = tree.cache / "runtime-unpacked" / artifact.sha256[:16]
    if not folder.exists():
        with (
            phases.phase(f"Unpacking k3s for {plan.one(UnpackRuntime).into}"),
            new_folder(folder, "this runtime") as made,
        ):
            if made is not None:
                run_self = selfrun.self_unpacker(toolbox.mkosi, artifact.arch, work.log)
                unpacked: Runtime = unpack(artifact, made / "k3s", run_self=run_self)
                (made / "version").write_text(unpacked.version, encoding="utf-8")
    used(folder)
    return folder / "k3s"


def get_boot_firmware(
    plan: Plan, request: Request, tree: Tree, work: Workspace, lock: Lock | None, phases: Phases
) -> tuple[Deb, ...]:
    """The packages that a board's boot firmware is in; none for a machine with UEFI."""
    debs: tuple[Deb, ...] = ()
    for step in plan.all(BootFirmware):
        with phases.phase("Getting the boot firmware") as this:
            debs += firmware.get(
                step,
                plan.arch,
                tree,
                lock=lock if request.locked else None,
                kept=request.package_dir,
                log=work.log,
                note=this.note,
            )
    return debs


def build_initrd(
    plan: Plan,
    request: Request,
    tree: Tree,
    work: Workspace,
    toolbox: Toolbox,
    supplies: Supplies,
    phases: Phases,
) -> Path:
    """The initrd's folder in the cache."""
    workspace.write_initrd_project(work, plan, tree, supplies.initrd.sources)
    with phases.phase("Building the initrd") as this:
        return mkosi.build_initrd(
            work, tree, toolbox, this, packages=supplies.initrd, refresh=request.refresh
        )


def build_image(
    request: Request,
    tree: Tree,
    work: Workspace,
    toolbox: Toolbox,
    supplies: Supplies,
    initrd: Path,
    runtime: Path,
    phases: Phases,
) -> str:
    """The raw disk and the UKI, in the workspace; returns when the packages were taken (UTC)."""
    with phases.phase("Building the image") as this:
        return mkosi.build_image(
            work,
            tree,
            toolbox,
            this,
            packages=supplies.image,
            initrd=initrd,
            runtime=runtime,
            refresh=request.refresh,
        )


def sparse_image(plan: Plan, work: Workspace) -> Path:
    """The raw image, with holes where it is zero."""
    raw = work.output / f"{plan.name}_{plan.version}.raw"
    proc.run(["fallocate", "--dig-holes", raw], log=work.log)
    return raw


def facts(
    work: Workspace, initrd: Path, toolbox: Toolbox, runtime: Path, boot: Sequence[Deb], taken: str
) -> dict[str, Any]:
    """What the manifest says of packages, kernel and sizes."""
    content = json.loads((work.output / "k3img-content.json").read_text(encoding="utf-8"))
    (image,) = work.output.glob("*.manifest")
    return {
        "packages_as_of": taken,
        "packages": {
            "image": mkosi.listed(image),
            "initrd": mkosi.listed(initrd / "initrd.manifest"),
            "tools": [
                {"name": name, "version": version} for name, version in sorted(toolbox.tree.packages.items())
            ],
            **({firmware.SECTION: [_deb(deb) for deb in boot]} if boot else {}),
        },
        "mkosi": toolbox.mkosi_version,
        "kernel": content["kernel"],
        "sizes": {
            "initrd": (initrd / "initrd.cpio.zst").stat().st_size,
            "runtime": sum(path.lstat().st_size for path in runtime.rglob("*") if path.is_file()),
            "usr": content["sizes"],
        },
    }


def _deb(deb: Deb) -> dict[str, str]:
    return {"name": deb.name, "version": deb.version, "architecture": deb.arch, "sha256": deb.sha256}


def publish(
    plan: Plan, request: Request, work: Workspace, raw: Path, described: dict[str, Any], phases: Phases
) -> Image:
    """Compress, hash, and move everything to `request.out` by rename."""
    files = {raw.name: raw, f"{raw.stem}.efi": work.output / f"{raw.stem}.efi"}
    hashes: dict[str, str] = {}
    if Format.RAW_ZST in plan.one(Publish).formats:
        with phases.phase(f"Compressing {raw.name}"):
            parameters = ZSTD[plan.one(MakeDisk).compression]
            files[f"{raw.name}.zst"], hashes[raw.name] = compress(raw, parameters)
    with phases.phase("Hashing"):
        files[f"{raw.name}.bmap"] = raw.with_name(f"{raw.name}.bmap")
        files[f"{raw.name}.bmap"].write_text(blockmap.as_text(blockmap.make(raw)), encoding="ascii")
        hashes |= {name: file_digest(path) for name, path in files.items() if name not in hashes}
    described |= {
        "image": {"raw": raw.name, "size": raw.stat().st_size, "sha256": hashes[raw.name]},
        "uki": f"{raw.stem}.efi",
        "files": {
            name: {"size": path.stat().st_size, "sha256": hashes[name]} for name, path in files.items()
        },
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": phases.seconds,
    }
    if Format.RAW not in plan.one(Publish).formats:
        log.line(f"the raw image stays beside the compressed one: {raw.name} is what boot and verify use")
    texts = {
        "manifest.json": json.dumps(described, indent=1) + "\n",
        "SHA256SUMS": manifest.sums(hashes),
        "build.log": work.log.read_text(encoding="utf-8", errors="replace"),
    }
    for name, text in texts.items():
        files[name] = work.output / name
        files[name].write_text(text, encoding="utf-8")
    workspace.publish(files, request.out)
    shutil.rmtree(work.output)
    return Image(folder=request.out, manifest=described, fresh=True)


def compress(raw: Path, parameters: zstandard.ZstdCompressionParameters) -> tuple[Path, str]:
    """NAME.raw.zst beside NAME.raw, with its size and a checksum in the frame; and the sha256 of NAME.raw."""
    digest = hashlib.sha256()
    packed = raw.with_name(f"{raw.name}.zst")
    size = raw.stat().st_size
    with (
        raw.open("rb") as source,
        packed.open("wb") as sink,
        log.progress(f"Compressing {raw.name}", size) as advance,
        zstandard.ZstdCompressor(compression_params=parameters).stream_writer(sink, size=size) as writer,
    ):
        while block := source.read(1 << 22):
            digest.update(block)
            writer.write(block)
            advance(len(block))
    return packed, digest.hexdigest()
