"""By what a machine finds its own in a seed that many share: its cards' MAC addresses, its serial number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files, links
from k3img.node.names import match_key

if TYPE_CHECKING:
    from collections.abc import Collection

    from k3img.device.place import Place
    from k3img.device.system import System

SERIALS = ("sys/class/dmi/id/product_serial", "sys/firmware/devicetree/base/serial-number")
"""A PC's by its firmware's tables, a Raspberry Pi's by its device tree."""

LIMIT, PAUSE = 40, 0.5
"""Looks, while the drivers of network cards come, and seconds between them."""


def find(place: Place, system: System, keys: Collection[str]) -> tuple[str, str]:
    """Which of the keys is this machine's, '' for none; and what this machine is, for people."""
    known: tuple[str, ...] = ()
    for attempt in range(LIMIT):
        if attempt:
            system.sleep(PAUSE)
        known = tuple(dict.fromkeys(map(match_key, _known(place))))
        if key := next((key for key in known if key in keys), ""):
            return key, key
    return "", ", ".join(known) or "without a network card and a serial number"


def _known(place: Place) -> list[str]:
    cards = [place.sys / "class/net" / card.name / "address" for card in links.cards(place)]
    texts = (files.read_text(path) for path in (*cards, *(place.root / name for name in SERIALS)))
    return [text.strip("\0 ") for text in texts if text]
