"""The scenarios of `k3img verify`: what of tests/image each runs, and what it proves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3img.profile.boards import Board

if TYPE_CHECKING:
    from collections.abc import Iterable

STANDARD, FIRST_BOOT, LINK_DOWN, HARDWARE, SSH = "standard", "first-boot", "link-down", "hardware", "ssh"
BOOT_CHAIN = "boot-chain"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """`parts` are paths below tests/image; `boards` are those whose images it is for.

    A `special` one needs a profile of its own, so that `all` leaves it out.
    """

    parts: tuple[str, ...]
    purpose: str
    boards: tuple[Board, ...] = tuple(Board)
    special: bool = False


def _lab(name: str, purpose: str) -> Scenario:
    return Scenario(parts=(f"lab/test_{name.replace('-', '_')}.py",), purpose=purpose, boards=(Board.UEFI,))


CLUSTERS = {
    name: _lab(name, purpose)
    for name, purpose in {
        "join": "a server and two agents become Ready; their pods reach each other",
        "wrong-token": "a node that the server refuses, and one that was seeded for another cluster",
        "any-order": "agents have power minutes before their server",
        "ha": "the first of three servers is killed: another one answers, and it comes back",
        "reflash-agent": "an agent's medium is written anew: it joins under its name",
        "reflash-server": "an etcd member's medium is written anew: it takes its place among three",
        "initializer-reflashed": "the first server's medium is written anew: it makes no second cluster",
        "reflash-only-server": "the only server's medium is written anew: its agents come back untouched",
        "lost-seed": "a seed that is gone or bad: no cluster at first boot, no halt afterwards",
        "factory-reset": "an agent and the first server start over and join again; a power cut in between",
        "bad-node-yaml": "mistakes are told on the card with their lines; corrected, it boots",
        "moved": "DHCP gives the server another address: its agents and the laptop follow",
        "offline": "no internet, no default route, an agent's cable missing at first",
        "two-clusters": "two clusters of the same names in one network keep apart",
        "wait": "k3img wait from a laptop beside the nodes, and from behind a router",
        "quorum-lost": "two of three servers are gone, then all addresses: a file on one card saves the data",
        "no-ntp": "clocks that begin in 1970, and jump by 300 days on running nodes",
        "changed-node-yaml": "what a corrected node.yaml may change on a node that ran, and what it may not",
        "full-disk": "root is filled to the last block, and emptied again",
        "second-initializer": "refused when the profile is read",
        "shared-seed": "agents whose media are written alike, told apart by their cards",
        "power-cut": "the power fails at five points of a joiner's first boots",
        "external-postgres": "two servers on a real PostgreSQL, which is restarted",
    }.items()
}
"""Scenarios of several machines, which need a network of their own (`k3img.vm.lab`)."""

BEDS = {"join": "one server", "wrong-token": "one server"}
"""Scenarios of one bed, asked for one after the other, share its machines: a server's first minutes are most
of what they take."""

SCENARIOS = {
    STANDARD: Scenario(
        parts=("standard",),
        purpose="one machine's life: first boot, Ready, a pod, a power cut, a reboot, flipped bytes",
        boards=(Board.UEFI,),
    ),
    FIRST_BOOT: Scenario(
        parts=("standard/test_1_first_boot.py", "standard/test_3_cluster.py"),
        purpose="first boot up to a running pod",
    ),
    LINK_DOWN: Scenario(
        parts=("link_down",), purpose="first boot without a network cable", boards=(Board.UEFI,)
    ),
    HARDWARE: Scenario(
        parts=("hardware",), purpose="boots from other disk controllers and cards", boards=(Board.UEFI,)
    ),
    SSH: Scenario(parts=("ssh",), purpose="ssh with a real client; for a profile with os.ssh", special=True),
    BOOT_CHAIN: Scenario(
        parts=("boot_chain",), purpose="a Raspberry Pi's boot chain from u-boot.bin on", boards=(Board.RPI4,)
    ),
    **CLUSTERS,
}

USUAL = {Board.UEFI: (STANDARD,), Board.RPI4: (BOOT_CHAIN, FIRST_BOOT)}
"""What is run for a board when nobody says. A Pi's /usr and root boot on QEMU's `virt` machine as well."""


def for_board(board: Board) -> tuple[str, ...]:
    """Every scenario that an image for a board can pass. `standard` begins with `first-boot`."""
    fit = (name for name, scenario in SCENARIOS.items() if board in scenario.boards and not scenario.special)
    return tuple(name for name in fit if name != FIRST_BOOT or board is not Board.UEFI)


def runs(names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Scenarios in the order in which they were asked for; those that share a bed together, in ours."""
    groups = itertools.groupby(names, key=lambda name: BEDS.get(name, name))
    return tuple(tuple(sorted(set(group), key=list(SCENARIOS).index)) for _, group in groups)
