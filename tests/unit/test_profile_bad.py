"""Each mistake in bad_profiles/NAME.yaml has its exact words in NAME.txt, whatever loads it."""

from __future__ import annotations

import json
import zoneinfo
from pathlib import Path

import jsonschema
import pytest
import yaml

from k3img.errors import ProfileError
from k3img.profile.load import examine, load
from k3img.profile.schema import schema
from k3img.tree import Tree

FOLDER = Path(__file__).parent / "bad_profiles"
CASES = sorted(file.stem for file in FOLDER.glob("*.txt"))
VALIDATOR = jsonschema.Draft202012Validator(schema())
BAD = Tree(root=FOLDER, cache=FOLDER / "none")

# What one key alone shows to be wrong, so that an editor with the schema underlines it.
FOR_EDITORS = (
    *("unknown-keys", "version-number", "yaml-traps", "wrong-types", "no-values", "enums", "name-too-long"),
    *("name-upper", "sizes", "packages", "os-values", "a-list", "a-text", "k3s-version", "k3s-options"),
    *(
        "owned-options",
        "datastore-clear",
        "datastores",
        "datastore-none",
        "datastore-word",
        "twice",
        "update",
    ),
    *("null-node", "append-scalar", "secrets"),
)


def has_time_zones() -> bool:
    try:
        zoneinfo.ZoneInfo("Europe/Berlin")
    except zoneinfo.ZoneInfoNotFoundError:
        return False
    return True


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_every_problem_is_told_in_its_words(name: str) -> None:
    if name == "timezone" and not has_time_zones():
        pytest.skip("this machine has no time zone database to compare with")
    found = examine(FOLDER / f"{name}.yaml", BAD)
    assert [str(problem) for problem in found.problems] == (FOLDER / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize("name", [name for name in CASES if name != "timezone"])
def test_load_raises_all_errors_at_once(name: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load(FOLDER / f"{name}.yaml", BAD)
    told = [line for line in (FOLDER / f"{name}.txt").read_text().splitlines() if ": warning: " not in line]
    assert {str(problem) for problem in caught.value.problems} >= set(told)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", FOR_EDITORS)
def test_the_schema_refuses_what_it_can_express(name: str) -> None:
    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert not VALIDATOR.is_valid(json.loads(json.dumps(data, default=str)))


def test_no_secret_is_repeated() -> None:
    found = examine(FOLDER / "secrets.yaml", BAD)
    assert found.errors
    assert not [problem for problem in found.problems if "hunter2" in str(problem) or "pw" in problem.what]
