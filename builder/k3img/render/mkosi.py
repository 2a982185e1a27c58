"""Plan -> the texts of one mkosi project: configuration, partitions, what the sandboxed scripts read.

Only settings that mkosi 25.3 and later both know (what Debian 13 ships and what is newer).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from k3img.plan.model import (
    BootFirmware,
    BuildInitrd,
    FetchRuntime,
    InstallSystem,
    MakeDisk,
    MaskUnits,
    Plan,
    TrimKernel,
)
from k3img.profile.kinds import MIB
from k3img.profile.model import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How /usr is packed: erofs' algorithm and options, and the zstd level of the initrd's kernel modules.

    `level` is of the algorithm, None for one without. What was measured: docs/decisions/0009.
    """

    algorithm: str
    level: int | None
    erofs_options: str
    modules_level: int


PACKING = {
    Compression.FAST: Packing(
        algorithm="lz4", level=None, erofs_options="-C65536 -Eztailpacking", modules_level=3
    ),
    Compression.SMALL: Packing(
        algorithm="zstd", level=12, erofs_options="-C1048576 -Eztailpacking,fragments", modules_level=19
    ),
}

# 128-bit namespace for disk, partition and file system ids: the same plan name and version give the same ids.
NAMESPACE = uuid.UUID("6b33696d-6700-4000-8000-000000000001")

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("k3img.render"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,
)


def image_project(plan: Plan) -> Mapping[str, str]:
    """Files of the mkosi project that makes the image, by relative path."""
    system, disk = plan.one(InstallSystem), plan.one(MakeDisk)
    packing = PACKING[disk.compression]
    partitions = {
        f"mkosi.repart/{name}": text for name, text in _render_partitions("build", plan, packing).items()
    }
    first_boot = {
        f"mkosi.extra/usr/lib/repart.d/{name}": text
        for name, text in _render_partitions("device", plan, packing).items()
    }
    return {
        "mkosi.conf": _templates.get_template("image.conf.j2").render(
            plan=plan,
            system=system,
            disk=disk,
            initrd=plan.one(BuildInitrd),
            seed=uuid.uuid5(NAMESPACE, f"{plan.name} {plan.version}"),
            packing=packing,
            initrd_modules=[_module_pattern(name) for name in plan.one(BuildInitrd).modules],
        ),
        "prepare.json": prepare_input(plan),
        "finalize.json": finalize_input(plan),
        **partitions,
        **first_boot,
    }


def initrd_project(plan: Plan) -> Mapping[str, str]:
    """Files of the mkosi project that makes the initrd, by relative path."""
    initrd = plan.one(BuildInitrd)
    spec = {"remove": initrd.remove, "keep": {"programs": initrd.programs, "rules": initrd.rules}}
    return {
        "mkosi.conf": _templates.get_template("initrd.conf.j2").render(plan=plan, initrd=initrd),
        "prepare.json": json.dumps(spec, indent=1),
    }


def prepare_input(plan: Plan) -> str:
    """`prepare.json`: how build/scripts/prepare.py shrinks the image's tree.

    Apart from finalize's, and without version or date: the tree that mkosi caches depends on it.
    """
    kernel = plan.one(TrimKernel)
    spec = {
        "remove": plan.one(InstallSystem).remove,
        "device_trees": [name for step in plan.all(BootFirmware) for name in step.device_trees],
        "kernel": {
            "modules": kernel.modules,
            "required": kernel.required,
            "firmware": kernel.firmware,
            "configs": kernel.configs,
        },
    }
    return json.dumps(spec, indent=1)


def finalize_input(plan: Plan) -> str:
    """`finalize.json`: what build/scripts/finalize.py does to the finished tree."""
    runtime = plan.one(FetchRuntime).version
    kind = "the stand-in for tests, not k3s" if "+standin" in runtime else "k3s"
    spec = {
        "mask": plan.one(MaskUnits).units,
        "os-release": {
            "PRETTY_NAME": f"k3img {plan.name} {plan.version} ({kind} {runtime})",
            "K3IMG_PROFILE": plan.name,
            "K3IMG_RUNTIME": runtime,
        },
        "seed": {
            "size": plan.one(MakeDisk).seed,
            "readme": _templates.get_template("seed-readme.txt.j2").render(plan=plan),
        },
    }
    return json.dumps(spec, indent=1)


def script(name: str) -> str:
    """The text of a script that mkosi runs in its sandbox: `prepare`, `finalize`."""
    return (files("k3img.build") / "scripts" / f"{name}.py").read_text(encoding="utf-8")


def _render_partitions(where: str, plan: Plan, packing: Packing) -> Mapping[str, str]:
    """Partition definitions of `build` time (mkosi.repart) or of the `device` (/usr/lib/repart.d)."""
    disk = plan.one(MakeDisk)
    text = _templates.get_template(f"partitions-{where}.j2").render(
        esp=f"{disk.esp // MIB}M",
        seed=f"{disk.seed // MIB}M",
        slot=f"{disk.slot // MIB}M",
        verity=f"{disk.verity // MIB}M",
        packing=packing,
    )
    parts = [part for part in text.split("--- ") if part.strip()]
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in parts}


def _module_pattern(name: str) -> str:
    """Our module names as the regular expressions that mkosi matches paths with."""
    if "/" in name:
        return f"^{name.strip('/')}/"
    return "/" + name.replace("_", "-").replace("-", "[-_]") + "\\.ko"
