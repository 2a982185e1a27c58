"""k3img-status tells people how the node is, and minds the clock.

Told on every console, and in `status.txt` on the seed partition, each time the state changes and not
otherwise. Written to the FAT only once a state has lasted: an ordinary boot mounts it once. It looks until
there is nothing to wait for, leaves word of what it told, and ends; a timer starts it again now and then.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from k3img.device import address, clock, files, image, links, mdns, observe, probe, report
from k3img.device.bootstrap import mark_bootstrapped
from k3img.device.links import Address
from k3img.device.observe import Mood, Seen, View
from k3img.device.probe import NodeState
from k3img.device.seedpart import SeedUnreadableError, opened
from k3img.node import names
from k3img.node.medium import KUBECONFIG, STATUS
from k3img.node.model import Role

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from k3img.device.kube import Client
    from k3img.device.outcome import Outcome
    from k3img.device.place import Place
    from k3img.device.system import System

TICK, TROUBLE = 3.0, 30.0
"""Seconds between two looks, and after one that broke."""

TOLD = "status.json"
"""In `/run/k3img`: what was told last, for the next start."""

UNIT_EVERY = 5
"""k3s' unit is asked for at every so many looks while it starts."""

MISSES = 5
"""So many requests in a row may fail before a Ready node counts as starting again."""

LASTING = 20.0
"""Seconds that a passing state must last before it is written to the FAT."""

NAME_EVERY = 20.0
"""Seconds between two looks whether the node's name is known, and before the first one of a boot."""

SAVE_CLOCK = 3600.0
STEP = 86400.0
"""A clock that jumps further than this after k3s has started makes its certificates wrong."""


class Stopped(BaseException):
    """SIGTERM came: systemd asks us to end. Like KeyboardInterrupt, no `except Exception` may stop it."""


class Watch:
    """The loop's memory."""

    def __init__(self, place: Place, system: System) -> None:
        self.place = place
        self.system = system
        self.info = image.load(place)
        self.seen: Seen | None = None
        self.view: View | None = None
        self.since = 0.0
        self.ticks = 0
        self.missed = 0
        self.unwritten_since: float | None = None
        self.published = 0
        self.clock_saved = system.since_boot()
        self.offset: float | None = None
        self.resumed = False
        self.announced = -mdns.EVERY
        self.cluster = ""
        self._client: Client | None = None
        self._recall()
        self.named = 0.0 if self.resumed else self.system.since_boot()

    @property
    def calm(self) -> bool:
        """Nothing is under way, and all that there was to tell is told."""
        final = self.view is not None and self.view.mood in {Mood.READY, Mood.STOPPED}
        asks = self.seen is not None and 0 < self.seen.silent < observe.SILENT
        return final and not asks and not self.missed and self.unwritten_since is None

    def leave_word(self) -> None:
        """Keep for the next start what would else be told or done twice."""
        if self.view is None:
            return
        said = {
            "view": asdict(self.view),
            "since": self.since,
            "silent": self.seen.silent if self.seen else 0,
            "labels": self._gone(),
            "published": self.published,
            "clock_saved": self.clock_saved,
            "offset": self.offset,
            "cluster": self.cluster,
        }
        if files.write(self.place.run / TOLD, json.dumps(said), durable=False) and not self.resumed:
            clock.save(self.place, self.system)

    def _gone(self) -> dict[str, str]:
        """Labels that node.yaml has no more and the Node still has."""
        if self.seen is None or self.seen.node is None:
            return {}
        has = self.seen.node.labels
        return {key: has[key] for key in self.seen.gone_labels if key in has}

    def _recall(self) -> None:
        """Go on where an earlier start of this boot ended."""
        try:
            said = json.loads((self.place.run / TOLD).read_text())
            told = said["view"]
            addresses = tuple(Address(**item) for item in told.pop("addresses"))
            view = View(
                mood=Mood(told.pop("mood")), addresses=addresses, notes=tuple(told.pop("notes")), **told
            )
            node = NodeState(ready=True, version=view.version, labels=said["labels"])
            known = node if view.mood is Mood.READY else None
            seen = Seen(outcome=None, node=known, silent=int(said["silent"]))
            self.since, self.published = said["since"], said["published"]
            self.clock_saved, self.offset = said["clock_saved"], said["offset"]
            self.cluster = str(said["cluster"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return
        self.view, self.seen, self.resumed = view, seen, True

    def client(self) -> Client | None:
        """The API client, once there is a kubeconfig: before that, TLS need not be loaded."""
        if self._client is None and self.place.api_access().exists():
            from k3img.device.kube import Client  # noqa: PLC0415

            self._client = Client(self.place)
        return self._client

    def tick(self) -> None:
        """Look once, and tell what changed."""
        calm = self.view is not None and self.view.mood in {Mood.READY, Mood.STOPPED}
        with_unit = not calm and self.ticks % UNIT_EVERY == UNIT_EVERY - 1
        seen = observe.look(self.place, self.system, self.client(), with_unit=with_unit, previous=self.seen)
        if seen.node is not None or self.seen is None or self.seen.node is None:
            self.missed = 0
        elif self.missed < MISSES:
            # A busy API server that is late once has not stopped.
            self.missed += 1
            seen = replace(seen, node=self.seen.node)
        self.seen = seen
        self.ticks += 1
        self._tell(observe.view(self.seen), self.seen)
        self._notice_kubeconfig(self.seen)
        self._write_when_lasting(self.seen)
        self._mind_clock(self.seen)
        self._mind_node(self.seen)
        self._mind_tokens(self.seen)
        self._mind_cluster(self.seen)
        self._mind_name(self.seen)
        self._announce(self.view)

    def _tell(self, view: View, seen: Seen) -> None:
        if view == self.view:
            return
        if self.view is None or (view.mood, view.what) != (self.view.mood, self.view.what):
            self.since = self.system.now()
        self.view = view
        if self.unwritten_since is None:
            self.unwritten_since = self.system.since_boot()
        hash_ = report.usrhash(files.read_text(self.place.root / "proc/cmdline") or "")
        line = report.machine_line(seen.outcome, view, target=probe.target(self.system), usrhash=hash_)
        self.system.log(line)
        text = report.console(report.lines(self.info, seen.outcome, view, self.since), line)
        for name in console_names(self.place):
            write_console(self.place, name, text)

    def _notice_kubeconfig(self, seen: Seen) -> None:
        """k3s has renewed its certificates: the copy on the partition is old."""
        if self.view is None or self.view.mood is not Mood.READY or seen.outcome is None:
            return
        stamp = self.place.kubeconfig.stat().st_mtime_ns if self.place.kubeconfig.exists() else 0
        if seen.outcome.standalone and stamp != self.published and self.unwritten_since is None:
            self.unwritten_since = self.system.since_boot()
        self.published = stamp

    def _write_when_lasting(self, seen: Seen) -> None:
        """Write `status.txt` when a final state is reached, or a passing one has lasted."""
        if self.unwritten_since is None or self.view is None or seen.outcome is None:
            return
        final = self.view.mood in {Mood.READY, Mood.STOPPED}
        if not final and self.system.since_boot() - self.unwritten_since < LASTING:
            return
        self.unwritten_since = None
        if not seen.outcome.seed_device:
            return
        try:
            with opened(
                self.place, self.system, self.place.root / seen.outcome.seed_device.lstrip("/")
            ) as folder:
                text = report.lines(self.info, seen.outcome, self.view, self.since)
                files.overwrite(folder / STATUS, report.status_file(text, self.system.now()))
                if self.view.mood is Mood.READY:
                    self._publish(seen.outcome, self.view, folder)
        except (SeedUnreadableError, OSError) as error:
            self.system.log(f"{STATUS} could not be written: {error}")

    def _publish(self, outcome: Outcome, view: View, folder: Path) -> None:
        """The kubeconfig of a node that nobody seeded; for another one, that its datastore was made."""
        if outcome.bootstrap:
            mark_bootstrapped(self.place, folder)
        text = files.read_text(self.place.kubeconfig)
        if not outcome.standalone or text is None or not view.addresses:
            return
        made = report.kubeconfig(text + "\n", view.addresses[0].ip, outcome.node)
        files.write(folder / KUBECONFIG, made, mode=None)

    def _mind_clock(self, seen: Seen) -> None:
        """Save the time now and then; restart k3s once when it jumped by more than a day."""
        boot, now = self.system.since_boot(), self.system.now()
        if boot - self.clock_saved >= SAVE_CLOCK:
            clock.save(self.place, self.system)
            self.clock_saved = boot
        before, self.offset = self.offset, now - boot
        if before is None or abs(self.offset - before) < STEP:
            return
        clock.save(self.place, self.system)
        mark = self.place.run / "clock-stepped"
        running = seen.runs and self.place.api_access().exists()
        if not running or mark.exists() or seen.outcome is None:
            return
        files.write(mark, "")
        self._restart_k3s("the clock jumped by more than a day", seen.outcome)

    def _mind_node(self, seen: Seen) -> None:
        """Forget labels that are gone from the Node; renew the services' route that a pulled cable took."""
        if seen.node is None:
            return
        still = [key for key in seen.gone_labels if key in seen.node.labels]
        if seen.gone_labels and len(still) < len(seen.gone_labels):
            files.write(self.place.state / "gone-labels", "\n".join(still))
        if seen.addresses and links.default_route(self.place) is None:
            address.route_services(self.place, self.system, seen.addresses[0])

    def _mind_name(self, seen: Seen) -> None:
        """Others find this node by its name, which systemd-resolved may have given up."""
        if seen.outcome is None or not seen.outcome.hostname or not seen.addresses:
            return
        if self.system.since_boot() - self.named >= NAME_EVERY:
            mdns.claim(self.place, self.system, seen.outcome.hostname)
            self.named = self.system.since_boot()

    def _announce(self, view: View | None) -> None:
        """Tell the network what `status.txt` says by now; not more often than it takes."""
        if view is None or self.unwritten_since is not None:
            return
        due = self.system.since_boot() - self.announced >= mdns.EVERY
        if due and mdns.tell(self.place, self.system, str(view.mood), view.what):
            self.announced = self.system.since_boot()

    def _mind_cluster(self, seen: Seen) -> None:
        """Have an agent register anew whose cluster began anew: its kubelet does that when it starts only.

        A Node that was deleted in the same cluster is left alone: that was somebody's wish.
        """
        client = self.client()
        if client is None or seen.outcome is None or seen.outcome.role != Role.AGENT:
            return
        if seen.node is not None:
            self.cluster = self.cluster or probe.cluster(client)
            return
        now = probe.cluster(client) if self.cluster else ""
        if now and now != self.cluster:
            self.cluster = now
            self._restart_k3s("the server has a new datastore, and does not know this node", seen.outcome)

    def _restart_k3s(self, why: str, outcome: Outcome) -> None:
        self.system.log(f"{why}: k3s is restarted")
        self.system.run(["systemctl", "--no-block", "try-restart", names.unit(outcome.role)])

    def _mind_tokens(self, seen: Seen) -> None:
        """Have new join tokens taken; a unit of its own may write them."""
        troubled = seen.node is None and seen.unit.restarts > 0 and self.place.next_token.exists()
        if troubled or (seen.node is not None and seen.node.offered):
            self.system.run(["systemctl", "--no-block", "start", "k3img-tokens.service"])


def console_names(place: Place) -> tuple[str, ...]:
    """The consoles to write to: those of the kernel, a screen's first terminal in place of `tty0`."""
    active = (files.read_text(place.sys / "class/tty/console/active") or "").split()
    names = ["tty1" if name.startswith("tty0") else name for name in active]
    if (place.root / "dev/tty1").exists():
        names.append("tty1")
    return tuple(dict.fromkeys(names))


def write_console(place: Place, name: str, text: str) -> None:
    """Write to a terminal without waiting: a serial line that nobody reads must not hold us up."""
    try:
        flags = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK
        handle = os.open(place.root / "dev" / name, flags)
    except OSError:
        return
    try:
        os.write(handle, text.encode(errors="replace"))
    except OSError:
        pass
    finally:
        os.close(handle)


def run(place: Place, system: System) -> int:
    """Watch until there is nothing to wait for, or systemd ends us; the time is saved then."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    watch = Watch(place, system)
    broken = False
    try:
        while not watch.calm or not watch.ticks:
            if watch.ticks or broken:
                system.sleep(TROUBLE if broken else TICK)
            broken = False
            try:
                watch.tick()
            except Exception as error:  # noqa: BLE001 - one bad look must not end the watching
                system.log(f"{type(error).__name__}: {error}")
                broken = True
        watch.leave_word()
    except Stopped:
        clock.save(place, system)
    return 0
