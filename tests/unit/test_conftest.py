"""The guard that keeps unit tests from starting programs, and the fakes that they may start."""

from __future__ import annotations

import os
import subprocess  # noqa: TID251 - to see the guard stop it
from typing import Any

import pytest

from k3img.proc import run


def test_no_program_is_started() -> None:
    for start in (
        lambda: run(["true"]),
        lambda: subprocess.run(["true"], check=False),
        lambda: os.system("true"),  # noqa: S605
    ):
        with pytest.raises(pytest.fail.Exception, match="a unit test starts a program"):
            start()


def test_a_fake_program_is_started(fake_program: Any) -> None:
    fake_program.add("mkosi", "echo 25.3")
    assert run(["mkosi", "--version"]) == "25.3\n"
    assert fake_program.calls("mkosi") == ["--version"]
    with pytest.raises(pytest.fail.Exception, match="a unit test starts a program"):
        run(["true"])


@pytest.mark.programs
def test_a_marked_test_may_start_programs() -> None:
    assert run(["echo", "hello"]) == "hello\n"
