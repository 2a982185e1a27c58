"""Secrets written in clear: they would land in git and in every image. Their values are never repeated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from k3img.node.check import OWNED_OPTIONS
from k3img.profile.source import Items, Scalar, Table, Value

if TYPE_CHECKING:
    from k3img.profile.sink import Sink

_PATTERNS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a token of k3s": re.compile(r"\bK10[0-9a-f]{64}::"),
    "a password": re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s@]+@", re.IGNORECASE),
    "a password in a joining key": re.compile(r"\bjoinKey=[^\s,]+"),
}
_KEYS = re.compile(
    r"(.*[-_.])?(token|password|passwd|passphrase|secret|secret-key|access-key|private-key|joinkey|auth)",
    re.IGNORECASE,
)
_HINT = "Remove it, and change it where it is in use: secrets belong neither in a profile nor in an image."


def find(root: Table, sink: Sink) -> None:
    """Report every value that is a secret, or whose key says so."""
    _look(root, "", sink)


def _look(value: Value, path: str, sink: Sink) -> None:
    if isinstance(value, Table):
        for name, item in value.entries.items():
            at = f"{path}.{name}" if path else name
            sink.origins.setdefault(at, value.keys[name])
            if (
                isinstance(item, Scalar)
                and item.text
                and not path.endswith(".labels")
                and _KEYS.fullmatch(name)
            ):
                _report(at, f"the value of {name}", sink, OWNED_OPTIONS.get(name, _HINT))
            else:
                _look(item, at, sink)
    elif isinstance(value, Items):
        for index, item in enumerate(value.values):
            at = f"{path}[{index}]"
            sink.origins.setdefault(at, item.origin)
            _look(item, at, sink)
    else:
        kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.search(value.text)), "")
        if kind:
            _report(path, kind, sink)


def _report(path: str, kind: str, sink: Sink, hint: str = _HINT) -> None:
    sink.problem(path, f"holds {kind} in clear", hint)
    sink.secret.add(path)
