"""From a laptop to the nodes: an API is believed by the pinned CA alone, wherever it answers."""

from __future__ import annotations

import datetime as dt
import http.server
import ipaddress
import json
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
import zeroconf
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.test_cluster import LAB, NOW, kept, profile

from k3img.cli import reach as command
from k3img.cluster import model
from k3img.errors import UsageError, VerifyError
from k3img.reach import find, wait
from k3img.reach.find import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k3img.cluster.model import Secrets
    from k3img.cluster.store import Kept
    from k3img.profile.model import Cluster
    from k3img.tree import Tree

OTHER = model.create("other", model.lifetime(NOW))


def node(name: str, *, ready: bool = True, message: str = "") -> dict[str, Any]:
    state = {"type": "Ready", "status": "True" if ready else "False", "message": message}
    return {
        "metadata": {"name": name},
        "status": {"conditions": [state], "nodeInfo": {"kubeletVersion": "v1.36.3+k3s1"}},
    }


@dataclass
class Answers:
    """What a server's API says."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    asked: int = 0


@contextmanager
def api(secrets: Secrets, folder: Path, answers: Answers, name: str = "k3s.lab.internal") -> Iterator[int]:
    """An API server of a cluster, and its port."""
    pem = folder / "server.pem"
    pem.write_bytes(certificate(secrets, name))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=secrets.authorities["client-ca"].certificate.decode())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked += 1
            body = b"ok" if self.path == "/readyz" else json.dumps({"items": answers.nodes}).encode()
            self.send_response(answers.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up because of our certificate is what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificate(secrets: Secrets, name: str) -> bytes:
    """A server's certificate and key."""
    pair = secrets.authorities["server-ca"]
    signing = serialization.load_pem_private_key(pair.key, password=None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "k3s")]))
        .issuer_name(x509.load_pem_x509_certificate(pair.certificate).subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(model.BEGIN)
        .not_valid_after(NOW + dt.timedelta(days=999))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, form, plain
    )


@pytest.fixture
def lab(tree: Tree) -> Cluster:
    return profile(tree, LAB).cluster


@pytest.fixture
def secrets(tree: Tree, lab: Cluster) -> Kept:
    return kept(tree, lab)


def at(port: int, name: str = "one") -> Place:
    return Place(address="127.0.0.1", port=port, how="mDNS", node=name)


def look(lab: Cluster, secrets: Kept, *places: Place) -> wait.Look:
    return wait.look(lab, secrets.kubeconfig.read_text(), places)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.168.7.31", "192.168.7.31", 6443),
        ("10.0.0.1:16443", "10.0.0.1", 16443),
        ("fd00::1", "fd00::1", 6443),
        ("[fd00::1]", "fd00::1", 6443),
        ("[fd00::1]:7", "fd00::1", 7),
        ("pi.local", "pi.local", 6443),
    ],
)
def test_an_address_that_is_given(text: str, address: str, port: int) -> None:
    assert find.named(text) == Place(address=address, port=port, how="--address")


@pytest.mark.parametrize("text", ["", ":", "a:", "a:b", "a:0", "a:70000", ":6443"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        find.named(text)


def test_all_ready(lab: Cluster, secrets: Kept, tmp_path: Path) -> None:
    with api(secrets.secrets, tmp_path, Answers(nodes=[node("one"), node("two")])) as port:
        seen = look(lab, secrets, at(port))
    assert seen.complete
    assert seen.api == at(port)
    assert [str(item).split() for item in seen.nodes] == [
        ["one", "127.0.0.1", "(mDNS)", "API", "ready", "node", "Ready", "v1.36.3+k3s1"],
        ["two", "node", "Ready", "v1.36.3+k3s1"],
    ]


def test_what_a_node_waits_for(lab: Cluster, secrets: Kept, tmp_path: Path) -> None:
    there = Answers(nodes=[node("one", ready=False, message="cni plugin not initialized")])
    with api(secrets.secrets, tmp_path, there) as port:
        one, two = look(lab, secrets, at(port)).nodes
    assert one.says == "not Ready: cni plugin not initialized"
    assert two.says == "has not joined yet"
    with api(secrets.secrets, tmp_path, Answers(status=500)) as port:
        seen = look(lab, secrets, at(port))
    assert seen.nodes[0].says == "its API is starting (500)"
    assert seen.api is None
    one, two = look(lab, secrets, at(port)).nodes
    assert one.says == "its API does not answer yet"
    assert look(lab, secrets).nodes[0].says == "not found yet"


@pytest.mark.parametrize(("whose", "name"), [("other", "k3s.lab.internal"), ("ours", "k3s.other.internal")])
def test_another_cluster_is_not_believed(
    whose: str, name: str, lab: Cluster, secrets: Kept, tmp_path: Path
) -> None:
    there = Answers(nodes=[node("one"), node("two")])
    with api(secrets.secrets if whose == "ours" else OTHER, tmp_path, there, name) as port:
        seen = look(lab, secrets, at(port))
    assert there.asked == 0
    assert "another cluster answers there" in seen.nodes[0].says
    assert not seen.complete


def test_the_first_place_that_answers_rightly(lab: Cluster, secrets: Kept, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    right = Answers(nodes=[node("one"), node("two")])
    with (
        api(OTHER, tmp_path / "other", Answers()) as wrong,
        api(secrets.secrets, tmp_path, right) as port,
    ):
        seen = look(lab, secrets, at(wrong), at(port))
    assert seen.api == at(port)
    assert seen.complete


def test_waiting_tells_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    states = [wait.Seen(name="one"), wait.Seen(name="one"), wait.Seen(name="one", ready=True, says="v1")]
    told: list[str] = []
    looks = iter(states)
    last, _ = wait.wait(lambda: wait.Look(nodes=(next(looks),), api=None), told.append, timeout=60)
    assert last.complete
    assert [line.split()[1:] for line in told] == [["not", "found", "yet"], ["node", "Ready", "v1"]]


def run(name: str, *arguments: str) -> tuple[int, str]:
    commands = {item.name: item for item in command.COMMANDS}
    result = CliRunner().invoke(commands[name], list(arguments), catch_exceptions=False)
    return result.exit_code, result.output


def test_the_kubeconfig_follows_the_server(tree: Tree, secrets: Kept, tmp_path: Path) -> None:
    there = Answers(nodes=[node("one"), node("two")])
    with api(secrets.secrets, tmp_path, there) as port:
        place = ("--tree", str(tree.root), "--address", f"127.0.0.1:{port}", "lab")
        status, said = run("wait", *place)
        assert (status, "all Ready" in said) == (0, True)
        assert run("nodes", *place)[0] == 0
    cluster = yaml.safe_load(secrets.kubeconfig.read_text())["clusters"][0]["cluster"]
    assert cluster["server"] == f"https://127.0.0.1:{port}"
    assert cluster["tls-server-name"] == "k3s.lab.internal"


def test_after_the_time_where_to_look(tree: Tree, secrets: Kept) -> None:
    before = secrets.kubeconfig.read_bytes()
    with pytest.raises(VerifyError, match="not Ready after 0 s: one, two") as caught:
        run("wait", "--tree", str(tree.root), "--timeout", "0", "--address", "127.0.0.1:1", "lab")
    assert "--address IP" in caught.value.hint
    assert secrets.kubeconfig.read_bytes() == before


def test_a_cluster_that_no_profile_has(tree: Tree, secrets: Kept) -> None:
    with pytest.raises(UsageError, match="no profile has a cluster shop"):
        run("nodes", "--tree", str(tree.root), "shop")


def test_a_cluster_by_its_own_name(tree: Tree) -> None:
    profile(tree, "cluster: {name: shop-42}\n", "minis")
    assert command.profile_of(tree, "shop-42") == "minis"


def test_names_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    real = zeroconf.Zeroconf
    monkeypatch.setattr(zeroconf, "Zeroconf", lambda: real(interfaces=["127.0.0.1"]))
    assert find.by_mdns({"one": "one-abcdef"}, seconds=0.1) == ()


def published(host: str, address: str, **said: str) -> zeroconf.ServiceInfo:
    """What a node's systemd-resolved publishes of its k3img.dnssd."""
    return zeroconf.ServiceInfo(
        find.SERVICE,
        f"{host}.{find.SERVICE}",
        port=6443,
        server=f"{host}.local.",
        addresses=[ipaddress.ip_address(address).packed],
        properties=said,
    )


def test_nodes_by_mdns(monkeypatch: pytest.MonkeyPatch) -> None:
    real = zeroconf.Zeroconf
    monkeypatch.setattr(zeroconf, "Zeroconf", lambda: real(interfaces=["127.0.0.1"]))
    node_side = real(interfaces=["127.0.0.1"])
    services = (
        published("one-abcdef", "192.0.2.7", node="one", cluster="abcdef"),
        published("one-abcdef2", "192.0.2.8", node="one", cluster="abcdef"),
        published("one-fedcba", "192.0.2.9", node="one", cluster="fedcba"),
        published("three-abcdef", "192.0.2.10", node="three", cluster="abcdef"),
        published("x86-1a2b3c", "192.0.2.11", node="one", cluster=""),
        published("strange", "192.0.2.12"),
        published(
            "two-abcdef",
            "192.0.2.13",
            node="two",
            cluster="abcdef",
            state="waiting",
            **{"waits-for": "a server\x1b[2J of cluster shop"},
        ),
    )
    try:
        for service in services:
            node_side.register_service(service, cooperating_responders=True)
        found = find.by_mdns({"one": "one-abcdef", "two": "two-abcdef"}, seconds=1)
    finally:
        node_side.close()
    assert set(found) == {
        Place(address="192.0.2.7", how="mDNS", node="one", host="one-abcdef"),
        Place(address="192.0.2.8", how="mDNS", node="one", host="one-abcdef2"),
        Place(
            address="192.0.2.13",
            how="mDNS",
            node="two",
            host="two-abcdef",
            says="waits for a server[2J of cluster shop",
        ),
    }


ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
192.0.2.7        0x1         0x2         dc:a6:32:00:00:02     *        eth0
192.0.2.70       0x1         0x2         dc:a6:32:00:00:03     *        eth0
192.0.2.8        0x1         0x0         00:00:00:00:00:00     *        eth0
"""


@pytest.mark.parametrize(
    ("address", "mac"), [("192.0.2.7", "dc:a6:32:00:00:02"), ("192.0.2.8", ""), ("192.0.2.9", "")]
)
def test_the_mac_behind_an_address(tmp_path: Path, address: str, mac: str) -> None:
    (tmp_path / "arp").write_text(ARP)
    assert find.hardware_address(address, tmp_path / "arp") == mac
    assert find.hardware_address(address, tmp_path / "none") == ""


def test_two_machines_that_are_one_node_are_shown_with_their_macs(
    tmp_path: Path, lab: Cluster, secrets: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "hardware_address", {"127.0.0.1": "dc:a6:32:00:00:02"}.get)
    with api(secrets.secrets, tmp_path, Answers([node("one"), node("two")])) as port:
        places = [
            Place(address=address, port=port, how="mDNS", node="two", host=host)
            for address, host in (("127.0.0.1", "two-a"), ("127.0.0.2", "two-a2"))
        ]
        seen = look(lab, secrets, at(port), *places)
    two = next(item for item in seen.nodes if item.name == "two")
    assert not two.ready
    assert not seen.complete
    assert "127.0.0.1 (dc:a6:32:00:00:02)" in two.says
    assert "127.0.0.2 (MAC unknown)" in two.says


def test_a_machine_that_is_there_and_has_not_joined(tmp_path: Path, lab: Cluster, secrets: Kept) -> None:
    with api(secrets.secrets, tmp_path, Answers([node("one")])) as port:
        agent = Place(address="127.0.0.1", port=1, how="mDNS", node="two", host="two-a")
        two = look(lab, secrets, at(port), agent).nodes[1]
    assert (two.place, two.ready) == (agent, False)
    assert two.says == "has not joined yet: its screen and status.txt say what it waits for"
    with api(secrets.secrets, tmp_path, Answers([node("one")])) as port:
        agent = replace(agent, says="stopped: this medium was seeded, but node.yaml is gone")
        two = look(lab, secrets, at(port), agent).nodes[1]
    assert two.says == agent.says, "its own words, once it has some"
