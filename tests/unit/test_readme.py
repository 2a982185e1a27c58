"""The README says what the program says."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from tests.conftest import ROOT

from k3img.cli import k3img

README = (ROOT / "README.md").read_text()


def test_the_help_block_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    block = re.search(r"<!-- help.*?-->\n```\n(.*?)```", README, re.S)
    assert block is not None
    real = CliRunner().invoke(k3img, ["--help"], terminal_width=100, prog_name="k3img").output
    assert block[1] == real


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`?k3img ([a-z]+) ", README)) - {"COMMAND"}))
def test_every_command_that_the_readme_names_exists(command: str) -> None:
    assert command in k3img.commands


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:ci|docs|profiles|tests|\.github)/[\w./-]*\w", README)))
)
def test_every_file_that_the_readme_names_exists(path: str) -> None:
    # A lock is written by the user.
    assert (ROOT / path).exists() or path.endswith(".lock.yaml")
