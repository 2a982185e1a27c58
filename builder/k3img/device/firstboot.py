"""k3img-firstboot: at every boot, before the network, make this node what its seed says.

Everything is written by temporary file and rename, in an order that can be repeated after a power cut at
any point, and is durable before anything that relies on it starts. Nothing that was decided once (name,
datastore, CA) is decided a second time.
"""

from __future__ import annotations

import zlib
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from k3img.device import (
    clock,
    clusterreset,
    discover,
    disk,
    fatpeek,
    files,
    identity,
    image,
    k3sconfig,
    mdns,
    network,
    outcome,
    reset,
    seed,
)
from k3img.device.bootstrap import mark_bootstrapped
from k3img.device.decide import Decision, Facts, decide
from k3img.device.discover import Search
from k3img.device.outcome import Go, Outcome
from k3img.device.seed import Seed
from k3img.device.seedpart import SeedUnreadableError, look_for, opened
from k3img.errors import ProfileError
from k3img.node import names
from k3img.node.medium import BOOTSTRAP_DONE, KUBECONFIG, NODE_FILE, README, STATUS
from k3img.node.model import DatastoreKind, Role

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.device.disk import Medium
    from k3img.device.image import ImageInfo
    from k3img.device.place import Place
    from k3img.device.seed import Own
    from k3img.device.system import System
    from k3img.node.model import NodeConfig

STANDALONE = "standalone"
"""In `/var/lib/k3img`: the name of a node that became a cluster of its own."""

GONE_LABELS = "gone-labels"
"""In `/var/lib/k3img`: keys of labels that node.yaml had once and has no more."""

NOTHING_TO_READ = frozenset(
    name.lower() for name in (README, STATUS, KUBECONFIG, "System Volume Information")
)
"""Names on a seed partition that ask for nothing: with these alone it counts as empty."""

MAX_PROFILE = 40


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the seed may be: the mounted partition's folder if there is one, or why it cannot be read."""

    folder: Path | None = None
    unreadable: str = ""


def run(place: Place, system: System, *, credentials: str | None = None) -> Outcome:
    """Make the node what it should be, and leave word for the other services."""
    info = image.load(place)
    clock.raise_to_floor(place, system, info.built)
    medium = disk.find(place)
    with ExitStack() as stack:
        source = _open(place, system, medium, stack)
        was_reset = source.folder is not None and reset.finish(place, source.folder)
        notes = ["the factory reset is done"] if was_reset else []
        if source.folder is not None and not was_reset and reset.asked(source.folder):
            refused = _reset(place, source.folder, medium)
            if refused is None:
                return _finish(place, Outcome(go=Go.REBOOT, what="a restart, to begin the factory reset"))
            notes.append(f"the factory reset was not begun: {refused}")
        resets, told = clusterreset.ask(place, source.folder) if source.folder is not None else (False, ())
        notes += told
        own = partial(identity.find, place, system)
        found = seed.from_credential(credentials, own=own) or _partition_seed(source, medium, own)
        facts = replace(_facts(place, info, medium, source, found), resets=resets)
        decision = decide(facts)
        result = _apply(place, system, info, facts, decision)
        if source.folder is not None and result.bootstrap and facts.datastore:
            mark_bootstrapped(place, source.folder)
    result = replace(
        result,
        notes=(*notes, *result.notes),
        source=found.source if facts.seed.node is not None else "",
        seed_device=str(medium.seed or ""),
    )
    return _finish(place, result)


def _open(place: Place, system: System, medium: Medium, stack: ExitStack) -> Source:
    if medium.seed is None:
        why = "was not found" if medium.disk is None else f"is not on {medium.disk}"
        return Source(unreadable=f"the seed partition K3IMG {why}")
    names = None if (place.state / NODE_FILE).exists() else fatpeek.root_names(medium.seed)
    if names is not None and names <= NOTHING_TO_READ:
        empty = place.run / "nothing"
        empty.mkdir(parents=True, exist_ok=True)
        return Source(folder=empty)
    try:
        return Source(folder=stack.enter_context(opened(place, system, medium.seed, check=True)))
    except SeedUnreadableError as error:
        return Source(unreadable=f"the seed partition cannot be read: {error}")


def _partition_seed(source: Source, medium: Medium, own: Own) -> Seed:
    if source.folder is None:
        return Seed()
    return seed.from_folder(source.folder, str(medium.seed), own=own)


def _reset(place: Place, folder: Path, medium: Medium) -> str | None:
    try:
        return reset.begin(place, folder, medium)
    except OSError as error:
        return str(error)


def _facts(place: Place, info: ImageInfo, medium: Medium, source: Source, found: Seed) -> Facts:
    return Facts(
        seed=found,
        last=files.read(place.state / NODE_FILE),
        kept=seed.kept_secrets(place),
        datastore=place.has_datastore(),
        joined=place.has_joined(),
        standalone=(place.state / STANDALONE).exists(),
        bootstrapped=(place.state / BOOTSTRAP_DONE).exists()
        or (source.folder is not None and look_for(source.folder, BOOTSTRAP_DONE) is not None),
        readable=source.folder is not None,
        unreadable=source.unreadable,
        mark=medium.seeded,
        twins=tuple(map(str, medium.twins)),
        unseeded=info.unseeded,
    )


def _apply(place: Place, system: System, info: ImageInfo, facts: Facts, decision: Decision) -> Outcome:
    """Write all that the decision says; nothing of it starts anything."""
    config = decision.config
    if decision.accepted:
        seed.keep_secrets(place, facts.seed)
    secrets = seed.kept_secrets(place)
    if config is not None:
        clock.raise_to_floor(place, system, config.issued)
    name, hostname = _names(place, info, decision, secrets)
    cluster = config.cluster if config else info.cluster
    changed = False
    if decision.go is Go.RUN and config is None:
        changed |= files.write(place.state / STANDALONE, f"{name}\n", durable=False)
    changed |= _write_hostname(place, system, hostname)
    changed |= network.apply(place.network, config.node.network if config else None)
    changed |= _write_resolv(place)
    known = _ca_hash(config, secrets)
    role = config.node.role if config else Role.SERVER
    mdns.publish(place, node=name, role=role, digits=known[: names.DIGITS])
    if decision.go is Go.RUN or config is not None:
        changed |= _write_k3s(
            place, info, config, name, hostname, cluster, secrets,
            joins=decision.go is Go.JOIN, initial=not facts.datastore,
        )  # fmt: skip
    if config is not None and decision.go is Go.JOIN:
        discover.save(place, _search(config, secrets))
    if config is not None:
        changed |= _keep_config(place, config, facts.last)
    changed |= files.write(place.state / reset.USED, "", durable=False)
    place.state.chmod(0o700)
    if changed:
        system.sync()
    result = Outcome(
        go=decision.go,
        node=name,
        hostname=hostname,
        role=str(role),
        cluster=cluster,
        standalone=config is None,
        what=decision.what,
        todo=decision.todo,
        problems=decision.problems,
        notes=decision.notes,
        bootstrap=bool(config and config.bootstrap),
        address=config.node.network.address if config else "",
        gateway=(config.node.network.gateway or "") if config else "",
        gateway_line=_line(facts.seed, "gateway"),
    )
    if decision.go is Go.RUN:
        outcome.let_run(place, result.role)
    return result


def _line(found: Seed, key: str) -> str:
    """Where a key of the seed's node.yaml stands: `node.yaml:7`."""
    rows = (found.node or b"").splitlines()
    number = next((n for n, row in enumerate(rows, 1) if row.startswith(f"{key}:".encode())), 0)
    return f"{found.file}:{number}" if number else ""


def _names(place: Place, info: ImageInfo, decision: Decision, secrets: dict[str, bytes]) -> tuple[str, str]:
    """The node's name and the OS' host name."""
    if decision.config is None:
        kept = files.read_text(place.state / STANDALONE)
        name = kept or standalone_name(info.profile, files.read(place.root / "etc/machine-id") or b"")
        return name, name
    node = decision.config.node.name
    return node, names.host_name(node, _ca_hash(decision.config, secrets))


def _ca_hash(config: NodeConfig | None, secrets: dict[str, bytes]) -> str:
    """The hash of the cluster's CA: as node.yaml names it, else of the file among the secrets."""
    return (config.ca_hash if config else None) or seed.ca_hash(secrets) or ""


def _search(config: NodeConfig, secrets: dict[str, bytes]) -> Search:
    """What a node that joins looks for: the cluster's other servers."""
    known = _ca_hash(config, secrets)
    others = [name for name in config.servers if name != config.node.name]
    return Search(
        name=names.server_name(config.cluster),
        node=config.node.name,
        role=str(config.node.role),
        ca_hash=known,
        endpoint=config.endpoint or "",
        servers=tuple(f"{names.host_name(name, known)}.local" for name in others),
        etcd=config.node.role is Role.SERVER and config.datastore is DatastoreKind.ETCD,
    )


def standalone_name(profile: str, machine_id: bytes) -> str:
    """A name for a node that was given none: its image's, and six digits that differ from box to box."""
    base = "".join(c if c.isascii() and c.isalnum() else "-" for c in profile.lower())[:MAX_PROFILE]
    # Not a piece of the machine id itself, which is nobody's business (machine-id(5)).
    return f"{base.strip('-') or 'k3img'}-{zlib.crc32(b'k3img ' + machine_id.strip()) & 0xFFFFFF:06x}"


def _write_hostname(place: Place, system: System, hostname: str) -> bool:
    system.set_hostname(hostname)
    return files.write(place.root / "etc/hostname", f"{hostname}\n", durable=False)


def _write_resolv(place: Place) -> bool:
    path = place.root / "etc/resolv.conf"
    return not path.is_symlink() and files.link(path, "../run/systemd/resolve/stub-resolv.conf")


def _write_k3s(
    place: Place,
    info: ImageInfo,
    config: NodeConfig | None,
    name: str,
    hostname: str,
    cluster: str,
    secrets: dict[str, bytes],
    *,
    joins: bool,
    initial: bool,
) -> bool:
    role = config.node.role if config else Role.SERVER
    rendered = k3sconfig.render(
        config,
        name=name,
        hostname=hostname,
        cluster=cluster,
        alone_on_etcd=info.datastore == DatastoreKind.ETCD,
        joins=joins,
        image=files.read(place.share / f"k3s/{role}.yaml"),
        image_registries=files.read(place.share / "k3s/registries.yaml"),
        secrets=secrets,
    )
    changed = False
    for path, file in rendered.items():
        if file is None:
            changed |= files.remove(place.rancher / path)
        else:
            changed |= files.write(place.rancher / path, file.content, mode=file.mode, durable=False)
    # Once there is a datastore, k3s compares these with its own copy: newer files would stop it for good.
    if config is not None and role is Role.SERVER and initial:
        (place.k3s / "server").mkdir(parents=True, exist_ok=True)
        (place.k3s / "server").chmod(0o700)
        for path, file in k3sconfig.ca_files(secrets).items():
            target = place.k3s / "server/tls" / path
            changed |= files.write(target, file.content, mode=file.mode, durable=False)
    first = role is Role.SERVER and (config is None or config.node.initializer)
    changed |= _link_content(place, manifests=first)
    if info.ssh:
        keys = "".join(f"{key}\n" for key in (config.ssh_keys if config else ()))
        target = place.state / "ssh/authorized_keys"
        changed |= files.write(target, keys, mode=0o600, durable=False)
    return changed


def _link_content(place: Place, *, manifests: bool) -> bool:
    """Manifests and images that the image brings are used where they lie: links, no copies."""
    link, ours = place.k3s / "server/manifests/k3img", place.share / "manifests"
    if manifests and ours.is_dir():
        changed = files.link(link, "/usr/share/k3img/manifests")
    else:
        changed = files.remove(link)
    folder, brought = place.k3s / "agent/images", place.share / "images"
    names = sorted(path.name for path in brought.iterdir()) if brought.is_dir() else []
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_symlink() and path.name not in names:
                changed |= files.remove(path)
    for name in names:
        changed |= files.link(folder / name, f"/usr/share/k3img/images/{name}")
    if names and not (folder / ".cache.json").exists():
        # Its presence makes k3s import an archive once, not at every start.
        changed |= files.write(folder / ".cache.json", "", durable=False)
    return changed


def _keep_config(place: Place, config: NodeConfig, last: bytes | None) -> bool:
    """Remember what was applied, and labels that it has no more: k3s adds labels, but takes none away."""
    from k3img.node.load import dump, load  # noqa: PLC0415 - PyYAML is slow under emulation

    had = set((files.read_text(place.state / GONE_LABELS) or "").split())
    with suppress(ProfileError):
        had |= set(load(last, NODE_FILE).node.labels) if last is not None else set()
    gone = had - set(config.node.labels)
    if gone or (place.state / GONE_LABELS).exists():
        files.write(place.state / GONE_LABELS, "\n".join(sorted(gone)))
    return files.write(place.state / NODE_FILE, dump(config))


def _finish(place: Place, result: Outcome) -> Outcome:
    outcome.save(place, result)
    return result
