"""A seed for a machine that lives for one verification: a node of the profile, with secrets nobody keeps.

Never the cluster's own secrets (`secrets/`): an image is verified on machines that must not have them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import secrets
import tarfile
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from k3img.node.load import dump
from k3img.node.medium import AGENT_TOKEN, CREDENTIAL, NODE_FILE, SECRETS, TLS, TOKEN
from k3img.node.model import DatastoreKind, Network, Node, NodeConfig, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.profile.model import Cluster

DAYS = 2


@dataclass(frozen=True, kw_only=True)
class Throwaway:
    """Credentials for the machine, and what the report has to say about them."""

    credentials: Mapping[str, bytes]
    notes: tuple[str, ...]


def seed(
    cluster: Cluster, *, registries: Mapping[str, object], ssh_keys: tuple[str, ...] = ()
) -> Throwaway | None:
    """The seed of the cluster's initializer, for a machine on its own; None for a profile without nodes.

    `ssh_keys` are public keys that get in, where the image has an ssh server.
    """
    initializer = _initializer(cluster.nodes)
    if initializer is None:
        return None
    notes = [f"verified as the node {initializer.name}, with secrets made for this run only"]
    kind = cluster.datastore.kind
    if kind is DatastoreKind.EXTERNAL:
        kind = DatastoreKind.SQLITE
        notes.append("the external datastore was replaced by sqlite")
    if initializer.network != Network():
        notes.append("the node's own network settings were replaced by DHCP")
    files = _secrets(etcd=kind is DatastoreKind.ETCD)
    config = NodeConfig(
        node=replace(initializer, initializer=True, network=Network(), serial=None),
        cluster=cluster.name,
        datastore=kind,
        bootstrap=True,
        issued=int(time.time()),
        ca_hash=hashlib.sha256(files[f"{TLS}/server-ca.crt"]).hexdigest(),
        servers=(initializer.name,),
        registries=dict(registries),
        ssh_keys=ssh_keys,
    )
    content = {NODE_FILE: dump(config).encode()} | {f"{SECRETS}/{name}": body for name, body in files.items()}
    return Throwaway(credentials={CREDENTIAL: _tar(content)}, notes=tuple(notes))


def _initializer(nodes: tuple[Node, ...]) -> Node | None:
    """The node that makes the datastore: the one named so, else the first server."""
    servers = [node for node in nodes if node.role is Role.SERVER]
    return next((node for node in servers if node.initializer), servers[0] if servers else None)


def _secrets(*, etcd: bool) -> dict[str, bytes]:
    """What a server's seed holds below `secrets/`, as k3s names it in `server/tls/` (see facts/k3s.md)."""
    found: dict[str, bytes] = {}
    names = ["server-ca", "client-ca", "request-header-ca"]
    if etcd:
        names += ["etcd/server-ca", "etcd/peer-ca"]
    for name in names:
        found[f"{TLS}/{name}.crt"], found[f"{TLS}/{name}.key"] = _authority(name)
    found[f"{TLS}/service.key"] = _pem(ec.generate_private_key(ec.SECP256R1()))
    digest = hashlib.sha256(found[f"{TLS}/server-ca.crt"]).hexdigest()
    found[TOKEN] = f"K10{digest}::server:{secrets.token_hex(16)}\n".encode()
    found[AGENT_TOKEN] = f"K10{digest}::node:{secrets.token_hex(16)}\n".encode()
    return found


def _authority(name: str) -> tuple[bytes, bytes]:
    """A self-signed CA: certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"k3img-verify-{name.replace('/', '-')}")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Backdated: a machine whose clock is behind must still accept it.
        .not_valid_before(now - dt.timedelta(days=DAYS))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                key_encipherment=True,
                content_commitment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _tar(content: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.USTAR_FORMAT) as archive:
        for name, body in content.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o600
            archive.addfile(entry, io.BytesIO(body))
    return packed.getvalue()
