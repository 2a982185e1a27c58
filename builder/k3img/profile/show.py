"""A resolved profile as YAML, every value with the place that it came from. It can be loaded again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from k3img.profile.kinds import is_null
from k3img.profile.model import Profile
from k3img.profile.source import COMMAND_LINE, Scalar, guessed
from k3img.profile.tables import section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from k3img.profile.load import Loaded

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+=@%~^-]*( [A-Za-z0-9_./+=@%~^-]+)*")


def data(profile: Profile) -> dict[str, Any]:
    """The whole profile, defaults included, as plain data in the profile format."""
    return dict(section(Profile).show(profile))


def text(loaded: Loaded) -> str:
    """The whole profile as YAML with a comment beside each value: its file and line, `--set` or `default`."""
    lines = [*_lines(data(loaded.profile), "", "", loaded.origins)]
    width = min(max(len(line) for line, _ in lines), 60)
    body = "\n".join(f"{line:{width}}  # {origin}" if origin else line for line, origin in lines)
    return f"# {loaded.profile.purpose}\n{body}\n" if loaded.profile.purpose else f"{body}\n"


def _lines(
    value: Mapping[str, Any], indent: str, path: str, origins: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        at = f"{path}.{name}" if path else name
        head = f"{indent}{scalar(name)}:"
        if isinstance(item, dict) and item:
            yield head, ""
            yield from _lines(item, f"{indent}  ", at, origins)
        elif isinstance(item, list) and item:
            yield head, ""
            for index, entry in enumerate(item):
                yield f"{indent}  - {_flow(entry)}", _origin(f"{at}[{index}]", origins)
        else:
            yield f"{head} {_flow(item)}", _origin(at, origins)


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """Where a path was written, or what holds it; `default` when no file says it."""
    return origins.get(path) or origins.get(path.partition("[")[0]) or "default"


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return scalar(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=False)


def scalar(value: str) -> str:
    """A text as a scalar: plain where YAML reads the same text, else in quotes."""
    plain = Scalar(text=value, plain=True, origin=COMMAND_LINE)
    if _PLAIN.fullmatch(value) and not guessed(value) and not is_null(plain):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    # JSON leaves these as they are, YAML does not allow them.
    return re.sub("[\x7f-\x9f\ufeff\ufffe\uffff]", lambda bad: f"\\u{ord(bad[0]):04x}", quoted)
