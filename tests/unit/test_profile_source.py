"""Files that are no profiles at all, and the limits that keep reading quick."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from k3img.profile import source
from k3img.profile.source import Items, Scalar, Stop, Table, parse, purpose, read_text


def refused(path: Path) -> str:
    with pytest.raises(Stop) as caught:
        parse(read_text(path, "x.yaml"), "x.yaml")
    return str(caught.value.problem)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"os: {}\nname: caf\xe9\n", "x.yaml:2: byte 0xe9 is not UTF-8. Save the file as UTF-8."),
        ("name: x\n".encode("utf-16"), "x.yaml: is UTF-16, not UTF-8. Save it as UTF-8."),
        (b"a: 1\n\0", "x.yaml:2: holds the character U+0000, which is no text. Is it a text file?"),
        (b"\x7fELF\x01\x01", "x.yaml:1: holds the character U+007F, which is no text. Is it a text file?"),
        (b"\x89PNG\r\n", "x.yaml:1: byte 0x89 is not UTF-8. Save the file as UTF-8."),
        (
            b"\n\n# only comments\n",
            "x.yaml: is empty. A profile needs at least a target: see `k3img schema`.",
        ),
        (b"%FOO\n", "x.yaml:2: is no YAML: expected '<document start>', but found '<stream end>'."),
    ],
)
def test_what_is_no_yaml_text(tmp_path: Path, data: bytes, message: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    assert refused(file) == message


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.yaml"
    with file.open("wb") as out:
        out.truncate(50_000_000)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened a file of 50 MB"))
    assert refused(file) == "x.yaml: has 50000000 bytes; a profile has at most 1000000. Is it a profile?"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert refused(tmp_path) == "x.yaml: is a folder. Name a YAML file."
    assert refused(tmp_path / "pipe.yaml") == "x.yaml: is not a regular file. Name a YAML file."
    assert refused(Path("/dev/zero")) == "x.yaml: is not a regular file. Name a YAML file."
    assert refused(tmp_path / "none.yaml") == "x.yaml: cannot be read: No such file or directory."
    assert refused(tmp_path / "a\0b.yaml") == "x.yaml: cannot be read: embedded null byte."
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert refused(tmp_path / "loop.yaml") == "x.yaml: cannot be read: Too many levels of symbolic links."


def test_a_read_error_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.yaml"
    file.touch()

    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refused(file) == "x.yaml: cannot be read: Permission denied."


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: x\r\nos:\r\n  suite: trixie\r\n")
    value, problems = parse(read_text(file, "x.yaml"), "x.yaml")
    assert isinstance(value, Table)
    assert list(value.entries) == ["name", "os"]
    assert value.keys["os"].line == 2
    assert problems == []


def test_reading_stops_at_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep and multiplied values stop the parser after a few events: the rest is not even looked at."""
    seen = 0
    real = yaml.parse

    def counted(text: str, Loader: type) -> object:  # noqa: N803 - PyYAML's name
        nonlocal seen
        for event in real(text, Loader=Loader):
            seen += 1
            yield event

    monkeypatch.setattr(yaml, "parse", counted)
    with pytest.raises(Stop, match="nested more than 24 deep"):
        parse("[" * 900_000, "x.yaml")
    assert seen < 100
    seen = 0
    with pytest.raises(Stop, match="more than 50000 values"):
        parse("[" + "a," * 400_000 + "]", "x.yaml")
    assert seen < 51_000
    seen = 0
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9))
    with pytest.raises(Stop, match="more than 50000 values"):
        parse(bomb, "x.yaml")
    assert seen < 100


def test_aliases_cannot_hide_depth() -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(40))
    with pytest.raises(Stop, match="nested more than 24 deep"):
        parse(chain, "x.yaml")


def test_an_alias_is_the_value_at_its_anchor() -> None:
    value, problems = parse("a: &x [1, 2]\nb: *x\n", "x.yaml")
    assert problems == []
    assert isinstance(value, Table)
    assert isinstance(value.entries["b"], Items)
    assert value.entries["b"] == value.entries["a"]
    assert value.keys["b"].line == 2


def test_scalars_keep_their_spelling() -> None:
    value, _ = parse("""a: 1.30\nb: "1.30"\nc: 'x'\nd: |-\n  y\n""", "x.yaml")
    assert isinstance(value, Table)
    read = [(v.text, v.plain) for v in value.entries.values() if isinstance(v, Scalar)]
    assert read == [("1.30", True), ("1.30", False), ("x", False), ("y", False)]


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("pi-1", ""),
        ("v1.36.3+k3s1", ""),
        ("1.30", "is the number 1.3"),
        ("010", "is the number 8"),
        ("0x1F", "is the number 31"),
        ("11:22", "is the number 682"),
        ("1_000", "is the number 1000"),
        ("12", "is a number"),
        (".inf", "is the number inf"),
        ("9" * 5000, "is a number"),
        ("No", "is false"),
        ("on", "is true"),
        ("~", "is nothing"),
        ("", "is nothing"),
        ("2026-01-01", "is a date"),
        ("=", "is special (value)"),
    ],
)
def test_what_yaml_makes_of_a_plain_scalar(text: str, guess: str) -> None:
    assert source.guessed(text) == guess


def test_the_purpose_is_the_first_comment() -> None:
    assert purpose("# For shops\n# more\nname: x\n") == "For shops"
    assert purpose("name: x\n\n## Later \n") == "Later"
    assert purpose("name: x # no\n") == ""
