"""Good profiles: what is inherited, appended, overridden and filled in, and where each value came from."""

from __future__ import annotations

import json
import zoneinfo
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from k3img.errors import ProfileError
from k3img.node.model import DatastoreKind, Role
from k3img.profile import rules, show
from k3img.profile.kinds import MIB
from k3img.profile.load import Loaded, examine, load, names
from k3img.profile.model import Arch, Format, Match, Profile, Storage
from k3img.profile.schema import schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.tree import Tree

SHIPPED = names(Path(__file__).parents[2] / "profiles")
PARTS = {"base"}

MINIMAL = "# For tests\ntarget: {arch: x86-64}\nk3s: {version: v1.36.3+k3s1}\n"


@pytest.fixture
def write(tree: Tree) -> Callable[..., Loaded]:
    """`write(main=TEXT, other=TEXT)` makes profiles and loads the first; `overrides` are for --set."""

    def make(*, overrides: tuple[tuple[str, str], ...] = (), **texts: str) -> Loaded:
        for name, text in texts.items():
            (tree.profiles / f"{name}.yaml").write_text(text)
        return load(tree.profiles / f"{next(iter(texts))}.yaml", tree, overrides)

    return make


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in PARTS])
def test_shipped_profiles_load_as_before(
    name: str, project: Tree, golden: Callable[[str, str], None]
) -> None:
    loaded = load(project.profile(name), project)
    assert loaded.warnings == ()
    assert loaded.profile.name == name
    assert loaded.profile.purpose
    golden(f"{name}/profile.yaml", show.text(loaded))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_schema_takes_shipped_profiles(name: str, project: Tree) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(yaml.safe_load(project.profile(name).read_text()), schema())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profiles_have_no_problem(name: str, project: Tree) -> None:
    found = examine(project.profile(name), project)
    assert found.problems == ()
    assert found.part == (name in PARTS)


def test_what_show_prints_is_the_same_profile(write: Callable[..., Loaded]) -> None:
    first = write(main=FULL)
    again = write(main=show.text(first))
    assert again.profile == first.profile
    jsonschema.validate(yaml.safe_load(show.text(first)), schema())


FULL = """\
# With a value at every key
target: {arch: x86-64, board: uefi}
os:
  mirror: https://mirror.example.org/debian
  packages: [htop, firmware-realtek]
  firmware: [rtl_nic/]
  modules: [nvme, fs/xfs/]
  initrd-modules: [nvme]
  ntp: [time.example.org, 10.0.0.1]
  overlays: [base]
k3s:
  version: v1.36.3+standin1
  disable: [traefik]
  server: {tls-san: k3s.example.org, https-listen-port: 6443, etcd-s3-timeout: 5m30s}
  agent: {kubelet-arg: [max-pods=50, "a: b"], debug: true, pause-image: "1.30"}
  registries:
    mirrors: {"*": {}, docker.io: {endpoint: ["https://m.example.org"]}}
    configs: {m.example.org: {tls: {insecure_skip_verify: true}}}
  proxy: http://proxy.example.org:3128
  no-proxy: [.example.org, 192.168.7.0/24, 10.0.0.1]
cluster:
  name: shop-42
  datastore: {endpoint: {scheme: postgres, file: secrets/dsn}}
  endpoint: k3s.example.org
  unseeded: wait
  storage: slow
  match: mac
  nodes:
    a:
      initializer: true
      address: 192.168.7.2/24
      gateway: 192.168.7.1
      dns: [192.168.7.1]
      labels: {zone: "true", example.org/rack: "1"}
    b: {address: dhcp, serial: "00010", options: {snapshotter: native}}
    c: {role: agent, mac: "DC:A6:32:00:00:03", vlan: 7, taints: ["a=b:NoExecute"]}
image: {version: "1.30", slot: 512 MiB, verity: 6 MiB, formats: [raw]}
update: {url: https://u.example.org/x, channel: stable}
"""


def test_every_key_is_read(write: Callable[..., Loaded]) -> None:
    profile = write(main=FULL).profile
    assert profile.purpose == "With a value at every key"
    assert profile.os.initrd_modules == ("nvme",)
    assert profile.k3s.server == {
        "tls-san": "k3s.example.org",
        "https-listen-port": 6443,
        "etcd-s3-timeout": "5m30s",
    }
    assert profile.k3s.agent == {"kubelet-arg": ["max-pods=50", "a: b"], "debug": True, "pause-image": "1.30"}
    assert json.loads(json.dumps(dict(profile.k3s.registries)))["mirrors"] == {
        "*": {},
        "docker.io": {"endpoint": ["https://m.example.org"]},
    }
    assert profile.k3s.proxy == "http://proxy.example.org:3128"
    assert profile.k3s.no_proxy == (".example.org", "192.168.7.0/24", "10.0.0.1")
    cluster = profile.cluster
    assert (cluster.match, cluster.storage) == (Match.MAC, Storage.SLOW)
    assert cluster.datastore.kind is DatastoreKind.EXTERNAL
    assert cluster.datastore.endpoint == {"scheme": "postgres", "file": "secrets/dsn"}
    a, b, c = cluster.nodes
    assert (a.name, a.initializer, a.network.gateway) == ("a", True, "192.168.7.1")
    assert a.labels == {"zone": "true", "example.org/rack": "1"}
    assert (b.serial, b.network.address, b.options) == ("00010", "dhcp", {"snapshotter": "native"})
    assert (c.role, c.network.mac, c.network.vlan) == (Role.AGENT, "dc:a6:32:00:00:03", 7)
    assert profile.image.slot == 512 * MIB
    assert profile.image.formats == (Format.RAW,)


def test_defaults_are_filled_in(write: Callable[..., Loaded]) -> None:
    profile = write(main=MINIMAL).profile
    assert (profile.name, profile.cluster.name, profile.purpose) == ("main", "main", "For tests")
    assert profile.target.arch is Arch.X86_64
    assert profile.image.slot == 1024 * MIB
    assert not profile.debug


def test_an_only_server_makes_the_datastore(write: Callable[..., Loaded]) -> None:
    profile = write(main=MINIMAL + "cluster: {nodes: {a: {}, b: {role: agent}}}").profile
    assert [node.initializer for node in profile.cluster.nodes] == [True, False]


PARENT = """\
# A parent
name: parent
target: {arch: x86-64}
k3s: {version: v1.36.3+k3s1, server: {tls-san: [a], flannel-backend: host-gw}}
os:
  packages: [htop]
  modules: [nvme]
  timezone: Etc/GMT
"""

CHILD = """\
extends: parent
os:
  packages+: [tree]
  modules: [ahci]
k3s:
  server: {tls-san+: [b]}
"""


def test_mappings_merge_lists_replace_and_plus_appends(write: Callable[..., Loaded]) -> None:
    loaded = write(child=CHILD, parent=PARENT)
    profile = loaded.profile
    assert profile.os.packages == ("htop", "tree")
    assert profile.os.modules == ("ahci",)
    assert profile.os.timezone == "Etc/GMT"
    assert profile.k3s.server == {"tls-san": ["a", "b"], "flannel-backend": "host-gw"}
    assert (profile.name, profile.purpose, profile.extends) == ("child", "", ("parent",))


def test_each_value_knows_its_line(write: Callable[..., Loaded]) -> None:
    origins = write(child=CHILD, parent=PARENT, overrides=(("image.compression", "fast"),)).origins
    assert origins["os.packages[0]"] == "profiles/parent.yaml:6"
    assert origins["os.packages[1]"] == "profiles/child.yaml:3"
    assert origins["os.modules"] == "profiles/child.yaml:4"
    assert origins["os.timezone"] == "profiles/parent.yaml:8"
    assert origins["k3s.server.tls-san"] == "profiles/child.yaml:6"
    assert origins["image.compression"] == "--set"
    assert "image.slot" not in origins
    assert "name" not in origins


def test_later_parents_win_and_a_shared_parent_is_fine(write: Callable[..., Loaded]) -> None:
    texts = {
        "left": "extends: root\nos: {timezone: Etc/GMT, packages+: [left]}\n",
        "right": "extends: root\nos: {timezone: Etc/UTC}\n",
        "root": MINIMAL + "os: {packages: [root]}\n",
    }
    profile = write(main="extends: [left, right]\n", **texts).profile
    assert profile.os.timezone == "Etc/UTC"
    assert profile.os.packages == ("root",)
    assert profile.extends == ("left", "right")


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("image.version", "1.30", lambda p: p.image.version == "1.30"),
        ("os.timezone", "Etc/GMT", lambda p: p.os.timezone == "Etc/GMT"),
        ("os.packages", "[a1, b1]", lambda p: p.os.packages == ("a1", "b1")),
        ("os.packages+", "[a1]", lambda p: p.os.packages == ("htop", "a1")),
        ("os.microcode", "true", lambda p: p.os.microcode),
        ("os.mirror", "", lambda p: p.os.mirror is None),
        ("name", "other", lambda p: p.name == "other" and p.cluster.name == "other"),
        ("k3s.server.tls-san", "[x]", lambda p: p.k3s.server["tls-san"] == ["x"]),
        ("cluster.nodes.a.role", "server", lambda p: p.cluster.nodes[0].name == "a"),
    ],
)
def test_set_overrides(
    write: Callable[..., Loaded], key: str, value: str, read: Callable[[Profile], bool]
) -> None:
    assert read(write(parent=PARENT, overrides=((key, value),)).profile)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("os.packges", "[a1]", "--set: os.packges: unknown key. Perhaps you meant packages."),
        ("image.compression", "fst", "--set: image.compression: 'fst' is none of fast, small."),
        ("image.slot", "[", "--set image.slot: is no YAML: while parsing a flow node expected the node"),
        ("os..x", "1", "--set: os..x: is no key. Write --set key=value"),
        ("", "1", "is no key. Write --set key=value"),
        ("os", "text", "--set: os: is no mapping."),
        ("debug", "true", "name: must have debug in it"),
        ("os", "{a: 1, a: 2}", "--set os: the key a was already given on the same --set."),
    ],
)
def test_bad_overrides(write: Callable[..., Loaded], key: str, value: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        write(main=MINIMAL, overrides=((key, value),))
    assert message in caught.value.details


def test_a_part_cannot_be_built(project: Tree) -> None:
    with pytest.raises(ProfileError) as caught:
        load(project.profile("base"), project)
    assert [str(problem) for problem in caught.value.problems] == [
        "profiles/base.yaml:1: target: is missing. Files without it are only for extends; "
        "write target: {arch: x86-64} to build this one."
    ]


def test_warnings_do_not_stop(write: Callable[..., Loaded]) -> None:
    loaded = write(main="target: {}\nk3s: {version: v9.1.0+k3s1}\n")
    assert [str(problem) for problem in loaded.warnings] == [
        "profiles/main.yaml:2: warning: k3s.version: is a version whose options k3img does not know; "
        "they are checked as those of v1.36."
    ]


def test_a_machine_without_time_zones_checks_the_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    assert rules.timezone("Europe/Belrin") is None
    assert rules.timezone("../etc/passwd") is not None


def test_too_many_files(tree: Tree) -> None:
    for number in range(20):
        (tree.profiles / f"p{number}.yaml").write_text(f"extends: p{number + 1}\n")
    (tree.profiles / "p20.yaml").write_text(MINIMAL)
    with pytest.raises(ProfileError, match="1 problem") as caught:
        load(tree.profiles / "p0.yaml", tree)
    assert "a profile is made of 16 files at most" in caught.value.details


def test_a_file_outside_the_project_is_named_as_given(tree: Tree) -> None:
    file = tree.root.parent / "other.yaml"
    file.write_text(MINIMAL + "oss: {}\n")
    with pytest.raises(ProfileError, match=r"1 problem in the profile") as caught:
        load(file, tree)
    assert caught.value.details == f"{file}:4: oss: unknown key. Perhaps you meant os."


def test_many_nodes(write: Callable[..., Loaded]) -> None:
    nodes = "".join(
        f'    n{n}: {{role: agent, mac: "dc:a6:32:00:{n // 256:02x}:{n % 256:02x}", labels: {{a: b}}}}\n'
        for n in range(1000)
    )
    profile = write(main=MINIMAL + "cluster:\n  nodes:\n    s: {}\n" + nodes).profile
    assert len(profile.cluster.nodes) == 1001


@pytest.mark.parametrize(
    "value",
    ["proxy:3128", "http://user:password@proxy", "ftp://proxy", "http://", "http://proxy/path", "http://a b"],
)
def test_what_is_no_proxy(write: Callable[..., Loaded], value: str) -> None:
    text = MINIMAL.replace("version: v1.36.3+k3s1", f"version: v1.36.3+k3s1, proxy: {json.dumps(value)}")
    with pytest.raises(ProfileError) as caught:
        write(main=text)
    assert caught.value.problems[0].path == "k3s.proxy"


def test_what_no_proxy_is_asked_for(write: Callable[..., Loaded]) -> None:
    text = MINIMAL.replace("version: v1.36.3+k3s1", 'version: v1.36.3+k3s1, no-proxy: ["a b"]')
    with pytest.raises(ProfileError) as caught:
        write(main=text)
    assert "no name, address or network" in str(caught.value.problems[0])
