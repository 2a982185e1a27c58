"""Plan -> the texts of one mkosi project: configuration, partitions, what the sandboxed scripts read.

Only settings that mkosi 25.3 and later both know (what Debian 13 ships and what is newer).
"""

from __future__ import annotations

import json
import uuid
from importlib.resources import files
from typing import TYPE_CHECKING

import jinja2

from k3img.plan.model import BuildInitrd, FetchRuntime, InstallSystem, MakeDisk, MaskUnits, Plan, TrimKernel
from k3img.profile.kinds import MIB
from k3img.profile.model import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping

# mkfs.erofs and zstd levels: (level, mkfs options). Measured by ci/bench; see docs/decisions.
EROFS = {
    Compression.FAST: (3, "-C32768 -Eztailpacking"),
    Compression.SMALL: (12, "-C65536 -Eztailpacking"),
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
    level, options = EROFS[disk.compression]
    partitions = {
        f"mkosi.repart/{name}": text for name, text in _render_partitions("build", plan, level=level).items()
    }
    first_boot = {
        f"mkosi.extra/usr/lib/repart.d/{name}": text
        for name, text in _render_partitions("device", plan, level=level).items()
    }
    return {
        "mkosi.conf": _templates.get_template("image.conf.j2").render(
            plan=plan,
            system=system,
            disk=disk,
            initrd=plan.one(BuildInitrd),
            seed=uuid.uuid5(NAMESPACE, f"{plan.name} {plan.version}"),
            erofs_options=options,
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
    return {
        "mkosi.conf": _templates.get_template("initrd.conf.j2").render(plan=plan, initrd=initrd),
        "prepare.json": json.dumps({"remove": initrd.remove}, indent=1),
    }


def prepare_input(plan: Plan) -> str:
    """`prepare.json`: how build/scripts/prepare.py shrinks the image's tree.

    Apart from finalize's, and without version or date: the tree that mkosi caches depends on it.
    """
    kernel = plan.one(TrimKernel)
    spec = {
        "remove": plan.one(InstallSystem).remove,
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


def _render_partitions(where: str, plan: Plan, *, level: int) -> Mapping[str, str]:
    """Partition definitions of `build` time (mkosi.repart) or of the `device` (/usr/lib/repart.d)."""
    disk = plan.one(MakeDisk)
    text = _templates.get_template(f"partitions-{where}.j2").render(
        esp=f"{disk.esp // MIB}M",
        seed=f"{disk.seed // MIB}M",
        slot=f"{disk.slot // MIB}M",
        verity=f"{disk.verity // MIB}M",
        level=level,
    )
    parts = [part for part in text.split("--- ") if part.strip()]
    return {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in parts}


def _module_pattern(name: str) -> str:
    """Our module names as the regular expressions that mkosi matches paths with."""
    if "/" in name:
        return f"^{name.strip('/')}/"
    return "/" + name.replace("_", "-").replace("-", "[-_]") + "\\.ko"
