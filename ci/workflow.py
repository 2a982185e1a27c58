"""Reads the jobs of a GitHub workflow, so that ci/full can run their `run:` steps in a fresh clone.

Only what our examples use: steps in order, `env`, and the files behind $GITHUB_ENV, $GITHUB_PATH and
$GITHUB_OUTPUT. `uses:` steps are GitHub's; expressions in a `run:` are refused, for we cannot fill them in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

NOT_RUN = "NOT YET RUN BY US"
"""In a job's name: ci/full leaves it out."""

# What GitHub runs a step with: without `shell` in a container, and with `shell: bash`.
_SHELLS = {"": ("sh", "-e"), "sh": ("sh", "-e"), "bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail")}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One `run:` step: its script, how its shell is started, and the environment of its own."""

    name: str
    script: str
    shell: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job's `run:` steps. `env` is the workflow's and its own; `run_by_us` is false for marked jobs."""

    name: str
    run_by_us: bool
    env: Mapping[str, str]
    steps: tuple[Step, ...]


def jobs(text: str) -> tuple[Job, ...]:
    """The jobs of a workflow, in the order of the file. Raises `ValueError` for what we cannot run."""
    data = yaml.safe_load(text)
    return tuple(_job(name, about, data.get("env") or {}) for name, about in data["jobs"].items())


def _job(name: str, about: Mapping[str, Any], outer: Mapping[str, Any]) -> Job:
    run_by_us = NOT_RUN not in str(about.get("name", ""))
    shell = ((about.get("defaults") or {}).get("run") or {}).get("shell", "")
    steps = [
        _step(f"{name}, step {number}", step, shell)
        for number, step in enumerate(about["steps"], 1)
        if "run" in step
    ]
    env = _texts({**outer, **(about.get("env") or {})})
    if run_by_us:
        for where, value in (*env.items(), *((step.name, step.script) for step in steps)):
            if "${{" in value:
                raise ValueError(f"job {name}: {where} has an expression that only GitHub can fill in")
    return Job(name=name, run_by_us=run_by_us, env=env, steps=tuple(steps))


def _step(name: str, about: Mapping[str, Any], shell: str) -> Step:
    wanted = about.get("shell", shell)
    if wanted not in _SHELLS:
        raise ValueError(f"{name}: shell {wanted} is not one that we run")
    return Step(
        name=str(about.get("name", name)),
        script=about["run"],
        shell=_SHELLS[wanted],
        env=_texts(about.get("env") or {}),
    )


def _texts(env: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in env.items()}


def run(job: Job, *, clone: Path, scratch: Path, env: Mapping[str, str], do: Callable[..., object]) -> None:
    """Run a job's steps in `clone`, in order. `env` wins over the workflow's: it keeps caches apart.

    `do(*argv, cwd=, env=)` runs a program and raises when it fails.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    files = {name: scratch / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT")}
    for file in files.values():
        file.write_text("", encoding="utf-8")
    for number, step in enumerate(job.steps):
        script = scratch / f"step{number}.sh"
        script.write_text(step.script, encoding="utf-8")
        paths = reversed(files["GITHUB_PATH"].read_text(encoding="utf-8").split())
        do(
            *step.shell, str(script),
            cwd=clone,
            env={
                **job.env,
                **read_env(files["GITHUB_ENV"].read_text(encoding="utf-8")),
                **step.env,
                "PATH": os.pathsep.join((*paths, env.get("PATH", os.environ["PATH"]))),
                **{name: str(file) for name, file in files.items()},
                "GITHUB_WORKSPACE": str(clone),
                "CI": "true",
                **{name: value for name, value in env.items() if name != "PATH"},
            },
        )  # fmt: skip


def read_env(text: str) -> dict[str, str]:
    """What steps wrote to $GITHUB_ENV: NAME=VALUE lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
