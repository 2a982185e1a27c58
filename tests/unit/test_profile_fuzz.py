"""Whatever a file holds: problems with a place, or a profile; never a traceback."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k3img.errors import ProfileError
from k3img.profile import show
from k3img.profile.load import Loaded, load
from k3img.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent / "bad_profiles"
SEEDS = sorted(FOLDER.glob("*.yaml"))

SNIPPETS = (
    *(
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        "? ",
        "#",
        "\n",
        "\t",
        "  ",
        "&a ",
        "*a",
        "!!str ",
        "!x ",
        "|\n",
        ">-\n",
    ),
    *(
        "<<: ",
        "---\n",
        "...\n",
        "%YAML 1.1\n",
        '"',
        "'",
        "\\",
        "\\x",
        '"\\uD800"',
        '"\\U00110000"',
        "null",
        "~",
    ),
    *(
        "true",
        "1.30",
        "010",
        "1e999",
        "11:22",
        "2026-13-45",
        "0x",
        "=",
        "+",
        "+:",
        "extends: x\n",
        "\x00",
        "\x85",
    ),
    *("\u2028", "\ufeff", "\U0001f600", "9" * 5000, "{}", "[]", "[[]]", "{a: {}}", "a.b", "k3s:", "nodes:"),
)


def mutated(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.randint(0, len(text)) for _ in range(2))
        match chance.randrange(5):
            case 0:
                text = text[:at] + chance.choice(SNIPPETS) + text[at:]
            case 1:
                text = text[:at] + text[min(to, at + 8) :]
            case 2:
                text = text[:at] + chance.choice(SNIPPETS) + text[min(to, at + 8) :]
            case 3:
                text = text[:at] + text[at:to] * 2 + text[to:]
            case _:
                lines = text.splitlines(keepends=True)
                chance.shuffle(lines)
                text = "".join(lines)
    return text


def attempted(file: Path, tree: Tree, overrides: tuple[tuple[str, str], ...] = ()) -> Loaded | list[str]:
    """A profile, or the lines that say why there is none."""
    try:
        return load(file, tree, overrides)
    except ProfileError as error:
        return [str(problem) for problem in error.problems]


def assert_readable(lines: list[str]) -> None:
    assert lines
    for line in lines:
        assert line.startswith(("profiles/", "--set"))
        assert "\n" not in line
        line.encode()


@pytest.fixture
def attempt(tree: Tree) -> Callable[[bytes], None]:
    (tree.profiles / "parent.yaml").write_text((FOLDER / "parent.yaml").read_text())
    file = tree.profiles / "fuzz.yaml"

    def one(data: bytes) -> None:
        file.write_bytes(data)
        found = attempted(file, tree)
        if isinstance(found, Loaded):
            # What is shown must be the same profile again.
            file.write_text(show.text(found))
            assert load(file, tree).profile.k3s == found.profile.k3s
        else:
            assert_readable(found)

    return one


@pytest.mark.parametrize("seed", range(8))
def test_mutated_profiles(attempt: Callable[[bytes], None], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        text = chance.choice(SEEDS).read_text()
        attempt(mutated(text, chance).encode(errors="surrogatepass"))


def test_random_bytes(attempt: Callable[[bytes], None]) -> None:
    chance = random.Random(1)
    for _ in range(100):
        attempt(chance.randbytes(chance.randint(0, 300)))
        attempt("".join(chance.choices(SNIPPETS, k=12)).encode(errors="surrogatepass"))


def test_random_overrides(tree: Tree) -> None:
    file = tree.profiles / "parent.yaml"
    file.write_text((FOLDER / "parent.yaml").read_text())
    chance = random.Random(2)
    keys = (
        "os",
        "os.packages+",
        "cluster.nodes.a",
        "k3s.server.tls-san",
        "a..b",
        "+",
        ".",
        "image.slot",
        "name",
    )
    for _ in range(200):
        value = "".join(chance.choices(SNIPPETS, k=chance.randint(0, 3)))
        found = attempted(file, tree, ((chance.choice(keys), value),))
        if not isinstance(found, Loaded):
            assert_readable(found)


def test_the_seeds_are_there() -> None:
    assert len(SEEDS) > 40
    assert Tree(root=FOLDER, cache=FOLDER).profile("parent") == FOLDER / "profiles/parent.yaml"
