"""A secret on its way to one node through Kubernetes' API, where others can read it.

Sealed with what only that node and the builder know, its node password: HMAC-SHA256 in counter mode, and
HMAC-SHA256 over all of it (encrypt, then authenticate). A node has Python's library and nothing else, in
which there is no cipher. Text of the form `NONCE.CIPHER.MAC`, each in hex.
"""

from __future__ import annotations

import hashlib
import hmac

BLOCK = hashlib.sha256().digest_size


def seal(password: str, nonce: bytes, content: bytes) -> str:
    """Seal a content. The nonce must never be used with the same password for another content."""
    cipher = _mixed(password, nonce, content)
    return f"{nonce.hex()}.{cipher.hex()}.{_mac(password, nonce, cipher)}"


def unseal(password: str, text: str) -> bytes:
    """The content. Raises `ValueError` when it was sealed for another node, or changed on the way."""
    nonce, cipher, mac = text.split(".")
    if not hmac.compare_digest(mac, _mac(password, bytes.fromhex(nonce), bytes.fromhex(cipher))):
        raise ValueError("it was not sealed with this node's password")
    return _mixed(password, bytes.fromhex(nonce), bytes.fromhex(cipher))


def _mixed(password: str, nonce: bytes, content: bytes) -> bytes:
    blocks = range(-(-len(content) // BLOCK))
    stream = b"".join(_hmac(password, b"stream", nonce, number.to_bytes(4, "big")) for number in blocks)
    return bytes(a ^ b for a, b in zip(content, stream, strict=False))


def _mac(password: str, nonce: bytes, cipher: bytes) -> str:
    return _hmac(password, b"mac", nonce, cipher).hex()


def _hmac(password: str, purpose: bytes, nonce: bytes, rest: bytes) -> bytes:
    message = b"k3img " + purpose + len(nonce).to_bytes(1, "big") + nonce + rest
    return hmac.digest(password.encode(), message, "sha256")
