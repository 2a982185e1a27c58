"""Rule: nothing in /usr is secret. By format (keys, tokens, password hashes) and by how random it is."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k3img.image.opened import Opened

_FORMATS = (
    ("a private key", re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}")),
    ("an OpenSSH private key", re.compile(rb"\Aopenssh-key-v1\0")),
    ("a k3s token", re.compile(rb"K10[0-9a-f]{64}::")),
    ("a client key of a kubeconfig", re.compile(rb"client-key-data: ?[A-Za-z0-9+/]{40}")),
)
_PASSWORD = re.compile(r"^[^:]+:(\$[0-9a-z]+\$[^:]+|[A-Za-z0-9./]{13}):")

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_NAMED = re.compile(
    rb"(pass(?:word|wd|phrase)?|secret|token|api[_-]?key)[\"']?\s*[:=]\s*[\"']?([A-Za-z0-9+/=_.-]{16,})",
    re.IGNORECASE,
)
_WORD = re.compile(rb"(?<![/\w])[A-Za-z0-9+_-][A-Za-z0-9+/_-]{31,}")

NAMED, WORD = 3.2, 4.6
"""Bits per character above which a word is random: 16 hexadecimal digits of a generator have 3.3 or more,
32 characters of base64 4.6 or more. On a whole /usr of Debian 13 nothing else has."""

KEY_FILE = range(16, 4097)
"""Bytes of a file that may be a key without any format (`random-seed`, a disk's key file)."""
RANDOM, BINARY = 0.9, 0.35
"""Such a file has this part of the entropy that is possible, and of bytes that are no text."""

SCAN = 1 << 20
"""Files larger than this are programs; keys and tokens are small."""


def secrets(image: Opened) -> Iterator[str]:
    """No private key, token or password."""
    for entry in image.entries:
        name = entry.path.rpartition("/")[2]
        if not entry.is_file or entry.size == 0:
            continue
        if name.startswith("ssh_host_") and not name.endswith(".pub"):
            yield f"/usr/{entry.path} is an ssh host key"
        if entry.size <= SCAN:
            data = (image.usr / entry.path).read_bytes()
            found = [*_formats(data), *(_passwords(data) if name in ("shadow", "gshadow") else ())]
            yield from (f"/usr/{entry.path} has {what}" for what in found or _random(data))


def _formats(data: bytes) -> Iterator[str]:
    yield from (what for what, pattern in _FORMATS if pattern.search(data))


def _passwords(data: bytes) -> Iterator[str]:
    for line in data.decode(errors="replace").splitlines():
        if _PASSWORD.match(line):
            yield f"a password of {line.split(':')[0]}"


def _random(data: bytes) -> Iterator[str]:
    """What looks as if a generator of random numbers had made it; certificates do, and are public."""
    if b"\0" not in data[:4096]:
        text = _PEM.sub(b"", data)
        named = [match for match in _NAMED.finditer(text) if entropy(match[2]) > NAMED]
        yield from (f"the secret {match[1].decode()}" for match in named)
        words = [match[0] for match in _WORD.finditer(text) if not named]
        yield from (f"a random word: {word[:8].decode()}..." for word in words if _is_random(word))
    if len(data) in KEY_FILE:
        binary = sum(byte > 126 or byte < 9 for byte in data) / len(data)
        most = math.log2(min(256, len(data)))
        if binary > BINARY and entropy(data) > RANDOM * most:
            yield "random bytes, as a key has"


def _is_random(word: bytes) -> bool:
    """Three kinds of characters, and not an alphabet in its order."""
    mixed = all(re.search(kind, word) for kind in (rb"[0-9]", rb"[a-z]", rb"[A-Z]"))
    return mixed and list(word) != sorted(word) and entropy(word) > WORD


def entropy(data: bytes) -> float:
    """Bits per byte (Shannon)."""
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())
