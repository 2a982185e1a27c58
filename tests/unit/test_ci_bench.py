"""The table of ci/bench and what it takes out of verify's report."""

from __future__ import annotations

from typing import Any

from ci import bench, bench_rows
from ci.bench_rows import Row, Samples

REPORT: dict[str, Any] = {
    "accel": "tcg",
    "numbers": {"memory used": "690 MiB", "memory of the machine": "4096 MiB"},
    "timeline": [
        {
            "boot": "first boot",
            "spans": [
                {"name": "userspace", "kind": "userspace", "start": 30.0, "end": 61.5},
                {"name": "k3s.service", "kind": "unit", "start": 40.0, "end": 80.0},
            ],
            "marks": [{"name": "API ready", "at": 70.2}, {"name": "node Ready", "at": 88.0}],
        },
        {"boot": "after the power cut", "spans": [], "marks": [{"name": "node Ready", "at": 61.0}]},
    ],
}


def test_boot_rows() -> None:
    later = REPORT | {"timeline": [REPORT["timeline"][0] | {"marks": [{"name": "node Ready", "at": 96.0}]}]}
    rows = {row.name: row for row in bench.boot_rows([REPORT, later])}
    assert list(rows) == [
        "first boot: multi-user",
        "first boot: API ready",
        "first boot: node Ready",
        "after the power cut: node Ready",
        "memory used, idle",
    ]
    ready = rows["first boot: node Ready"]
    assert (ready.value, ready.samples, ready.goal, ready.met) == (92.0, (88.0, 96.0), 90.0, False)
    assert rows["first boot: multi-user"].value == 61.5
    assert rows["after the power cut: node Ready"].met is False
    assert (rows["memory used, idle"].value, rows["memory used, idle"].met) == (690, True)


def test_a_goal_is_said_to_be_met_or_not_and_never_fails() -> None:
    rows = [
        Row(name="cold build, k3img : plain mkosi", value=1.234, unit="x", goal=1.1),
        Row(name="one changed file, k3img", value=15, unit="s", goal=15, samples=(14, 16), note="image 9"),
        Row(name="one changed file, plain mkosi", value=30, unit="s"),
    ]
    assert bench_rows.table(rows)[1:] == [
        "cold build, k3img : plain mkosi                1.23 x       1.1  NOT MET",
        "one changed file, k3img                        15.0 s        15  met",
        "    each: 14, 16",
        "    image 9",
        "one changed file, plain mkosi                  30.0 s",
    ]


def test_the_median_of_all_runs_counts() -> None:
    samples = Samples(seconds={"build": [10.0, 30.0, 11.0]})
    assert samples.row("build", goal=12) == Row(
        name="build", value=11.0, unit="s", goal=12, samples=(10.0, 30.0, 11.0)
    )


def test_sizes() -> None:
    about = {"files": {"x86.raw": {"size": 9}, "x86.raw.zst": {"size": 118_000_000}}}
    assert bench_rows.packed(about) == 118_000_000
    assert bench_rows.megabytes(".raw.zst", 118_000_000, goal=120).value == 118.0
    assert bench_rows.in_words({"Looking for tools": 0.1, "mkosi": 62.3}) == "mkosi 62"
