"""The profile format as a JSON Schema, for editors. It follows the dataclasses, as reading does."""

from __future__ import annotations

from typing import Any

from k3img.profile.model import Profile
from k3img.profile.tables import section

_NAME = {"type": "string"}


def schema() -> dict[str, Any]:
    """The schema of a profile's file (draft 2020-12). Rules about several keys are for `k3img check`."""
    body = section(Profile).schema()
    extends = {
        "description": "The profiles in the same folder that this one starts from.",
        "anyOf": [_NAME, {"type": "array", "items": _NAME}],
    }
    body["properties"] = {"extends": extends, **body["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "k3img profile",
        "description": "One YAML file that becomes an immutable OS image with k3s.",
        **body,
    }
