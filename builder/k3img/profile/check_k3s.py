"""k3s options against the table of the pinned version: those of the profile, and those of each node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k3img.node import flags
from k3img.node.check import Fault
from k3img.node.model import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k3img.node.model import Node
    from k3img.profile.model import Profile
    from k3img.profile.sink import Sink

ELSEWHERE = {"disable": "Use k3s.disable."}
"""Options that have a key of their own in a profile; beside those that k3img owns altogether."""


def check(profile: Profile, sink: Sink) -> None:
    """Report every option that its role does not know, or that is not for a profile to set."""
    k3s = profile.k3s
    if not k3s.version or not sink.clean("k3s.version"):
        return  # no version, no table; missing or bad, it has been reported
    if not flags.known(k3s.version):
        what = f"is a version whose options k3img does not know; they are checked as those of {flags.NEWEST}"
        sink.problem("k3s.version", what, warning=True)
    _options("k3s.agent", k3s.agent, k3s.version, sink, agent=True)
    _options("k3s.server", k3s.server, k3s.version, sink, agent=False)
    for name in sorted(k3s.server.keys() & k3s.agent.keys()):
        hint = "A server takes only the one under k3s.server: say it once, or append with both in mind."
        sink.problem(f"k3s.server.{name}", "is given under k3s.agent as well", hint, warning=True)
    for node in profile.cluster.nodes:
        path = f"cluster.nodes.{node.name}.options"
        _options(path, node.options, k3s.version, sink, agent=node.role is Role.AGENT)
    servers = [node for node in profile.cluster.nodes if node.role is Role.SERVER]
    if len(servers) > 1 and sink.clean("k3s.server"):
        _equal(servers, k3s.server, flags.table(k3s.version), sink)


def _options(path: str, options: Mapping[str, Any], version: str, sink: Sink, *, agent: bool) -> None:
    for name, value in options.items():
        at = f"{path}.{name}"
        fault = flags.fault(name, value, version, agent=agent)
        if name in ELSEWHERE:
            fault = Fault("has a key of its own", ELSEWHERE[name])
        if fault and sink.clean(at):
            sink.fault(at, fault)


def _equal(
    servers: list[Node], common: Mapping[str, Any], table: Mapping[str, flags.Flag], sink: Sink
) -> None:
    """k3s refuses a server whose critical options are not those of the others."""
    for flag in table.values():
        values = [node.options.get(flag.name, common.get(flag.name)) for node in servers]
        if not flag.equal or all(value == values[0] for value in values):
            continue
        for node in servers:
            path = f"cluster.nodes.{node.name}.options.{flag.name}"
            if flag.name in node.options and sink.clean(path):
                sink.problem(path, "must be the same on all servers", "Write it under k3s.server.")
