"""A node's status as text: a block for a console, one line for programs, `status.txt` for a laptop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from k3img.device.observe import Mood
from k3img.node.medium import STATUS_SIZE

if TYPE_CHECKING:
    from k3img.device.image import ImageInfo
    from k3img.device.observe import View
    from k3img.device.outcome import Outcome

MAX_NOTES = 40


def stamp(seconds: float) -> str:
    """A time, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def lines(info: ImageInfo, outcome: Outcome | None, view: View, since: float) -> tuple[str, ...]:
    """What a person reads, the most important first."""
    node = outcome.node if outcome and outcome.node else "(not named yet)"
    cluster = f", {outcome.role} of cluster {outcome.cluster}" if outcome and outcome.cluster else ""
    own = " (a cluster of its own: this medium was not seeded)" if outcome and outcome.standalone else ""
    where = ", ".join(f"{a.ip} ({a.link})" for a in view.addresses) or "none yet"
    head = {
        Mood.READY: f"Ready since {stamp(since)}",
        Mood.STARTING: f"Starting: waits for {view.what}",
        Mood.WAITING: f"Waits for {view.what}, since {stamp(since)}",
        Mood.STOPPED: f"Stopped: {view.what}",
        Mood.FAULT: f"Fault: {view.what}, since {stamp(since)}",
    }[view.mood]
    found = [f"k3img {info.profile} {info.version}".rstrip(), f"node     {node}{cluster}{own}"]
    found += [f"host     {outcome.hostname}"] if outcome and outcome.hostname != outcome.node else []
    found += [f"address  {where}", f"status   {head}"]
    found += [f"do       {view.todo}"] if view.todo else []
    found += [f"k3s      {view.version or info.runtime}"] if view.version or info.runtime else []
    found += [f"seed     {outcome.source}"] if outcome and outcome.source else []
    found += [f"note     {note}" for note in view.notes[:MAX_NOTES]]
    more = len(view.notes) - MAX_NOTES
    found += [f"note     and {more} more"] if more > 0 else []
    return tuple(found)


def machine_line(outcome: Outcome | None, view: View, *, target: str, usrhash: str) -> str:
    """The same for programs: `k3img: state=ready node=pi-1 ...`; a text with blanks comes last, in quotes.

    `target` is systemd's last target that was reached, `usrhash` verity's root hash of /usr.
    """
    pairs = {
        "state": str(view.mood),
        "node": outcome.node if outcome else "",
        "role": outcome.role if outcome else "",
        "cluster": outcome.cluster if outcome else "",
        "address": ",".join(address.ip for address in view.addresses),
        "k3s": view.version,
        "target": target,
        "usrhash": usrhash,
    }
    text = " ".join(f"{key}={value}" for key, value in pairs.items() if value)
    what = view.what.replace('"', "'").replace("\n", " ")
    return f"k3img: {text}" + (f' waits-for="{what}"' if what else "")


def console(text: tuple[str, ...], line: str) -> str:
    """A block that stands out between the kernel's lines."""
    width = 72
    body = "".join(f"  {item}\r\n" for item in text)
    return f"\r\n{'-' * width}\r\n{body}{'-' * width}\r\n{line}\r\n"


def status_file(text: tuple[str, ...], written: float) -> bytes:
    """`status.txt`: always of one size, with Windows' line ends."""
    body = "\r\n".join([*text, "", f"Written {stamp(written)}. This file is overwritten by the node.", ""])
    data = body.encode()[: STATUS_SIZE - 2].decode(errors="ignore").encode()
    return data + b" " * (STATUS_SIZE - 2 - len(data)) + b"\r\n"


def usrhash(cmdline: str) -> str:
    """The root hash of /usr that this kernel was started with."""
    return next((w.removeprefix("usrhash=") for w in cmdline.split() if w.startswith("usrhash=")), "")


def kubeconfig(text: str, address: str, node: str) -> str:
    """The admin's kubeconfig for use from elsewhere: the node's address in place of its loopback."""
    import re  # noqa: PLC0415

    body = re.sub(r"(server:\s*https://)[^\s:]+(:\d+)", rf"\g<1>{address}\g<2>", text)
    return f"# node {node}, address {address}\n# kubectl --kubeconfig kubeconfig.yaml get nodes\n{body}"
