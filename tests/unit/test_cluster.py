"""A cluster's secrets: made once, kept shut, given to each node in the least measure."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
import ssl
import stat
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509

from k3img.cli import cluster as command
from k3img.cluster import ca, found, give, kubeconfig, model, seed, store
from k3img.cluster.store import Given
from k3img.errors import UsageError
from k3img.node.load import load as load_node
from k3img.node.model import Role
from k3img.profile.load import load
from k3img.runtime import lock as locks

if TYPE_CHECKING:
    from pathlib import Path

    from k3img.cluster.store import Kept
    from k3img.profile.model import Cluster, Profile
    from k3img.tree import Tree

NOW = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
HEAD = "target: {arch: x86-64}\nk3s: {version: v1.36.3+k3s1}\n"
LAB = "cluster:\n  nodes:\n    one: {labels: {place: mast}}\n    two: {role: agent}\n"
HA = (
    "cluster:\n  datastore: etcd\n  nodes:\n"
    "    a: {initializer: true, address: 10.0.0.1/24}\n    b: {address: 10.0.0.2/24}\n"
    "    c: {address: 10.0.0.3/24}\n    d: {role: agent}\n"
)
SECRETS = model.create("lab", model.lifetime(NOW))


def profile(tree: Tree, text: str, name: str = "lab") -> Profile:
    (tree.profiles / f"{name}.yaml").write_text(HEAD + text)
    return load(tree.profiles / f"{name}.yaml", tree).profile


@pytest.fixture
def lab(tree: Tree) -> Cluster:
    return profile(tree, LAB).cluster


@pytest.fixture
def ha(tree: Tree) -> Cluster:
    return profile(tree, HA, "ha").cluster


def kept(tree: Tree, cluster: Cluster, *, make: bool = True) -> Kept:
    return found.kept(tree, cluster, tree.profiles / f"{cluster.name}.yaml", make=make)


def files(cluster: Cluster, name: str, *, bootstrap: bool = False) -> dict[str, bytes]:
    return seed.files(cluster, seed.member(cluster, name), SECRETS, bootstrap=bootstrap, issued=1)


def private_keys(content: dict[str, bytes]) -> list[str]:
    return [name for name, body in content.items() if b"PRIVATE KEY" in body]


FLEET = (
    "cluster:\n  match: mac\n  nodes:\n    one: {}\n"
    "    two: {role: agent, mac: '52:54:00:00:00:02'}\n    three: {role: agent, mac: '52:54:00:00:00:03'}\n"
)


def test_the_agents_shared_seed(tree: Tree) -> None:
    fleet = profile(tree, FLEET, "fleet").cluster
    made = seed.shared(fleet, SECRETS, issued=1)
    assert set(made) == {
        "secrets/token",
        *(f"agents/52-54-00-00-00-0{n}/node.yaml" for n in (2, 3)),
        *(f"secrets/agents/52-54-00-00-00-0{n}/node-password" for n in (2, 3)),
    }
    assert b"name: two" in made["agents/52-54-00-00-00-02/node.yaml"]
    assert private_keys(made) == []
    assert SECRETS.server not in b"".join(made.values()).decode()
    assert made["secrets/token"].decode().strip() == SECRETS.agent_token


def test_no_shared_seed_without_match(lab: Cluster) -> None:
    with pytest.raises(UsageError, match="share no seed") as caught:
        seed.shared(lab, SECRETS, issued=1)
    assert "match: mac" in caught.value.hint


def test_who_has_several_nodes_is_told_of_the_shared_seed(tree: Tree) -> None:
    with pytest.raises(UsageError) as caught:
        seed.member(profile(tree, FLEET, "fleet").cluster, None)
    assert "--shared" in caught.value.hint


def test_tokens_name_the_ca() -> None:
    digest = hashlib.sha256(SECRETS.authorities["server-ca"].certificate).hexdigest()
    assert SECRETS.server_token == f"K10{digest}::server:{SECRETS.server}"
    assert SECRETS.agent_token == f"K10{digest}::node:{SECRETS.agent}"
    assert SECRETS.server != SECRETS.agent
    assert model.create("lab", model.lifetime(NOW)).ca_hash != SECRETS.ca_hash


def test_a_node_has_the_same_password_again() -> None:
    assert SECRETS.node_password("a") == SECRETS.node_password("a") != SECRETS.node_password("b")
    assert len(SECRETS.node_password("a")) == 32


def test_each_secret_is_known_by_a_string() -> None:
    values = SECRETS.values(["one", "two"])
    assert len(set(values.values())) == len(values) == 5 + len(SECRETS.authorities) + 1
    assert min(len(value) for value in values.values()) >= 32
    for pair in SECRETS.authorities.values():
        assert [value for value in values.values() if value in pair.key.decode()]
        assert not [value for value in values.values() if value in pair.certificate.decode()]
    for token in (SECRETS.server_token, SECRETS.agent_token):
        assert [value for value in values.values() if value in token]


def test_nothing_secret_is_in_its_words() -> None:
    for value in (SECRETS.server, SECRETS.agent, SECRETS.nodes_key.hex(), "PRIVATE"):
        assert value not in repr(SECRETS)


def test_authorities_last_and_count_before_any_clock() -> None:
    for pair in SECRETS.authorities.values():
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        assert certificate.not_valid_before_utc.year == 2020
        assert certificate.not_valid_after_utc.year >= NOW.year + 29
        assert pair.certificate.count(b"BEGIN CERTIFICATE") == 1, "k3s hashes a bundle in another way"


def test_the_kubeconfig_is_the_admins() -> None:
    admin = model.admin(SECRETS, model.lifetime(NOW))
    text = kubeconfig.text("lab", SECRETS.authorities["server-ca"].certificate, admin, address="fd00::1")
    content = yaml.safe_load(text)
    assert content["clusters"][0]["cluster"]["server"] == "https://[fd00::1]:6443"
    assert content["clusters"][0]["cluster"]["tls-server-name"] == "k3s.lab.internal"
    user = content["users"][0]["user"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))
    certificate.verify_directly_issued_by(
        x509.load_pem_x509_certificate(SECRETS.authorities["client-ca"].certificate)
    )
    assert certificate.subject.rfc4514_string() == "CN=system:admin,O=system:masters"
    context = ssl.create_default_context(
        cadata=base64.b64decode(content["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    )
    assert len(context.get_ca_certs()) == 1


def test_an_agent_cannot_become_a_server(lab: Cluster, ha: Cluster) -> None:
    for cluster, name in ((lab, "two"), (ha, "d")):
        content = files(cluster, name)
        assert set(content) == {"node.yaml", "secrets/token", "secrets/node-password"}
        assert private_keys(content) == []
        assert content["secrets/token"].decode().strip() == SECRETS.agent_token
        everything = b"\n".join(content.values())
        assert SECRETS.server.encode() not in everything
        assert SECRETS.nodes_key not in everything


def test_a_server_has_what_k3s_starts_with(lab: Cluster, ha: Cluster) -> None:
    content = files(lab, "one", bootstrap=True)
    names = {f"secrets/tls/{name}.{kind}" for name in ca.NAMES[:3] for kind in ("crt", "key")}
    tokens = {f"secrets/{name}" for name in ("token", "agent-token", "node-password")}
    assert set(content) == {"node.yaml", "secrets/tls/service.key"} | names | tokens
    etcd = {f"secrets/tls/{name}.{kind}" for name in ca.NAMES[3:] for kind in ("crt", "key")}
    assert set(files(ha, "b")) == set(content) | etcd | {"secrets/admin.crt", "secrets/admin.key"}
    assert content["secrets/token"].decode().strip() == SECRETS.server_token


def test_node_yaml_reads_back(ha: Cluster) -> None:
    config = load_node(files(ha, "a", bootstrap=True)["node.yaml"], "node.yaml")
    assert (config.cluster, config.bootstrap, config.issued) == ("ha", True, 1)
    assert config.ca_hash == SECRETS.ca_hash
    assert config.servers == ("a", "b", "c")
    assert config.node == seed.member(ha, "a")


def test_a_profile_without_nodes_is_one(tree: Tree) -> None:
    cluster = profile(tree, "", "rpi4").cluster
    (node,) = seed.members(cluster)
    assert (node.name, node.role, node.initializer) == ("rpi4-1", Role.SERVER, True)
    assert seed.member(cluster, None) == node


def test_which_node_is_asked_for(lab: Cluster) -> None:
    with pytest.raises(UsageError, match="lab has 2 nodes") as caught:
        seed.member(lab, None)
    assert caught.value.hint == "Add --node, one of one, two."
    with pytest.raises(UsageError, match="lab has no node three") as caught:
        seed.member(lab, "three")
    assert caught.value.hint == "Its nodes are one, two."


def test_secrets_are_kept_and_shut(tree: Tree, lab: Cluster) -> None:
    os.umask(0)  # whoever has a careless umask
    made = kept(tree, lab)
    os.umask(0o022)
    assert made.folder == tree.root / "secrets/lab"
    for path in (made.folder, *made.folder.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    again = kept(tree, lab)
    assert again.secrets == made.secrets
    assert made.kubeconfig.exists()


def test_secrets_open_to_others_are_refused(tree: Tree, lab: Cluster) -> None:
    made = kept(tree, lab)
    (made.folder / "tls/server-ca.key").chmod(0o640)
    (made.folder / "server-password").chmod(0o604)
    with pytest.raises(UsageError, match="open to others") as caught:
        kept(tree, lab)
    assert "tls/server-ca.key has mode 0640" in caught.value.details
    assert "server-password has mode 0604" in caught.value.details
    assert f"chmod -R go= {made.folder}" in caught.value.hint


@pytest.mark.parametrize("name", ["tls/client-ca.key", "nodes-key", "server-password", "tls/service.key"])
def test_a_part_that_is_gone(tree: Tree, lab: Cluster, name: str) -> None:
    (kept(tree, lab).folder / name).unlink()
    with pytest.raises(UsageError, match="not complete") as caught:
        kept(tree, lab)
    assert "backup" in caught.value.hint


def test_the_lock_names_the_ca(tree: Tree, lab: Cluster) -> None:
    made = kept(tree, lab)
    lock = locks.read(tree.profiles / "lab.lock.yaml")
    assert lock is not None
    assert lock.extra == {"cluster-ca": {"lab": made.secrets.ca_hash}}
    assert lock.digest == replace(lock, extra={}).digest, "what is built does not depend on it"
    before = (tree.profiles / "lab.lock.yaml").stat().st_mtime_ns
    kept(tree, lab)
    assert (tree.profiles / "lab.lock.yaml").stat().st_mtime_ns == before


def test_secrets_that_are_elsewhere(
    tree: Tree, lab: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kept(tree, lab)
    made.folder.rename(tmp_path / "lab")
    with pytest.raises(UsageError, match="the secrets of lab are elsewhere"):
        kept(tree, lab)
    assert not made.folder.exists()
    monkeypatch.setenv("K3IMG_SECRETS", str(tmp_path))
    assert kept(tree, lab).secrets == made.secrets


def test_secrets_of_another_cluster(tree: Tree, lab: Cluster) -> None:
    kept(tree, lab).folder.rename(tree.root / "old")
    store.create(tree.root / "secrets/lab", "lab", now=NOW)
    with pytest.raises(UsageError, match=r"another cluster's than lab\.lock\.yaml names"):
        kept(tree, lab)


def test_no_secrets_yet(tree: Tree, lab: Cluster) -> None:
    with pytest.raises(UsageError, match="lab has no secrets yet"):
        kept(tree, lab, make=False)
    assert not (tree.root / "secrets").exists()
    assert locks.read(tree.profiles / "lab.lock.yaml") is None


def given(node: str, *, bootstrap: bool = False) -> Given:
    return Given(node=node, seed="1", when="2026-11-01", medium="/dev/sdb", bootstrap=bootstrap)


def gift(tree: Tree, cluster: Cluster, node: str, *before: Given, new: bool = False) -> give.Gift:
    there = kept(tree, cluster)
    for item in before:
        there.note(item)
    again = kept(tree, cluster)
    assert again.ledger == list(before), "the ledger is on disk"
    return give.gift(cluster, seed.member(cluster, node), again, new_datastore=new)


def test_the_right_to_a_datastore_is_given_once(tree: Tree, ha: Cluster) -> None:
    assert gift(tree, ha, "a") == give.Gift(bootstrap=True)


def test_others_never_have_it(tree: Tree, ha: Cluster) -> None:
    assert gift(tree, ha, "b", given("a", bootstrap=True)) == give.Gift(bootstrap=False)
    with pytest.raises(UsageError, match="b is not the node that makes the datastore") as caught:
        give.gift(ha, seed.member(ha, "b"), kept(tree, ha), new_datastore=True)
    assert caught.value.hint == "That is a."


def test_an_initializer_comes_back_as_a_joiner(tree: Tree, ha: Cluster) -> None:
    found = gift(tree, ha, "a", given("a", bootstrap=True), given("b"))
    assert not found.bootstrap
    assert found.asks == ("--replace",)
    assert "was seeded on 2026-11-01 (/dev/sdb): this replaces it" in found.says[0]
    assert "comes back as one that joins" in found.says[1]


def test_a_new_datastore_names_what_is_lost(tree: Tree, ha: Cluster) -> None:
    found = gift(tree, ha, "a", given("a", bootstrap=True), new=True)
    assert found.bootstrap
    assert found.asks == ("--replace", "--new-datastore")
    assert "every object in the cluster is lost" in found.says[1]


def test_an_only_server_takes_its_datastore_along(tree: Tree, lab: Cluster) -> None:
    found = gift(tree, lab, "one", given("one", bootstrap=True))
    assert found.bootstrap
    assert found.asks == ("--replace", "--new-datastore")
    with pytest.raises(UsageError, match="not agreed to") as caught:
        give.agreed(found, ("--replace",))
    assert caught.value.hint == "Add --new-datastore."
    assert "goes with the old card" in caught.value.details
    give.agreed(found, ("--new-datastore", "--replace"))


def test_an_external_datastore_stays(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = "nodes: {a: {initializer: true}, b: {}}"
    text = f"cluster: {{datastore: {{endpoint: {{scheme: postgres, env: DSN}}}}, {nodes}}}\n"
    cluster = profile(tree, text, "ext").cluster
    assert not gift(tree, cluster, "a", given("a", bootstrap=True)).bootstrap
    monkeypatch.setenv("DSN", "postgres://k3s:hunter2@db/k3s")
    assert found.datastore_endpoint(cluster, tree.root) == "postgres://k3s:hunter2@db/k3s"
    monkeypatch.setenv("DSN", "mysql://k3s:hunter2@db/k3s")
    with pytest.raises(UsageError, match="variable DSN has no URL that begins with postgres://") as caught:
        found.datastore_endpoint(cluster, tree.root)
    assert "hunter2" not in f"{caught.value} {caught.value.details} {caught.value.hint}"


def test_an_external_datastore_from_a_file(tree: Tree) -> None:
    text = "cluster: {datastore: {endpoint: {scheme: postgres, file: secrets/dsn}}, nodes: {a: {}}}\n"
    cluster = profile(tree, text, "ext").cluster
    with pytest.raises(UsageError, match="secrets/dsn with the datastore's URL: No such file"):
        found.datastore_endpoint(cluster, tree.root)
    (tree.root / "secrets").mkdir()
    (tree.root / "secrets/dsn").write_text("postgres://a:b@c/d\n")
    assert found.datastore_endpoint(cluster, tree.root) == "postgres://a:b@c/d"


def test_where_the_api_will_be(tree: Tree, lab: Cluster, ha: Cluster) -> None:
    made = kept(tree, lab)
    assert found.address(lab, made) == f"one-{made.secrets.ca_hash[:6]}.local"
    assert found.address(ha, kept(tree, ha)) == "10.0.0.1"
    assert found.address(replace(ha, endpoint="k3s.example.org"), kept(tree, ha)) == "k3s.example.org"


def run(*arguments: str | Path, typed: str = "") -> tuple[int, str]:
    group = command.cluster if arguments[0] != "seed" else command.seed_command
    words = [str(word) for word in (arguments if group is command.cluster else arguments[1:])]
    result = CliRunner().invoke(group, words, input=typed, standalone_mode=True, catch_exceptions=False)
    return result.exit_code, result.output


def test_the_shared_seed_is_written_and_noted(tree: Tree, tmp_path: Path) -> None:
    fleet = profile(tree, FLEET, "fleet").cluster
    at = ("--tree", tree.root, "--profile", "fleet")
    for number in (1, 2):  # one for many cards: a second one replaces nothing
        status, said = run("seed", *at, "--shared", "--yes", "-o", tmp_path / str(number))
        assert status == 0
        assert "the seed that the agents of fleet share, told apart by mac" in said
    assert (tmp_path / "1/agents/52-54-00-00-00-03/node.yaml").is_file()
    assert [given.node for given in kept(tree, fleet).ledger] == ["(agents)", "(agents)"]
    with pytest.raises(UsageError, match="without --node"):
        run("seed", *at, "--shared", "--node", "two", "-o", tmp_path / "3")


def test_commands_say_nothing_secret(tree: Tree, lab: Cluster, tmp_path: Path) -> None:
    at = ("--tree", tree.root, "--profile", "lab")
    said = [
        run("create", *at)[1],
        run("seed", *at, "--node", "one", "-o", tmp_path / "one")[1],
        run("show", *at)[1],
        run("kubeconfig", *at)[1],
    ]
    there = kept(tree, lab)
    everything = "\n".join(said) + (tree.profiles / "lab.lock.yaml").read_text()
    assert not [what for what, value in there.secrets.values(("one", "two")).items() if value in everything]
    assert "PRIVATE" not in everything
    assert (
        f"two                  agent                two-{there.secrets.ca_hash[:6]}.local  not seeded"
        in said[2]
    )
    assert "seeded 20" in said[2]


@pytest.mark.parametrize("name", ["one", "one.tar.gz"])
def test_a_seed_as_a_folder_or_a_credential(tree: Tree, lab: Cluster, tmp_path: Path, name: str) -> None:
    at = ("--tree", tree.root, "--profile", "lab", "--node", "one")
    target = tmp_path / name
    assert run("seed", *at, "-o", target)[0] == 0
    if name.endswith(".gz"):
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        with tarfile.open(target) as archive:
            names = archive.getnames()
    else:
        paths = [path for path in target.rglob("*") if path.is_file()]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in paths)
        names = [str(path.relative_to(target)) for path in paths]
    assert set(names) == set(files(lab, "one"))
    with pytest.raises(UsageError, match="is there already"):
        run("seed", *at, "-o", target)


def test_a_second_seed_is_asked_for(tree: Tree, lab: Cluster, tmp_path: Path) -> None:
    at = ("--tree", tree.root, "--profile", "lab", "--node", "two")
    assert run("seed", *at, "--yes", "-o", tmp_path / "1")[0] == 0
    with pytest.raises(UsageError, match="not agreed to"):
        run("seed", *at, "--yes", "-o", tmp_path / "2")
    status, said = run("seed", *at, "-o", tmp_path / "2", typed="n\n")
    assert status == 1
    assert "this replaces it" in said
    assert not (tmp_path / "2").exists()
    assert len(kept(tree, lab).ledger) == 1
    assert run("seed", *at, "-o", tmp_path / "2", typed="y\n")[0] == 0
    assert run("seed", *at, "--yes", "--replace", "-o", tmp_path / "3")[0] == 0
    assert [item.medium for item in kept(tree, lab).ledger] == [str(tmp_path / n) for n in "123"]
