"""Progress in a log: lines where something takes long, none where it does not."""

from __future__ import annotations

import pytest

from k3img import log


@pytest.mark.parametrize(
    ("seconds", "lines"), [(0.1, []), (0.5, ["40 %", "80 %"]), (2.0, [f"{n} %" for n in range(10, 101, 10)])]
)
def test_lines_come_as_slowly_as_people_read(
    seconds: float, lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr("k3img.log.time.monotonic", lambda: now)
    with log.progress("sha256", 10_000_000) as advance:
        for _ in range(10):
            now += seconds
            advance(1_000_000)
    assert capsys.readouterr().err.splitlines() == [f"sha256: {text} of 10 MB" for text in lines]
