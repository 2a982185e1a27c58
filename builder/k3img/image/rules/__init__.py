"""What every finished image must fulfil, each rule with the failure in the field that it prevents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.image.rules import boot, content, manifest, pi

if TYPE_CHECKING:
    from k3img.image.rules.model import Rule

RULES: tuple[Rule, ...] = (*boot.RULES, *pi.RULES, *manifest.RULES, *content.RULES)
"""All of them, in the order in which they are told."""
