"""Health, certificates, the API client, the clock and the address: each asked to prove what it says."""

from __future__ import annotations

import base64
import datetime as dt
import socket
import sqlite3
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.nodes import FakeSystem

from k3img.device import address, certs, clock, health, network, outcome, probe
from k3img.device.health import Verdict
from k3img.device.kube import Client, KubeError, split_url
from k3img.device.main import main
from k3img.device.outcome import Go, Outcome
from k3img.device.place import Place
from k3img.device.system import Ended
from k3img.node.model import Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = Outcome(go=Go.RUN, node="pi-1", cluster="shop")


class FakeNode(FakeSystem):
    """A node whose k3s unit a test sets."""

    def unit(self, active: str, restarts: int = 0) -> None:
        self.answers["systemctl show"] = Ended(status=0, output=f"ActiveState={active}\nNRestarts={restarts}")

    @property
    def rebooted(self) -> bool:
        return "systemctl --no-block reboot" in self.calls


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    place = Place(root=tmp_path)
    (tmp_path / "sys/class/net/eth0/device").mkdir(parents=True)
    (tmp_path / "sys/firmware/efi/efivars").mkdir(parents=True)
    outcome.save(place, RUN)
    found = FakeNode(place=place)
    found.unit("activating")
    found.answers["/usr/lib/systemd/systemd-bless-boot"] = Ended(status=0, output="indeterminate")
    return found


def count_boots(node: FakeNode) -> None:
    variable = (
        node.place.sys / "firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    )
    variable.write_bytes(b"\6\0\0\0" + "\\EFI\\Linux\\x+2-1.efi\0".encode("utf-16-le"))


# ---- health ----


def test_an_entry_without_a_counter_only_reports(node: FakeNode) -> None:
    node.answers["systemctl list-units"] = Ended(status=0, output="x.service loaded failed failed X")
    assert health.run(node.place, node) == 0
    assert not node.rebooted
    assert any("only a report" in line for line in node.logged)


def test_a_failed_unit_restarts_a_machine_on_trial(node: FakeNode) -> None:
    count_boots(node)
    node.answers["systemctl list-units"] = Ended(status=0, output="x.service loaded failed failed X")
    assert health.run(node.place, node) == 1
    assert node.rebooted
    assert "x.service" in (node.place.state / "last-fault").read_text()


@pytest.mark.parametrize("trial", ["good", "clean", "bad", "", "Not booted with EFI"])
def test_an_entry_that_is_not_on_trial_is_left_alone(node: FakeNode, trial: str) -> None:
    count_boots(node)
    node.answers["/usr/lib/systemd/systemd-bless-boot"] = Ended(status=0, output=trial)
    node.answers["systemctl list-units"] = Ended(status=0, output="x.service loaded failed failed X")
    health.run(node.place, node)
    assert not node.rebooted


def test_its_own_failure_is_no_proof(node: FakeNode) -> None:
    node.answers["systemctl list-units"] = Ended(status=0, output=f"{health.OWN} loaded failed failed X")
    assert health.assess(node.place, node, None).verdict is Verdict.WAITING


@pytest.mark.parametrize(
    "result",
    [None, Outcome(go=Go.STOP, what="bad node.yaml"), Outcome(go=Go.WAIT, what="a server")],
)
def test_waiting_for_something_outside_never_restarts(node: FakeNode, result: Outcome | None) -> None:
    count_boots(node)
    (node.place.run / "node.json").unlink()
    if result is not None:
        outcome.save(node.place, result)
    health.run(node.place, node, looks=500)
    assert not node.rebooted


def test_a_missing_address_never_restarts_even_when_k3s_gives_up(node: FakeNode) -> None:
    count_boots(node)
    node.address = None
    node.unit("activating", restarts=900)
    health.run(node.place, node, looks=500)
    assert not node.rebooted


def test_a_k3s_that_only_takes_long_never_restarts(node: FakeNode) -> None:
    count_boots(node)
    health.run(node.place, node, looks=500)
    assert not node.rebooted


def test_a_k3s_that_does_not_start_is_a_proven_fault(node: FakeNode) -> None:
    count_boots(node)
    node.unit("activating", restarts=health.RESTARTS)
    health.run(node.place, node, looks=500)
    assert node.rebooted


def test_k3s_that_stops_for_want_of_a_quorum_or_a_database_is_waiting(node: FakeNode) -> None:
    count_boots(node)
    node.unit("activating", restarts=900)
    datastore = node.place.rancher / "k3s/config.yaml.d/25-datastore.yaml"
    datastore.parent.mkdir(parents=True)
    datastore.write_text("x")
    health.run(node.place, node, looks=100)
    assert not node.rebooted
    datastore.unlink()
    (node.place.k3s / "server/db/etcd/member/wal").mkdir(parents=True)
    health.run(node.place, node, looks=100)
    assert not node.rebooted


def test_a_fault_that_passes_is_no_proof(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    count_boots(node)
    looks = iter(
        [health.Look(verdict=Verdict.FAULT, kind="k3s")] * (health.PROOF - 1)
        + [health.Look(verdict=Verdict.WAITING)]
    )
    monkeypatch.setattr(health, "assess", lambda *_: next(looks))
    health.run(node.place, node, looks=health.PROOF)
    assert not node.rebooted


def test_a_damaged_sqlite_is_a_fault_and_a_good_or_missing_one_is_not(node: FakeNode) -> None:
    assert probe.sqlite_fault(node.place) is None
    path = node.place.k3s / "server/db/state.db"
    path.parent.mkdir(parents=True)
    link = sqlite3.connect(path)
    link.execute("PRAGMA journal_mode=WAL")
    link.execute("CREATE TABLE kine (id INTEGER PRIMARY KEY, name TEXT)")
    link.executemany("INSERT INTO kine (name) VALUES (?)", [("x" * 500,)] * 200)
    link.commit()
    assert probe.sqlite_fault(node.place) is None, "also while another process writes"
    link.close()
    assert probe.sqlite_fault(node.place) is None
    whole = path.read_bytes()
    path.write_bytes(b"\xff" * len(whole))
    assert health.assess(node.place, node, None).kind == "datastore"
    path.write_bytes(b"")
    assert probe.sqlite_fault(node.place) is None, "not yet filled"


def test_a_kubelet_that_died_after_it_was_configured(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.unit("active")
    monkeypatch.setattr(probe, "kubelet_answers", lambda: False)
    assert health.assess(node.place, node, None).verdict is Verdict.WAITING, "not configured yet"
    for name in ("client-kubelet.crt", "kubelet.kubeconfig"):
        (node.place.k3s / "agent").mkdir(parents=True, exist_ok=True)
        (node.place.k3s / "agent" / name).write_text("x")
    assert health.assess(node.place, node, None).kind == "kubelet"
    node.unit("activating")
    assert health.assess(node.place, node, None).verdict is Verdict.WAITING, "k3s is not up: no proof"


def test_an_agent_is_good_when_its_kubelet_is_whatever_its_server_does(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome.save(node.place, Outcome(go=Go.RUN, node="pi-2", role="agent"))
    for name in ("client-kubelet.crt", "kubelet.kubeconfig"):
        (node.place.k3s / "agent").mkdir(parents=True, exist_ok=True)
        (node.place.k3s / "agent" / name).write_text("x")
    monkeypatch.setattr(probe, "kubelet_answers", lambda: True)
    assert health.assess(node.place, node, None).verdict is Verdict.GOOD


def test_an_etcd_member_that_does_not_answer(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.place.k3s / "server/db/etcd/member/wal").mkdir(parents=True)
    node.unit("active")
    assert health.assess(node.place, node, None).kind == "etcd"
    node.unit("activating")
    assert health.assess(node.place, node, None).verdict is Verdict.WAITING


# ---- certificates, and a real TLS server ----

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def certificate(name: str, *, days: int = 365, issuer: Pair | None = None, from_year: int = 2020) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = dt.datetime(from_year, 1, 1, tzinfo=dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if name == "localhost":
        import ipaddress

        sans = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(pair: Pair) -> tuple[bytes, bytes]:
    private = pair[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pair[0].public_bytes(serialization.Encoding.PEM), private


@pytest.mark.parametrize(("year", "days"), [(2020, 1), (2020, 365), (2049, 400), (2060, 7000), (1999, 30)])
def test_the_end_of_a_certificate(year: int, days: int) -> None:
    pair = certificate("x", days=days, from_year=year)
    assert certs.expires(pem(pair)[0]) == int(pair[0].not_valid_after_utc.timestamp())
    chain = pem(pair)[0] + pem(certificate("y", days=1))[0]
    assert certs.expires(chain) == int(pair[0].not_valid_after_utc.timestamp()), "the leaf comes first"


def test_no_certificate_or_half_of_one_never_gives_a_wrong_end() -> None:
    pair = certificate("x")
    body, end = pem(pair)[0], int(pair[0].not_valid_after_utc.timestamp())
    assert certs.expires(b"") is None
    assert certs.expires(bytes(reversed(body))) is None
    for cut in range(len(body)):
        assert certs.expires(body[:cut] + b"\n-----END CERTIFICATE-----") in {None, end}


@pytest.mark.parametrize(("days", "restarted"), [(89, True), (91, False), (-5, True)])
def test_k3s_is_restarted_before_its_certificates_end(node: FakeNode, days: int, restarted: bool) -> None:
    outcome.save(node.place, Outcome(go=Go.RUN, role="agent"))
    pair = certificate("kubelet", days=365)
    folder = node.place.k3s / "agent"
    folder.mkdir(parents=True)
    (folder / "client-kubelet.crt").write_bytes(pem(pair)[0])
    (folder / "client-ca.crt").write_bytes(pem(certificate("ca", days=1))[0])
    node.clock = pair[0].not_valid_after_utc.timestamp() - days * 86400 - 60
    assert certs.run(node.place, node) == 0
    assert (node.calls == ["systemctl --no-block try-restart k3s-agent.service"]) is restarted


@pytest.fixture
def api(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A TLS server that wants a client's certificate, and its kubeconfig; the dict is what it answers."""
    folder = node.place.root / "api"
    folder.mkdir()
    ca = certificate("ca", days=30000)
    server, client = (
        certificate("localhost", days=30000, issuer=ca),
        certificate("admin", days=30000, issuer=ca),
    )
    for name, data in (("ca.pem", pem(ca)[0]), ("crt.pem", pem(server)[0]), ("key.pem", pem(server)[1])):
        (folder / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt.pem", folder / "key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    answers: dict[str, bytes] = {}

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with plain, context.wrap_socket(plain, server_side=True) as link:
                    path = link.recv(65536).split(b" ")[1].decode()
                    body = answers.get(path)
                    status = b"200 OK" if body is not None else b"404 Not Found"
                    link.sendall(b"HTTP/1.0 " + status + b"\r\nX: y\r\n\r\n" + (body or b""))
                    link.unwrap()
            except OSError:
                continue

    threading.Thread(target=serve, daemon=True).start()
    values = {
        "certificate-authority-data": pem(ca)[0],
        "client-certificate-data": pem(client)[0],
        "client-key-data": pem(client)[1],
    }
    text = f"    server: https://127.0.0.1:{listener.getsockname()[1]}\n"
    text += "".join(f"    {key}: {base64.b64encode(value).decode()}\n" for key, value in values.items())
    node.place.kubeconfig.parent.mkdir(parents=True)
    node.place.kubeconfig.write_text(text)
    yield answers
    listener.close()


def test_the_api_is_asked_with_the_admins_certificate(node: FakeNode, api: dict[str, bytes]) -> None:
    client = Client(node.place)
    api["/readyz"] = b"ok"
    api["/big"] = b"x" * 300_000
    assert client.get("/readyz") == b"ok"
    assert len(client.get("/big")) == 300_000
    for path in ("/nothing", "/readyz\r\nX: y"):
        with pytest.raises(KubeError):
            client.get(path + "?")
    with pytest.raises(KubeError):
        client.json("/big")
    assert not list(node.place.run.glob("*.pem")), "the key is never a file"


def test_a_ready_node_is_good_and_ends_the_trial(node: FakeNode, api: dict[str, bytes]) -> None:
    count_boots(node)
    api["/api/v1/nodes/pi-1"] = (
        b'{"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "metadata": {}}'
    )
    assert health.run(node.place, node, looks=3) == 0
    assert node.logged == ["good "]


def test_a_server_is_not_restarted_while_another_is_down(node: FakeNode, api: dict[str, bytes]) -> None:
    folder = node.place.k3s / "server/tls"
    folder.mkdir(parents=True)
    (folder / "serving-kube-apiserver.crt").write_bytes(pem(certificate("x", days=1))[0])
    assert certs.run(node.place, node) == 0
    assert "the API does not answer" in node.logged[-1]
    item = '{"metadata": {"name": "%s"}, "status": {"conditions": [{"type": "Ready", "status": "%s"}]}}'
    path = "/api/v1/nodes?labelSelector=node-role.kubernetes.io/control-plane"
    api["/readyz"] = b"ok"
    api[path] = f'{{"items": [{item % ("a", "True")}, {item % ("b", "False")}]}}'.encode()
    assert certs.run(node.place, node) == 0
    assert "b is not Ready" in node.logged[-1]
    assert not node.calls
    api[path] = f'{{"items": [{item % ("a", "True")}]}}'.encode()
    assert certs.run(node.place, node) == 0
    assert node.calls == ["systemctl --no-block try-restart k3s.service"]


def test_a_kubeconfig_that_is_no_such_thing(node: FakeNode) -> None:
    node.place.kubeconfig.parent.mkdir(parents=True)
    for text in ("", "server: x", "\0", "server: https://127.0.0.1:1\ncertificate-authority-data: !!!\n"):
        node.place.kubeconfig.write_text(text)
        with pytest.raises(KubeError):
            Client(node.place).get("/")


def test_urls() -> None:
    assert split_url("https://127.0.0.1:6443") == ("127.0.0.1", 6443)
    assert split_url("https://[fd00::1]:6443/") == ("fd00::1", 6443)


# ---- clock, address, network ----


def test_waiting_for_ntp_is_bounded_and_ends_when_the_time_comes(node: FakeNode) -> None:
    assert not clock.wait(node.place, node)
    assert node.boot <= 10 + clock.NTP_WAIT + 1
    (node.place.root / "run/systemd/timesync").mkdir(parents=True)
    (node.place.root / "run/systemd/timesync/synchronized").write_text("")
    began = node.boot
    assert clock.wait(node.place, node)
    assert node.boot == began
    assert main(["clock"], place=node.place, system=node) == 0


def test_the_clock_is_never_saved_backwards(node: FakeNode) -> None:
    clock.save(node.place, node)
    later = clock.saved(node.place)
    node.clock = 5.0
    clock.save(node.place, node)
    assert clock.saved(node.place) == later
    node.clock = 9e12
    clock.save(node.place, node)
    assert clock.saved(node.place) == later


def routes(node: FakeNode, *lines: str) -> None:
    path = node.place.root / "proc/net/route"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "\n".join(["Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask", *lines]) + "\n"
    )


def test_with_a_default_route_k3s_finds_its_address_itself(node: FakeNode) -> None:
    path = node.place.rancher / address.FILE
    path.parent.mkdir(parents=True)
    path.write_text("old")
    routes(node, "eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000")
    assert address.apply(node.place, node) is None
    assert not path.exists()


def test_without_one_it_is_told_and_services_get_a_route(node: FakeNode) -> None:
    routes(node, "eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF", "broken line")
    config = node.place.rancher / "k3s/config.yaml.d/10-image.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("service-cidr: 10.99.0.0/16,fd00::/112\n")
    assert main(["address"], place=node.place, system=node) == 0
    assert 'node-ip: "10.0.2.15"' in (node.place.rancher / address.FILE).read_text()
    assert node.calls == ["ip route replace 10.99.0.0/16 dev eth0 src 10.0.2.15 metric 10000"]


def test_a_fixed_address_is_not_said_twice(node: FakeNode) -> None:
    routes(node)
    config = node.place.rancher / "k3s/config.yaml.d/20-node.yaml"
    config.parent.mkdir(parents=True)
    config.write_text('"node-ip": "10.0.0.2"\n')
    address.apply(node.place, node)
    assert not (node.place.rancher / address.FILE).exists()


def test_without_an_address_it_fails_and_systemd_tries_again(node: FakeNode) -> None:
    routes(node)
    node.address = None
    assert main(["address"], place=node.place, system=node) == 1


def test_unknown_services_and_errors_have_an_exit_status(node: FakeNode) -> None:
    assert main([], place=node.place, system=node) == 2
    assert main(["nonsense"], place=node.place, system=node) == 2


@pytest.mark.parametrize(
    ("net", "names"),
    [
        (Network(), []),
        (Network(dns=("10.0.0.1",)), ["node.network"]),
        (Network(address="10.0.0.2/24"), ["node.network"]),
        (Network(mac="dc:a6:32:00:00:02"), ["node.network", "others.network"]),
        (Network(vlan=7), ["node.network", "vlan.netdev", "vlan.network"]),
        (
            Network(bond=("eth0", "dc:a6:32:00:00:02"), vlan=7),
            [
                *("bond-0.network", "bond-1.network", "bond.netdev", "node.network", "others.network"),
                *("vlan.netdev", "vlan.network"),
            ],
        ),
    ],
)  # fmt: skip
def test_network_files(net: Network, names: list[str]) -> None:
    found = network.render(net)
    assert sorted(name.removeprefix("60-k3img-") for name in found) == names
    for name, text in found.items():
        assert "veth" not in text
        if name.endswith(".network") and "Type=ether" in text:
            assert "Kind=!*" in text, "pods' interfaces are never matched"
        if "DHCP=yes" in text:
            assert "ClientIdentifier=mac" in text
