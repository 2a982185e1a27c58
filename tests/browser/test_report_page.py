"""The report's page in a real browser: no console errors, nothing fetched, nothing to scroll sideways."""

from __future__ import annotations

import html
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from k3img import proc
from k3img.verify.page import to_html
from k3img.verify.report import Check, ConsoleLine, Outcome, Report
from k3img.verify.timeline import Boot, Kind, Mark, Span

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((name for name in NAMES if proc.which(name)), "")

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(not BROWSER, reason="no chromium here (apt-get install chromium)"),
]

PHONE, DESK = 390, 1280

# Shows a page in a frame of a phone's width and says what the browser made of it.
PROBE = """<!doctype html><title>probe</title>
<iframe id=f src="page.html" style="width:{width}px;height:800px;border:0"></iframe>
<pre id=out></pre>
<script>
document.getElementById("f").onload = event => {{
  const page = event.target.contentWindow, all = [...page.document.querySelectorAll("main *")];
  const seen = all.filter(e => e.getClientRects().length && getComputedStyle(e).display != "none");
  document.getElementById("out").textContent = JSON.stringify({{
    width: page.document.documentElement.scrollWidth,
    wide: seen.filter(e => e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 90)),
    small: seen.filter(e => parseFloat(page.getComputedStyle(e).fontSize) < 10).length,
    fetched: page.performance.getEntriesByType("resource").map(e => e.name),
    title: page.document.title,
  }});
}};
</script>
"""


def report() -> Report:
    """A report with everything in it that is long, odd or hostile."""
    spans = (
        Span(name="firmware", kind=Kind.FIRMWARE, start=0, end=4),
        Span(name="boot loader", kind=Kind.LOADER, start=4, end=6.5),
        Span(name="kernel", kind=Kind.KERNEL, start=6.5, end=12),
        Span(name="initrd", kind=Kind.INITRD, start=12, end=27),
        Span(name="userspace", kind=Kind.USERSPACE, start=27, end=98),
        Span(
            name="a-unit-with-quite-a-long-name-persistent-storage.service", kind=Kind.UNIT, start=30, end=31
        ),
        Span(name="k3s.service", kind=Kind.UNIT, start=38, end=81),
    )
    marks = (Mark(name="API ready", at=0.5), Mark(name="node Ready", at=92), Mark(name="pod Running", at=121))
    hostile = "<script>alert(1)</script><img src='http://192.0.2.1/x.png'>" + "wide" * 200
    return Report(
        profile="x86-with-a-long-name",
        version="20261125.0037",
        file="x86_20261125.0037.raw",
        sha256="9f86d081884c7d65" * 4,
        runtime="v1.36.3+standin1",
        standin=True,
        accel="tcg",
        qemu="10.0.13",
        began="2026-11-25T00:51:00+00:00",
        seconds=732,
        checks=tuple(
            Check(
                name=f"{outcome} {hostile[:90]}",
                group=f"Group {number % 2}",
                outcome=outcome,
                evidence=hostile,
            )
            for number, outcome in enumerate(Outcome)
        ),
        timeline=(Boot(name="first boot", spans=spans, marks=marks),),
        numbers={"memory used": "641 MiB"},
        notes=("a note of some length, " * 8,),
        console=tuple(ConsoleLine(life=0, at=number, text=hostile) for number in range(50)),
    )


def browse(folder: Path, page: str, width: int) -> tuple[dict[str, Any], list[str]]:
    """What the browser found, and what it wrote to its console."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    (folder / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    lines: list[str] = []
    dom = proc.run(
        [
            BROWSER,
            "--headless=new",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            f"--window-size={max(width, 600)},900",
            "--virtual-time-budget=3000",
            "--dump-dom",
            (folder / "probe.html").as_uri(),
        ],
        timeout=120,
        on_line=lines.append,
    )
    found = re.search(r"<pre id=\"out\">(.*?)</pre>", dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1])), [line for line in lines if "CONSOLE" in line]


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_page(tmp_path: Path, width: int) -> None:
    found, console = browse(tmp_path, to_html(report()), width)
    assert found["title"].endswith("x86-with-a-long-name 20261125.0037")
    assert console == []
    assert found["fetched"] == []
    assert found["wide"] == []
    assert found["width"] <= width
    assert found["small"] == 0, "text that nobody can read"


def test_the_probe_notices_what_is_wrong(tmp_path: Path) -> None:
    page = (
        "<title>bad</title><main><div style='width:900px;font-size:6px'>x</div></main>"
        "<img src='http://192.0.2.1/x.png'><script>console.error('no'); nothing()</script>"
    )
    found, console = browse(tmp_path, page, PHONE)
    assert found["width"] > PHONE
    assert len(found["wide"]) == 1
    assert found["small"] == 1
    assert found["fetched"] == ["http://192.0.2.1/x.png"]
    assert len(console) >= 2
