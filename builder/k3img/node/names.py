"""Names that the builder and the node must make alike, and where k3s answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k3img.node.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT: Final = 6443
"""Where k3s serves the API and takes nodes in."""

DIGITS: Final = 6
"""Of the CA's hash, so that two clusters of the same names on one network do not meet."""

TOKENS: Final = "k3img.io/tokens"
"""Annotation of a Node: new join tokens for it, sealed with its node password (`node/wrapped.py`)."""

TOKENS_TAKEN: Final = "k3img.io/tokens-taken"
"""Annotation of a Node: the name of the offer that it took last."""


def offer_name(offer: str) -> str:
    """By what people and programs call sealed tokens without telling them: their nonce."""
    return offer.partition(".")[0]


def untaken(annotations: Mapping[str, str]) -> str:
    """The name of the tokens that a Node is offered and has not taken, '' for none."""
    name = offer_name(str(annotations.get(TOKENS, "")))
    return "" if name == annotations.get(TOKENS_TAKEN) else name


def server_name(cluster: str) -> str:
    """A name that every server's certificate has: addresses may change, this does not."""
    return f"k3s.{cluster}.internal"


def host_name(node: str, ca_hash: str) -> str:
    """A node's host name, and so its mDNS name: with the beginning of the CA's hash, when that is known."""
    return f"{node}-{ca_hash[:DIGITS]}" if ca_hash else node


def match_key(text: str) -> str:
    """A MAC address or serial number as the name of a folder that any FAT takes."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text.strip().lower())


def unit(role: str) -> str:
    """k3s' systemd unit on a node of that role."""
    return "k3s.service" if role == Role.SERVER else "k3s-agent.service"
