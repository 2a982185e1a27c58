"""First boot on a scratch root: a disk with a real GPT, a FAT that is a folder, and power cuts everywhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k3img.device import discover, fatpeek, firstboot, gpt, mdns, seed
from k3img.device.main import main
from k3img.device.outcome import Go, Outcome, load
from k3img.device.place import Place
from k3img.device.system import Ended, System
from k3img.node.load import dump
from k3img.node.medium import SEEDED_BIT
from k3img.node.model import DatastoreKind, Network, Node, NodeConfig, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ESP, SEED, ROOT = (f"0000000{n}-1111-2222-3333-444444444444" for n in (1, 2, 7))
TYPES = {
    ESP: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
    SEED: "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
    ROOT: gpt.TYPE_ROOTS[0],
}
CA = b"-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n"
SECRETS = {
    "token": b"K10abc::server:secret",
    "agent-token": b"K10abc::node:other",
    "node-password": b"0123456789abcdef",
    **{
        f"tls/{n}.{k}": f"{n} {k}".encode()
        for n in ("client-ca", "request-header-ca")
        for k in ("crt", "key")
    },
    "tls/server-ca.crt": CA,
    "tls/server-ca.key": b"key",
}
AGENT = NodeConfig(
    node=Node(name="pi-2", role=Role.AGENT), cluster="shop-42", ca_hash="ab" * 32, servers=("pi-1",)
)

SEEDED = NodeConfig(
    node=Node(name="pi-1", initializer=True, labels={"zone": "a"}),
    cluster="shop-42",
    bootstrap=True,
    issued=1_790_000_000,
)


class PowerCutError(BaseException):
    """Nothing on the node can catch this one."""


def guid(text: str) -> bytes:
    a, b, c, d, e = text.split("-")
    return struct.pack("<IHH", int(a, 16), int(b, 16), int(c, 16)) + bytes.fromhex(d + e)


def make_disk(path: Path, *, mark: bool = False, esp: str = ESP) -> None:
    """A disk of 1 MiB with a GPT of three partitions, numbers 1, 2 and 7."""
    total = 2048
    entries = bytearray(128 * 128)
    for number, own, name, bits in (
        (1, esp, "esp", 0),
        (2, SEED, "K3IMG", SEEDED_BIT if mark else 0),
        (7, ROOT, "root", 0),
    ):
        kind = TYPES.get(own, TYPES[ESP])
        raw = guid(kind) + guid(own) + struct.pack("<QQQ", number * 100, number * 100 + 99, bits)
        entries[(number - 1) * 128 : number * 128] = raw + name.encode("utf-16-le").ljust(72, b"\0")
    data = bytearray(total * 512)
    for own_lba, other, where in ((1, total - 1, 2), (total - 1, 1, total - 33)):
        places = (own_lba, other, 34, total - 34, bytes(16), where)
        fields = (b"EFI PART", 0x10000, 92, 0, 0, *places, 128, 128, zlib.crc32(bytes(entries)))
        header = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
        struct.pack_into("<I", header, 16, zlib.crc32(bytes(header)))
        data[own_lba * 512 : own_lba * 512 + len(header)] = header
        data[where * 512 : where * 512 + len(entries)] = entries
    path.write_bytes(data)


@dataclass
class FakeNode(System):
    """A machine below a scratch folder. `fat` is the seed partition's content."""

    place: Place
    fat: Path
    clock: float = 1_800_000_000.0
    mountable: bool = True
    calls: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    hostname: str = ""

    def run(self, argv: Sequence[str], *, timeout: float = 90, path: str | None = None) -> Ended:
        self.calls.append(" ".join(argv))
        if argv[0] == "mount":
            if not self.mountable:
                return Ended(status=32, output=f"mount: {argv[-1]}: wrong fs type\n  dmesg(1) has more\n")
            point = Path(argv[-1])
            point.rmdir()
            point.symlink_to(self.fat)
        elif argv[0] == "umount" and Path(argv[-1]).is_symlink():
            Path(argv[-1]).unlink()
            Path(argv[-1]).mkdir()
        return Ended(status=0)

    def now(self) -> float:
        return self.clock

    def since_boot(self) -> float:
        return 10.0

    def set_clock(self, seconds: float) -> None:
        self.clock = seconds

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def sync(self) -> None:
        os.fsync(-1)  # counted by the power cuts

    def set_hostname(self, name: str) -> None:
        self.hostname = name

    def ipv4(self, interface: str) -> str | None:
        return None

    def log(self, text: str) -> None:
        self.logged.append(text)

    def boot(self, **change: str) -> Outcome:
        """Power on: /run is empty, then first boot runs."""
        run = self.place.run
        if run.exists():
            for path in sorted(run.rglob("*"), reverse=True):
                path.unlink() if path.is_symlink() or path.is_file() else path.rmdir()
        self.hostname = ""
        return firstboot.run(self.place, self, credentials=change.get("credentials", ""))

    def seed(self, config: NodeConfig | None = SEEDED, secrets: dict[str, bytes] | None = None) -> None:
        if config is not None:
            (self.fat / "node.yaml").write_text(dump(config))
        for name, body in (SECRETS if secrets is None else secrets).items():
            path = self.fat / "secrets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)

    def make_datastore(self) -> None:
        for name in ("server/db/state.db", "agent/client-kubelet.crt"):
            (self.place.k3s / name).parent.mkdir(parents=True, exist_ok=True)
            (self.place.k3s / name).write_text("x")

    def etc(self, path: str) -> str:
        return (self.place.root / "etc" / path).read_text()

    def options(self, name: str = "20-node.yaml") -> dict[str, object]:
        text = self.etc(f"rancher/k3s/config.yaml.d/{name}")
        return {
            json.loads(key): json.loads(value)
            for line in text.splitlines()
            if not line.startswith("#")
            for key, value in [line.split(": ", 1)]
        }


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    # Thousands of real ones would take a minute; the power cuts count the calls.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    root = tmp_path / "root"
    for folder in (
        "dev",
        "etc",
        "run",
        "var/lib",
        "usr/lib/k3img",
        "usr/share/k3img/k3s",
        "sys/firmware/efi/efivars",
    ):
        (root / folder).mkdir(parents=True)
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    image = {
        "profile": "x86",
        "version": "1",
        "built": 1_700_000_000,
        "cluster": "x86",
        "unseeded": "standalone",
    }
    (root / "usr/lib/k3img/image.json").write_text(json.dumps(image))
    (root / "usr/share/k3img/k3s/server.yaml").write_text("disable: [traefik]\n")
    (root / "usr/share/k3img/k3s/agent.yaml").write_text("debug: true\n")
    add_disk(root, "vda")
    device = root.stat().st_dev
    link = root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../block/vda/vda7")
    variable = root / "sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    variable.write_bytes(b"\x06\0\0\0" + f"{ESP.upper()}\0".encode("utf-16-le"))
    (tmp_path / "fat").mkdir()
    (tmp_path / "fat/README.txt").write_text("hello")
    return FakeNode(place=Place(root=root), fat=tmp_path / "fat")


def add_disk(root: Path, name: str, *, mark: bool = False, esp: str = ESP) -> None:
    make_disk(root / "dev" / name, mark=mark, esp=esp)
    for number in (1, 2, 7):
        folder = root / f"sys/block/{name}/{name}{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "partition").write_text(f"{number}\n")
        (root / f"dev/{name}{number}").write_bytes(b"")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): (str(p.readlink()).encode() if p.is_symlink() else p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


# ---- unseeded ----


def test_an_empty_medium_becomes_a_cluster_of_its_own(node: FakeNode) -> None:
    result = node.boot()
    assert (result.go, result.standalone, result.role) == (Go.RUN, True, "server")
    assert result.node.startswith("x86-")
    assert node.hostname == result.node == node.etc("hostname").strip()
    assert (node.place.run / "run-server").exists()
    assert node.options()["node-name"] == result.node
    assert "k3s.x86.internal" in node.options()["tls-san+"]  # type: ignore[operator]
    assert node.etc("rancher/k3s/config.yaml.d/10-image.yaml") == "disable: [traefik]\n"
    assert not (node.place.rancher / "k3s/token").exists()
    assert not list((node.place.root / "etc/systemd").rglob("*.network"))
    assert result.seed_device.endswith("/dev/vda2")
    assert load(node.place) == result
    assert any(call.startswith("fsck.vfat -a") for call in node.calls)
    assert node.calls[-1].startswith("umount")


def test_its_name_outlives_a_machine_id_that_was_not_committed(node: FakeNode) -> None:
    first = node.boot()
    (node.place.root / "etc/machine-id").write_text("f" * 32)
    assert node.boot().node == first.node


@pytest.mark.parametrize("profile", ["x86", "X_86!", "-", "a" * 90, "ü"])
def test_standalone_names_are_labels(profile: str) -> None:
    from k3img.node.check import dns_label

    name = firstboot.standalone_name(profile, b"x")
    assert dns_label(name) is None
    assert firstboot.standalone_name(profile, b"y") != name


def test_a_second_boot_changes_nothing(node: FakeNode) -> None:
    node.boot()
    before = tree(node.place.root)
    node.boot()
    assert tree(node.place.root) == before


def test_an_image_may_ask_for_a_seed(node: FakeNode) -> None:
    raw = json.loads(node.place.image.read_text())
    node.place.image.write_text(json.dumps({**raw, "unseeded": "wait"}))
    result = node.boot()
    assert result.go is Go.WAIT
    assert "k3img seed" in result.todo
    assert not list(node.place.run.glob("run-*"))


def test_a_medium_that_was_seeded_once_never_becomes_standalone(node: FakeNode) -> None:
    make_disk(node.place.root / "dev/vda", mark=True)
    assert node.boot().go is Go.STOP
    assert not list(node.place.run.glob("run-*"))


def test_an_unreadable_partition_is_not_an_empty_one(node: FakeNode) -> None:
    node.mountable = False
    result = node.boot()
    assert result.go is Go.STOP
    assert result.what.endswith(" cannot be mounted: wrong fs type")
    node.mountable = True
    assert node.boot().standalone
    node.mountable = False
    assert node.boot().go is Go.RUN, "a node that ran once keeps running"


def test_secrets_without_a_node_file_are_no_empty_medium(node: FakeNode) -> None:
    node.seed(None)
    assert node.boot().go is Go.STOP
    assert (node.fat / "secrets/token").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"profile": 3, "built": "x", "unseeded": null}', "\0"])
def test_a_broken_image_json_stops_nothing(node: FakeNode, content: str) -> None:
    node.place.image.write_text(content)
    assert node.boot().go is Go.RUN


# ---- the disk that booted ----


def test_two_copies_of_one_medium_stop_before_k3s_and_are_named(node: FakeNode) -> None:
    add_disk(node.place.root, "sdb")
    result = node.boot()
    assert result.go is Go.STOP
    assert "/dev/sdb" in result.what
    assert "/dev/vda" in result.what
    assert not list(node.place.run.glob("run-*"))


def test_a_copy_plugged_in_later_stops_nothing(node: FakeNode) -> None:
    node.boot()
    add_disk(node.place.root, "sdb")
    result = node.boot()
    assert result.go is Go.RUN
    assert any("same image" in note for note in result.notes)
    assert result.seed_device.endswith("/dev/vda2")


def test_another_flashed_disk_with_the_same_label_is_ignored(node: FakeNode) -> None:
    add_disk(node.place.root, "sda", mark=True, esp="0000000a-1111-2222-3333-444444444444")
    result = node.boot()
    assert result.go is Go.RUN
    assert result.seed_device.endswith("/dev/vda2")


def test_without_the_loaders_variable_the_disk_of_root_is_it(node: FakeNode) -> None:
    for path in (node.place.sys / "firmware/efi/efivars").iterdir():
        path.unlink()
    assert node.boot().seed_device.endswith("/dev/vda2")


def test_a_disk_without_any_table_is_said(node: FakeNode) -> None:
    (node.place.root / "dev/vda").write_bytes(bytes(1 << 20))
    result = node.boot()
    assert result.go is Go.STOP
    assert "not found" in result.what


def test_the_copy_at_the_end_serves_when_the_first_table_is_torn(node: FakeNode) -> None:
    with (node.place.root / "dev/vda").open("r+b") as disk:
        disk.seek(512)
        disk.write(bytes(512))
    assert node.boot().seed_device.endswith("/dev/vda2")


# ---- reading the names without mounting ----


def make_fat(names: Sequence[str], *, flags: int = 0, marks: int = 0xFFFF) -> bytes:
    """The first sectors of a FAT16 with these names in its root folder, each with a long entry."""
    boot = bytearray(512)
    boot[0:3], boot[3:11] = b"\xeb\x3c\x90", b"mkfs.fat"
    struct.pack_into("<HBHBHHBH", boot, 11, 512, 4, 4, 2, 64, 32768, 0xF8, 32)
    boot[37], boot[54:62], boot[510:512] = flags, b"FAT16   ", b"\x55\xaa"
    table = bytearray(b"\xf8\xff" + struct.pack("<H", marks)).ljust(32 * 512, b"\0")
    root = bytearray(b"K3IMG      \x08".ljust(32, b"\0"))
    root += b"\xe5LD     TXT\x20".ljust(32, b"\0")
    for name in names:
        padded = (name + "\0").ljust(-(-(len(name) + 1) // 13) * 13, "\uffff")
        pieces = [padded[at : at + 13].encode("utf-16-le") for at in range(0, len(padded), 13)]
        for number, piece in reversed(list(enumerate(pieces, 1))):
            root += bytes([number]) + piece[:10] + b"\x0f\0\0" + piece[10:22] + b"\0\0" + piece[22:26]
        root += b"SHORT   TXT\x20".ljust(32, b"\0")
    return bytes(boot).ljust(4 * 512, b"\0") + bytes(table) * 2 + bytes(root).ljust(64 * 32, b"\0")


def test_an_empty_partition_is_not_even_mounted(node: FakeNode) -> None:
    device = node.place.root / "dev/vda2"
    device.write_bytes(make_fat(["README.txt", "System Volume Information", "status.txt"]))
    assert node.boot().standalone
    assert node.calls == []


@pytest.mark.parametrize(
    "fat",
    [
        make_fat(["README.txt", "node.yaml"]),
        make_fat(["factory-reset"]),
        make_fat(["README.txt"], flags=1),
        make_fat(["README.txt"], marks=0x7FFF),
        make_fat(["README.txt"])[:700],
        bytes(4096),
        b"",
    ],
)
def test_anything_else_is_checked_and_mounted(node: FakeNode, fat: bytes) -> None:
    (node.place.root / "dev/vda2").write_bytes(fat)
    node.boot()
    assert [call.split()[0] for call in node.calls] == ["fsck.vfat", "mount", "umount"]


def test_a_seeded_node_always_reads_its_partition(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.calls.clear()
    (node.place.root / "dev/vda2").write_bytes(make_fat([]))
    node.boot()
    assert node.calls


def test_names_of_a_fat(tmp_path: Path) -> None:
    path = tmp_path / "fat"
    for names in ((), ("a",), ("Node.yaml.TXT",), ("x" * 13, "y" * 26, "z" * 27)):
        path.write_bytes(make_fat(names))
        assert fatpeek.root_names(path) == frozenset(name.lower() for name in names)
    assert fatpeek.root_names(tmp_path / "nothing") is None


# ---- seeded ----


def test_a_seeded_server(node: FakeNode) -> None:
    node.seed()
    result = node.boot()
    assert (result.go, result.node, result.cluster, result.standalone) == (Go.RUN, "pi-1", "shop-42", False)
    assert node.hostname == f"pi-1-{seed.ca_hash(SECRETS)[:6]}"  # type: ignore[index]
    options = node.options()
    assert options["token-file"] == "/etc/rancher/k3s/token"
    assert options["node-label+"] == ["zone=a"]
    assert "k3s.shop-42.internal" in options["tls-san+"]  # type: ignore[operator]
    assert node.etc("rancher/k3s/token") == "K10abc::server:secret\n"
    assert node.etc("rancher/node/password") == "0123456789abcdef\n"
    assert (node.place.k3s / "server/tls/server-ca.crt").read_bytes() == CA
    for path in ("rancher/k3s/token", "rancher/k3s/agent-token", "rancher/node/password"):
        assert (node.place.root / "etc" / path).stat().st_mode & 0o777 == 0o600
    assert (node.place.k3s / "server/tls/server-ca.key").stat().st_mode & 0o777 == 0o600
    assert not (node.fat / "secrets").exists(), "secrets leave the medium"
    assert (node.fat / "node.yaml").exists()
    assert node.boot().go is Go.RUN


def test_secrets_are_overwritten_before_they_are_deleted(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.seed()
    last_content: dict[str, bytes] = {}
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        if "secrets" in path.parts and path.is_file():
            last_content[path.name] = path.read_bytes()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    node.boot()
    assert len(last_content) == len(SECRETS)
    assert all(set(body) <= {0} for body in last_content.values())


@pytest.mark.parametrize("name", ["node.yaml.txt", "NODE.YAML", "node.yml", "Node.Yaml.TXT"])
def test_file_names_of_windows_editors(node: FakeNode, name: str) -> None:
    node.seed()
    text = (node.fat / "node.yaml").read_text()
    (node.fat / "node.yaml").unlink()
    (node.fat / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert node.boot().node == "pi-1"


def test_a_bad_first_file_stops_with_every_problem_and_a_corrected_one_is_taken(node: FakeNode) -> None:
    node.seed()
    (node.fat / "node.yaml").write_text("nam: pi-1\naddress: 10.0.0.0/8\ncluster: shop\n")
    result = node.boot()
    assert result.go is Go.STOP
    assert len(result.problems) == 3
    assert all(problem.startswith("node.yaml") for problem in result.problems)
    assert (node.fat / "secrets/token").exists(), "nothing was accepted"
    node.seed()
    assert node.boot().go is Go.RUN


def test_a_bad_later_file_is_reported_and_the_last_good_one_used(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    for bad in (b"", b"\xff\xfe\0\0", b"name: [", b"name: other\n"):
        (node.fat / "node.yaml").write_bytes(bad)
        result = node.boot()
        assert (result.go, result.node) == (Go.RUN, "pi-1")
        assert result.problems
        assert any("last good" in note for note in result.notes)


def test_a_missing_file_or_partition_leaves_the_last_good_one(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    (node.fat / "node.yaml").unlink()
    assert node.boot().node == "pi-1"
    node.mountable = False
    result = node.boot()
    assert (result.go, result.node) == (Go.RUN, "pi-1")
    assert any("cannot be read" in note for note in result.notes)


def test_what_cannot_change_any_more_is_refused_with_the_reason(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    other = replace(
        SEEDED,
        node=Node(name="pi-9", role=Role.AGENT, labels={"zone": "b"}, taints=("a=b:NoSchedule",)),
        cluster="other",
        datastore=DatastoreKind.ETCD,
        bootstrap=False,
    )
    node.seed(other, {})
    result = node.boot()
    assert (result.go, result.node, result.cluster, result.role) == (Go.RUN, "pi-1", "shop-42", "server")
    for word in (
        "cluster stays",
        "name stays",
        "role stays",
        "datastore stays",
        "taints stays",
        "kubectl taint",
    ):
        assert any(word in note for note in result.notes), (word, result.notes)
    assert node.options()["node-label+"] == ["zone=b"], "what may change is applied"
    assert node.boot().notes == result.notes, "and said at every boot"


def test_before_anything_ran_everything_may_change(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.seed(replace(SEEDED, node=replace(SEEDED.node, name="pi-2"), cluster="other"), {})
    result = node.boot()
    assert (result.node, result.cluster, result.notes) == ("pi-2", "other", ())


def test_a_fixed_gateway_is_handed_on_with_its_line(node: FakeNode) -> None:
    net = Network(address="10.0.0.2/24", gateway="10.0.0.1")
    node.seed(replace(SEEDED, node=replace(SEEDED.node, network=net)))
    result = node.boot()
    row = (node.fat / "node.yaml").read_text().splitlines()[int(result.gateway_line.partition(":")[2]) - 1]
    assert (result.address, result.gateway, row) == ("10.0.0.2/24", "10.0.0.1", 'gateway: "10.0.0.1"')


def test_an_etcd_members_address_stays(node: FakeNode) -> None:
    net = Network(address="10.0.0.2/24", gateway="10.0.0.1")
    config = replace(SEEDED, node=replace(SEEDED.node, network=net), datastore=DatastoreKind.ETCD)
    etcd = {f"tls/etcd/{n}-ca.{k}": b"x" for n in ("peer", "server") for k in ("crt", "key")}
    node.seed(config, {**SECRETS, **etcd})
    assert node.boot().go is Go.RUN
    assert node.options()["cluster-init"] is True
    (node.place.k3s / "server/db/etcd/member/wal").mkdir(parents=True)
    moved = replace(config, node=replace(config.node, network=Network(address="10.0.0.9/24")))
    node.seed(moved, {})
    result = node.boot()
    assert any("address stays 10.0.0.2/24" in note for note in result.notes)
    assert node.options()["node-ip"] == "10.0.0.2"
    # A reset makes etcd forget who knows it by the old one.
    (node.fat / "cluster-reset").write_text("")
    assert node.boot().notes == ()
    assert node.options()["node-ip"] == "10.0.0.9"
    assert (node.place.state / "cluster-reset").read_text() == "asked"


def test_ca_files_of_a_node_with_a_datastore_are_never_touched(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    path = node.place.k3s / "server/tls/server-ca.crt"
    path.write_text("rotated by k3s")
    node.seed(SEEDED)
    node.boot()
    assert path.read_text() == "rotated by k3s"


@pytest.mark.parametrize("lost", ["token", "tls/server-ca.key", "tls/client-ca.crt"])
def test_a_node_without_its_secrets_waits_and_makes_none(node: FakeNode, lost: str) -> None:
    node.seed(SEEDED, {name: body for name, body in SECRETS.items() if name != lost})
    result = node.boot()
    assert result.go is Go.WAIT
    assert lost in result.what
    assert "k3img seed --node pi-1" in result.todo
    assert not list(node.place.run.glob("run-*"))
    node.seed(SEEDED, {lost: SECRETS[lost]})
    assert node.boot().go is Go.RUN, "what was missing is added to what is there"


def test_secrets_of_another_cluster_are_noticed(node: FakeNode) -> None:
    node.seed(replace(SEEDED, ca_hash="0" * 64))
    result = node.boot()
    assert result.go is Go.WAIT
    assert "another cluster" in result.what


def test_the_right_to_make_a_datastore_is_given_once(node: FakeNode) -> None:
    node.seed(replace(SEEDED, bootstrap=False))
    result = node.boot()
    assert result.go is Go.WAIT
    assert "--new-datastore" in result.todo
    node.seed(SEEDED, {})
    (node.fat / "bootstrap.done").write_text("")
    result = node.boot()
    assert result.go is Go.WAIT
    assert "bootstrap.done" in result.what
    (node.fat / "bootstrap.done").unlink()
    assert node.boot().go is Go.RUN
    node.make_datastore()
    node.boot()
    assert (node.fat / "bootstrap.done").exists()


def test_an_agent_joins_once_a_server_is_found(node: FakeNode) -> None:
    node.seed(AGENT, {"token": b"K10::node:secret\n", "node-password": b"pw\n"})
    result = node.boot()
    assert (result.go, result.role) == (Go.JOIN, "agent")
    assert "a server of cluster shop-42" in result.what
    assert not list(node.place.run.glob("run-*")), "k3s starts when k3img-discover has found a server"
    assert node.options()["server"] == "https://k3s.shop-42.internal:6443"
    search = discover.load(node.place)
    assert search is not None
    assert search.servers == (f"pi-1-{'ab' * 3}.local",), "of the other servers, by their mDNS names"
    assert (search.name, search.ca_hash, search.etcd) == ("k3s.shop-42.internal", "ab" * 32, False)
    published = (node.place.root / mdns.SERVICE).read_text()
    assert "_k3img._tcp" in published
    assert "cluster=ababab" in published
    assert "secret" not in published
    assert node.etc("rancher/k3s/config.yaml.d/10-image.yaml") == "debug: true\n", "never a server's options"
    assert not (node.place.k3s / "server/tls").exists(), "CA files are for servers"
    assert "tls-san+" not in node.options()


@pytest.mark.parametrize(("config", "secrets", "what"), [
    (NodeConfig(node=Node(name="pi-2", role=Role.AGENT), cluster="shop-42"), {"token": b"x"}, "ca-hash"),
    (None, {"node-password": b"pw"}, "token is missing"),
])  # fmt: skip
def test_an_agent_without_what_joining_takes_waits(
    node: FakeNode, config: NodeConfig | None, secrets: dict[str, bytes], what: str
) -> None:
    node.seed(config or AGENT, secrets)
    result = node.boot()
    assert result.go is Go.WAIT
    assert what in result.what
    assert discover.load(node.place) is None


def test_an_agent_that_has_joined_needs_no_token(node: FakeNode) -> None:
    node.seed(AGENT, {"token": b"K10::node:secret\n"})
    node.boot()
    (node.place.k3s / "agent").mkdir(parents=True)
    (node.place.k3s / "agent/client-kubelet.crt").write_text("x")
    (node.place.seed / "token").unlink()
    node.seed(AGENT, {})
    assert node.boot().go is Go.JOIN


def test_only_the_first_seed_of_an_initializer_makes_a_datastore(node: FakeNode) -> None:
    etcd = {f"tls/etcd/{n}-ca.{k}": b"x" for n in ("peer", "server") for k in ("crt", "key")}
    config = replace(SEEDED, datastore=DatastoreKind.ETCD, servers=("pi-1", "pi-3"), bootstrap=False)
    node.seed(config, {**SECRETS, **etcd})
    assert node.boot().go is Go.JOIN
    assert "cluster-init" not in node.options()
    search = discover.load(node.place)
    assert search is not None
    assert search.etcd
    assert [name[:4] for name in search.servers] == ["pi-3"], "it does not look for itself"
    node.seed(replace(config, bootstrap=True), {})
    assert node.boot().go is Go.RUN
    assert node.options()["cluster-init"] is True
    assert "server" not in node.options()


def test_a_standalone_node_is_not_seeded_over(node: FakeNode) -> None:
    first = node.boot()
    node.seed()
    result = node.boot()
    assert (result.standalone, result.node, result.go) == (True, first.node, Go.RUN)
    assert any("factory-reset" in note for note in result.notes)
    assert (node.fat / "secrets/token").exists()


def test_registries_and_options_reach_k3s(node: FakeNode) -> None:
    options = {"kubelet-arg": ["max-pods=50"], "debug": True}
    config = replace(SEEDED, node=replace(SEEDED.node, options=options), registries={"mirrors": {"*": None}})
    node.seed(config)
    node.boot()
    assert node.options()["kubelet-arg+"] == ["max-pods=50"], "added to the image's, not in their place"
    assert node.options()["debug"] is True
    assert json.loads(node.etc("rancher/k3s/registries.yaml")) == {"mirrors": {"*": None}}
    node.seed(SEEDED, {})
    node.boot()
    assert not (node.place.rancher / "k3s/registries.yaml").exists()


def test_a_removed_label_is_remembered(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.seed(replace(SEEDED, node=replace(SEEDED.node, labels={})), {})
    node.boot()
    assert (node.place.state / "gone-labels").read_text() == "zone"
    node.seed(SEEDED, {})
    node.boot()
    assert (node.place.state / "gone-labels").read_text() == ""


def test_networks(node: FakeNode) -> None:
    net = Network(
        address="10.0.0.2/24", gateway="10.0.0.1", dns=("10.0.0.1",), mac="dc:a6:32:00:00:02", vlan=7
    )
    node.seed(replace(SEEDED, node=replace(SEEDED.node, network=net)))
    node.boot()
    folder = node.place.network
    assert "MACAddress=dc:a6:32:00:00:02" in (folder / "60-k3img-node.network").read_text()
    assert "Address=10.0.0.2/24" in (folder / "60-k3img-vlan.network").read_text()
    assert "Unmanaged=yes" in (folder / "60-k3img-others.network").read_text()
    assert folder.stat().st_mode & 0o005 == 0o005, "networkd is not root"
    (folder / "50-mine.network").write_text("[Match]\n")
    node.seed(SEEDED, {})
    node.boot()
    assert [path.name for path in folder.iterdir()] == ["50-mine.network"]


def test_content_of_the_image_is_linked(node: FakeNode) -> None:
    for name in ("manifests/a.yaml", "images/b.tar.zst"):
        (node.place.share / name).parent.mkdir(exist_ok=True)
        (node.place.share / name).write_text("x")
    node.boot()
    assert (node.place.k3s / "server/manifests/k3img").is_symlink()
    assert (node.place.k3s / "agent/images/b.tar.zst").is_symlink()
    (node.place.share / "images/b.tar.zst").rename(node.place.share / "images/c.tar.zst")
    node.boot()
    links = [path.name for path in (node.place.k3s / "agent/images").iterdir() if path.is_symlink()]
    assert links == ["c.tar.zst"]


# ---- the credential ----


def credential(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "k3img.seed").write_bytes(data)
    return str(tmp_path)


def archive(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_credential_beats_the_partition(node: FakeNode, tmp_path: Path, mode: str) -> None:
    node.seed(replace(SEEDED, node=replace(SEEDED.node, name="other")), {})
    files = {"./node.yaml": dump(SEEDED).encode()} | {f"secrets/{n}": b for n, b in SECRETS.items()}
    result = node.boot(credentials=credential(tmp_path, archive(files, mode)))
    assert (result.go, result.node) == (Go.RUN, "pi-1")
    assert "credential" in result.source


def test_a_credential_may_be_a_node_yaml_alone(node: FakeNode, tmp_path: Path) -> None:
    result = node.boot(credentials=credential(tmp_path, dump(SEEDED).encode()))
    assert (result.go, result.node) == (Go.WAIT, "pi-1")
    assert "secrets/token" in result.what


@pytest.mark.parametrize("cut", [600, 1000])
def test_a_broken_archive_stops_a_first_boot(node: FakeNode, tmp_path: Path, cut: int) -> None:
    data = archive({"node.yaml": dump(SEEDED).encode()})[:cut]
    assert node.boot(credentials=credential(tmp_path, data)).go is Go.STOP


def test_names_that_leave_the_folder_are_ignored(node: FakeNode, tmp_path: Path) -> None:
    files = {"node.yaml": dump(SEEDED).encode(), "secrets/../../../x": b"evil", "/etc/evil": b"evil"}
    node.boot(credentials=credential(tmp_path, archive(files)))
    assert not list(tmp_path.rglob("evil"))
    assert not list(tmp_path.rglob("x"))


# ---- factory reset ----


@pytest.mark.parametrize("name", ["factory-reset", "factory-reset.txt", "FACTORY-RESET"])
def test_a_factory_reset(node: FakeNode, name: str) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    (node.fat / name).write_text("")
    result = node.boot()
    assert result.go is Go.REBOOT
    assert not list(node.place.run.glob("run-*"))
    assert tree(node.fat / "secrets") == SECRETS
    table = gpt.read(node.place.root / "dev/vda")
    assert table is not None
    assert [p.number for p in table.partitions] == [1, 2]
    assert (node.fat / name).exists(), "not done before the new root says so"
    wipe_root(node)
    result = node.boot()
    assert (node.fat / "factory-reset.done").exists()
    assert not (node.fat / name).exists()
    assert "the factory reset is done" in result.notes
    assert result.node == "pi-1"


def wipe_root(node: FakeNode) -> None:
    """What systemd-repart does in the initrd: a new root, and its entry."""
    shutil.rmtree(node.place.root / "var/lib")
    (node.place.root / "var/lib").mkdir()
    shutil.rmtree(node.place.rancher, ignore_errors=True)
    make_disk(node.place.root / "dev/vda")


def test_a_reset_initializer_comes_back_join_only(node: FakeNode) -> None:
    node.seed()
    node.boot()
    node.make_datastore()
    node.boot()
    (node.fat / "factory-reset").write_text("")
    node.boot()
    wipe_root(node)
    assert node.boot().go is Go.WAIT


def test_a_reset_that_cannot_drop_the_root_is_refused_and_said(node: FakeNode) -> None:
    node.boot()
    (node.fat / "factory-reset").write_text("")
    add_disk(node.place.root, "sdb")
    result = node.boot()
    assert result.go is Go.RUN
    assert any("factory reset was not begun" in note for note in result.notes)


def test_what_fsck_found_without_a_name_is_wiped(node: FakeNode) -> None:
    """It may be a token that a factory reset gave back when the power went."""
    node.seed()
    lost = node.fat / "FSCK0000.REC"
    lost.write_bytes(SECRETS["token"])
    alias = lost.with_name("hard link")
    alias.hardlink_to(lost)
    (node.fat / "FSCK.REC").write_text("a person's")
    node.boot()
    assert not lost.exists()
    assert not alias.read_bytes().strip(b"\0")
    assert (node.fat / "FSCK.REC").read_text() == "a person's"


def test_a_cluster_reset_without_etcd_is_said(node: FakeNode) -> None:
    (node.fat / "cluster-reset").write_text("")
    assert any("holds no etcd data" in note for note in node.boot().notes)
    assert not (node.place.state / "cluster-reset").exists()


# ---- power cuts ----


class Cutter:
    """Cuts the power at the n-th durable step: before it, so that it has not happened.

    What was written but not flushed by then comes back empty, as ext4 may leave it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        self.flushed: set[str] = set()
        self.loose: set[Path] = set()
        steps = ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (os, "pwrite"))
        for owner, name in steps:
            monkeypatch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if self.left == 0:
                raise PowerCutError
            self.left -= 1
            if name == "fsync" and args[0] == -1:
                self.loose.clear()
            elif name == "fsync":
                self.flushed.add(str(Path(f"/proc/self/fd/{args[0]}").readlink()))
            elif name == "replace" and isinstance(args[1], Path) and str(args[0]) not in self.flushed:
                self.loose.add(args[1])
            return real(*args, **kwargs)

        return call

    def happened(self, node: FakeNode) -> None:
        """The power is off: no mount is left, and what was not flushed is gone."""
        self.left = -1
        point = node.place.run / "seed"
        if point.is_symlink():
            point.unlink()
            point.mkdir()
        for path in self.loose:
            if path.is_file() and not path.is_symlink():
                path.write_bytes(b"")
        self.loose.clear()
        self.flushed.clear()


def boots_with_cuts(
    node: FakeNode, cutter: Cutter, prepare: Callable[[], None], reset: Callable[[], None]
) -> int:
    """Boot with a cut at every other step, boot once more, and compare with a boot without cuts."""
    reset()
    prepare()
    node.boot()
    wanted = (tree(node.place.root / "etc"), tree(node.place.root / "var"), tree(node.fat))
    step = 0
    while True:
        reset()
        prepare()
        cutter.left = step
        try:
            node.boot()
        except PowerCutError:
            cutter.happened(node)
        else:
            cutter.left = -1
            loose = [path for path in cutter.loose if not path.is_relative_to(node.place.run)]
            assert not loose, "all is durable before anything relies on it"
            return step
        node.boot()
        assert (tree(node.place.root / "etc"), tree(node.place.root / "var"), tree(node.fat)) == wanted, step
        step += 2


def clean(node: FakeNode) -> None:
    for folder in (node.place.root / "etc", node.place.root / "var", node.place.root / "run", node.fat):
        shutil.rmtree(folder)
        folder.mkdir()
    (node.place.root / "var/lib").mkdir()
    (node.place.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")


def test_a_power_cut_at_any_step_of_a_first_boot(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cutter = Cutter(monkeypatch)
    assert boots_with_cuts(node, cutter, lambda: None, lambda: clean(node)) > 10


def test_a_power_cut_at_any_step_of_a_seeded_first_boot(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = Cutter(monkeypatch)
    assert boots_with_cuts(node, cutter, node.seed, lambda: clean(node)) > 60


def test_a_power_cut_at_any_step_of_a_factory_reset(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    cutter = Cutter(monkeypatch)
    for step in range(0, 1000, 3):
        clean(node)
        make_disk(node.place.root / "dev/vda")
        node.seed()
        node.boot()
        node.make_datastore()
        (node.fat / "factory-reset").write_text("")
        cutter.left = step
        with suppress(PowerCutError):
            node.boot()
        done = cutter.left > 0
        cutter.happened(node)
        table = gpt.read(node.place.root / "dev/vda")
        assert table is not None, "one of the two tables is always whole"
        if any(p.number == 7 for p in table.partitions):
            result = node.boot()
            assert result.go is Go.REBOOT
        assert tree(node.fat / "secrets") == SECRETS
        wipe_root(node)
        assert node.boot().node == "pi-1"
        assert (node.fat / "factory-reset.done").exists()
        assert seed.kept_secrets(node.place) == SECRETS
        if done:
            assert step > 30
            return


# ---- a bug of ours ----


def test_a_failure_of_ours_is_told_without_a_traceback(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(firstboot, "decide", broken)
    assert main(["firstboot"], place=node.place, system=node) == 1
    result = load(node.place)
    assert result is not None
    assert result.go is Go.STOP
    assert "ZeroDivisionError: oh" in result.what
    assert not any("Traceback" in line for line in node.logged)


def test_after_a_failure_of_ours_a_node_that_ran_goes_on(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.boot()
    node.make_datastore()
    monkeypatch.setattr(firstboot, "_facts", lambda *_: 1 // 0)
    for path in node.place.run.iterdir():
        path.unlink() if path.is_file() else path.rmdir()
    assert main(["firstboot"], place=node.place, system=node) == 1
    result = load(node.place)
    assert result is not None
    assert result.go is Go.RUN
    assert (node.place.run / "run-server").exists()


# ---- the clock ----


def test_the_clock_is_never_before_the_build_the_seed_or_the_last_time(node: FakeNode) -> None:
    node.clock = 100.0
    node.boot()
    assert node.clock == 1_700_000_000
    assert (node.place.run / "clock-unsure").exists()
    (node.place.state / "clock").write_text("1750000000\n")
    node.clock = 100.0
    node.boot()
    assert node.clock == 1_750_000_000
    for bad in ("", "x", "-5", "99999999999999", "\0"):
        (node.place.state / "clock").write_text(bad)
        node.clock = 100.0
        node.boot()
        assert node.clock == 1_700_000_000


def test_the_date_of_the_seed_counts(node: FakeNode) -> None:
    node.seed()
    node.clock = 100.0
    node.boot()
    assert node.clock == SEEDED.issued


def test_a_good_battery_clock_needs_no_waiting(node: FakeNode) -> None:
    (node.place.sys / "class/rtc/rtc0").mkdir(parents=True)
    (node.place.sys / "class/rtc/rtc0/since_epoch").write_text("1800000000\n")
    node.boot()
    assert not (node.place.run / "clock-unsure").exists()
    assert node.clock == 1_800_000_000


# ---- a seed that agents share ----

MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")


def share(node: FakeNode, *macs: str) -> None:
    """The files of `cluster.seed.shared` on the partition."""
    for number, mac in enumerate(macs, 1):
        key = mac.replace(":", "-")
        own = node.fat / "agents" / key / "node.yaml"
        own.parent.mkdir(parents=True)
        own.write_text(dump(replace(AGENT, node=replace(AGENT.node, name=f"pi-{number}"))))
        password = node.fat / "secrets/agents" / key / "node-password"
        password.parent.mkdir(parents=True)
        password.write_text(f"password of {number}")
    (node.fat / "secrets/token").write_text("K10abc::node:other")


def plug(node: FakeNode, mac: str, name: str = "eth0") -> None:
    card = node.place.sys / "class/net" / name
    (card / "device").mkdir(parents=True)
    (card / "type").write_text("1\n")
    (card / "address").write_text(f"{mac}\n")


def test_an_agent_takes_its_own_of_a_shared_seed(node: FakeNode) -> None:
    share(node, *MACS)
    plug(node, MACS[1].upper())
    result = node.boot()
    assert (result.go, result.node, result.problems) == (Go.JOIN, "pi-2", ())
    kept = seed.kept_secrets(node.place)
    assert kept == {"token": b"K10abc::node:other", "node-password": b"password of 2"}
    assert not (node.fat / "secrets").exists(), "nor may it keep what belongs to others"
    again = node.boot()
    assert (again.node, again.problems, again.notes) == ("pi-2", (), ())


def test_a_serial_number_tells_as_well(node: FakeNode) -> None:
    share(node, "10000000abcdef01")
    path = node.place.sys / "firmware/devicetree/base/serial-number"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"10000000ABCDEF01\0")
    assert node.boot().node == "pi-1"


def test_a_card_whose_driver_comes_late_is_waited_for(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(node, *MACS)
    plug(node, "52:54:00:00:00:99")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            plug(node, MACS[0], "eth1")

    monkeypatch.setattr(node, "sleep", sleep)
    assert node.boot().node == "pi-1"
    assert len(slept) == 3


def test_a_stranger_stops_and_says_what_it_is(node: FakeNode) -> None:
    share(node, *MACS)
    plug(node, "52:54:00:00:00:99")
    result = node.boot()
    assert result.go is Go.STOP
    assert "agents/ has no node for this machine, which is 52-54-00-00-00-99" in result.problems[0]
    assert (node.fat / "secrets/token").exists()


def test_a_node_of_its_own_wins(node: FakeNode) -> None:
    share(node, *MACS)
    plug(node, MACS[0])
    node.seed(replace(AGENT, node=replace(AGENT.node, name="own")), {"token": b"K10abc::node:own"})
    assert node.boot().node == "own"


def test_a_power_cut_while_a_shared_seed_is_taken(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    share(node, *MACS)
    plug(node, MACS[1])
    real, count = os.fsync, iter(range(100))

    def cut(handle: int) -> None:
        if next(count) == 8:
            raise PowerCutError
        real(handle)

    monkeypatch.setattr(os, "fsync", cut)
    with suppress(PowerCutError):
        node.boot()
    monkeypatch.setattr(os, "fsync", real)
    assert node.boot().node == "pi-2"
    assert seed.kept_secrets(node.place)["node-password"] == b"password of 2"


def test_a_shared_seed_as_a_credential(node: FakeNode, tmp_path: Path) -> None:
    share(node, *MACS)
    plug(node, MACS[0])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(node.fat, arcname=".", recursive=False)
        for path in sorted(node.fat.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(node.fat)), recursive=False)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/k3img.seed").write_bytes(packed.getvalue())
    result = firstboot.run(node.place, node, credentials=str(tmp_path / "credentials"))
    assert (result.go, result.node) == (Go.JOIN, "pi-1")
    assert set(seed.kept_secrets(node.place)) == {"token", "node-password"}
