"""The clock is never earlier than a time that has certainly passed: the image's build, the making of the
seed, the last time that this root saw.

A board without a battery clock starts in the past; certificates made then would not be valid later, and
k3s refuses to start before 1980. Only when the battery clock is missing or behind that floor does a boot
wait for NTP, for a bounded time: a machine whose clock is plausible, or that has no network, is not held up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k3img.device import files

if TYPE_CHECKING:
    from k3img.device.place import Place
    from k3img.device.system import System

SAVED = "clock"
"""In `/var/lib/k3img`: the time when it was last looked at, in Unix seconds."""

UNSURE = "clock-unsure"
"""In `/run/k3img`: the clock stands at the floor, which is all that is known."""

NTP_WAIT = 20.0
FUTURE = 4102444800
"""2100-01-01: a saved time beyond that was never right."""


def saved(place: Place) -> int:
    """The time that root saw last, 0 when it never did."""
    text = files.read_text(place.state / SAVED) or ""
    return int(text) if text.isdecimal() and int(text) < FUTURE else 0


def save(place: Place, system: System) -> None:
    """Remember the time, when it is later than what is remembered."""
    now = int(system.now())
    if saved(place) < now < FUTURE:
        files.write(place.state / SAVED, f"{now}\n")


def raise_to_floor(place: Place, system: System, known: int) -> None:
    """Set the clock to `known` or to the saved time, whichever is later, unless it is past both."""
    floor = max(known if known < FUTURE else 0, saved(place))
    if system.now() < floor:
        system.set_clock(floor)
        system.log(f"the clock was behind a time that has passed; set to {floor}")
    if _battery_clock(place) < floor:
        files.write(place.run / UNSURE, "")


def _battery_clock(place: Place) -> int:
    """What the real-time clock says; 0 without one. PID 1 may have corrected the system's clock already."""
    text = files.read_text(place.sys / "class/rtc/rtc0/since_epoch") or ""
    return int(text) if text.isdecimal() else 0


def wait(place: Place, system: System) -> bool:
    """Wait for NTP, at most `NTP_WAIT` seconds; says whether the time came."""
    end = system.since_boot() + NTP_WAIT
    while not (place.root / "run/systemd/timesync/synchronized").exists():
        if system.since_boot() >= end:
            system.log(f"no time from NTP within {NTP_WAIT:.0f} s; going on, the clock may be wrong")
            return False
        system.sleep(1)
    return True
