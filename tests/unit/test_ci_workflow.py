"""What ci/full takes out of workflows and of README, and the workflows that we ship."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ci import workflow
from ci.parts import quick_start

ROOT = Path(__file__).parents[2]

WORKFLOW = """\
on: push
env: {COLOUR: red, SHAPE: round}
jobs:
  a:
    env: {COLOUR: blue, NUMBER: 1}
    steps:
      - uses: actions/checkout@v4
      - run: ci/setup
      - name: second
        shell: bash
        env: {SHAPE: flat}
        run: |
          k3img plan x86
          k3img build --profile x86
  b:
    name: real k3s (NOT YET RUN BY US)
    steps:
      - run: k3img build --digest ${{ steps.plan.outputs.digest }}
"""


def test_run_lines_in_order() -> None:
    first, second = workflow.jobs(WORKFLOW)
    assert (first.name, first.run_by_us, first.env) == (
        "a",
        True,
        {"COLOUR": "blue", "SHAPE": "round", "NUMBER": "1"},
    )
    assert [step.script for step in first.steps] == [
        "ci/setup",
        "k3img plan x86\nk3img build --profile x86\n",
    ]
    assert [step.name for step in first.steps] == ["a, step 2", "second"]
    assert first.steps[0].shell == ("sh", "-e")
    assert first.steps[1].shell == ("bash", "--noprofile", "--norc", "-eo", "pipefail")
    assert (second.name, second.run_by_us) == ("b", False)


def test_expressions_are_refused_where_we_run() -> None:
    with pytest.raises(ValueError, match="expression that only GitHub can fill in"):
        workflow.jobs(WORKFLOW.replace(" (NOT YET RUN BY US)", ""))


def test_unknown_shells_are_refused() -> None:
    with pytest.raises(ValueError, match="a, step 3: shell pwsh is not one that we run"):
        workflow.jobs(WORKFLOW.replace("shell: bash", "shell: pwsh"))


def test_steps_see_what_earlier_ones_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/bin")
    seen: list[dict[str, str]] = []

    def do(*argv: str, cwd: Path, env: dict[str, str]) -> None:
        seen.append(env)
        assert cwd == tmp_path / "clone"
        with open(env["GITHUB_ENV"], "a") as file:  # noqa: PTH123 - as a shell would
            file.write("MIRROR=/a=b\nK3IMG_CACHE=/theirs\n")
        with open(env["GITHUB_PATH"], "a") as file:  # noqa: PTH123
            file.write("/opt/new\n")

    job = workflow.jobs(WORKFLOW)[0]
    workflow.run(
        job, clone=tmp_path / "clone", scratch=tmp_path / "scratch", env={"K3IMG_CACHE": "/ours"}, do=do
    )
    first, second = seen
    assert (first["SHAPE"], first["PATH"], first.get("MIRROR")) == ("round", "/bin", None)
    assert (second["SHAPE"], second["PATH"], second["MIRROR"]) == ("flat", "/opt/new:/bin", "/a=b")
    assert [env["K3IMG_CACHE"] for env in seen] == ["/ours", "/ours"]
    assert (tmp_path / "scratch/step0.sh").read_text() == "ci/setup"


def test_quick_start_lines() -> None:
    text = "# x\n```\nno\n```\n## Quick start\nDo\n```\nci/demo    # boots it\n# and\n\nci/test\n```\nthen\n"
    text += "```sh\n. .venv/bin/activate\n```\n## Images\n```\nno\n```\n"
    assert quick_start(text) == ("ci/demo", "ci/test", ". .venv/bin/activate")
    assert quick_start("# x\n```\nno\n```\n") == ()


def test_readme_has_a_quick_start() -> None:
    lines = quick_start((ROOT / "README.md").read_text())
    assert lines[:2] == ("ci/demo", "ci/test")


def shipped() -> list[tuple[str, dict[str, Any]]]:
    files = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
    return [(file.name, yaml.safe_load(file.read_text())) for file in files]


def test_there_are_workflows_and_some_jobs_are_run_by_us() -> None:
    found = [job for _, about in shipped() for job in workflow.jobs(yaml.safe_dump(about))]
    assert any(job.run_by_us for job in found)
    assert any(not job.run_by_us for job in found)


@pytest.mark.parametrize(("name", "about"), shipped())
def test_workflows_call_only_what_a_person_can_run(name: str, about: dict[str, Any]) -> None:
    for job in about["jobs"].values():
        assert job["container"]["image"].startswith(("debian:", "buildpack-deps:trixie"))
        for step in job["steps"]:
            for command in re.split(r"\$\(|\||&&|;|\n", step.get("run", "")):
                words = command.split()
                assert (
                    not words or words[0] in ("echo", "tail") or re.match(r"ci/|\.venv/bin/k3img$", words[0])
                )


def test_the_workflow_names_the_version_that_ci_runtime_builds() -> None:
    version = re.search(r"^VERSION=(\S+)", (ROOT / "ci/runtime").read_text(), flags=re.MULTILINE)
    assert version
    (about,) = [about for _, about in shipped()]
    assert about["jobs"]["standin"]["env"]["VERSION"] == version[1]
