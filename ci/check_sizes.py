"""Modules stay under 400 lines and functions under 60; ruff has rules for statements, not for lines.

A test's module may be longer: it is read one test at a time.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

MODULE, FUNCTION = 400, 60


def too_long(file: Path) -> list[str]:
    """The complaints about one file."""
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    found = []
    if lines > MODULE and "tests" not in file.parts:
        found.append(f"{file}: {lines} lines, at most {MODULE}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION:
                found.append(f"{file}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION}")
    return found


def main(folders: list[str]) -> int:
    """Print every complaint; 1 when there is one."""
    complaints = [
        line for name in folders for file in sorted(Path(name).rglob("*.py")) for line in too_long(file)
    ]
    for line in complaints:
        print(line)  # noqa: T201 - a script for people
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
