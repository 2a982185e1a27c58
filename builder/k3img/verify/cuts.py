"""Power cuts of a node in the lab, as soon as its medium or its console shows a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.image import gpt

if TYPE_CHECKING:
    from collections.abc import Callable

    from k3img.verify.lab import LabCluster, Member

    Point = Callable[[LabCluster, Member], bool]


def cut(shop: LabCluster, name: str, point: Point, *, timeout: float) -> None:
    """Switch a node on, and cut its power when it comes to a point, which may take so many seconds.

    Raises `WaitError` when it does not come to it.
    """
    member = shop[name]
    member.machine.start()
    shop.wait_until(
        point.__name__, lambda: point(shop, member), timeout=timeout, every=0.05, evidence=shop.told
    )
    shop.power_off(name)


def has_root(member: Member) -> bool:
    """Whether the medium's partition table has a root partition."""
    return any(part.kind.startswith("root") for part in gpt.read(member.medium))


def has_token(shop: LabCluster, member: Member) -> bool:
    """Whether the agents' token is anywhere on the card."""
    return member.card.contains(shop.kept.secrets.agent_token.encode())
