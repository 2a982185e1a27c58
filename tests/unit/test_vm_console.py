"""The console's log as it grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from k3img.vm.console import ConsoleLog, plain, told

if TYPE_CHECKING:
    from pathlib import Path

OVMF = "\x1b[2J\x1b[01;01H\x1b[=3h\x1b[!p\x1b]104\x07\x1b[?7hBdsDxe: starting Boot0001\r\n"


def test_plain() -> None:
    assert plain(OVMF) == "BdsDxe: starting Boot0001\n"
    assert plain("[\x1b[0;32m  OK  \x1b[0m] up\r\r\nnext\r\n") == "[  OK  ] up\nnext\n"
    assert plain("50 %\r100 %\n") == "50 %\n100 %\n"
    assert plain("tab\there \x00\x07\x7fend") == "tab\there end"


def test_what_says_something() -> None:
    text = (
        "[  OK  ] up\n\n[ ***  ] (1 of 3) Job k3s.service/start running (1min 12s / no limit)\n"
        "[*     ] Job dev-x.device/start running (5s / 1min 30s)\n  \n[FAILED] down\n"
    )
    assert told(text) == ["[  OK  ] up", "[FAILED] down"]


def texts(log: ConsoleLog) -> list[str]:
    return [line.text for line in log.lines()]


def test_lines_come_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"of an earlier boot\n")
    log = ConsoleLog(path)
    log.look()
    assert texts(log) == []
    with path.open("ab") as file:
        file.write(b"first\r\r\nsec")
        file.flush()
        log.look()
        assert texts(log) == ["first", "sec"]
        file.write("ond gr\u00fc".encode()[:-1])
        file.flush()
        log.look()
        file.write("\u00fc".encode()[1:] + b"n\n\r\nthird\n")
        file.flush()
        log.look()
    assert texts(log) == ["first", "second gr\u00fcn", "third"]


def test_a_line_has_the_time_of_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with ConsoleLog(path) as log:
        before = time.monotonic()
        path.write_bytes(b"a")
        log.look()
        middle = time.monotonic()
        time.sleep(0.02)
        with path.open("ab") as file:
            file.write(b"b\nc\n")
        log.look()
    first, second = log.lines()
    assert (first.text, second.text) == ("ab", "c")
    assert before <= first.at <= middle < second.at


def test_no_log_yet(tmp_path: Path) -> None:
    with ConsoleLog(tmp_path / "none") as log:
        assert log.lines() == ()
