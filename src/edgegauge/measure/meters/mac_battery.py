"""The battery gauge of a Mac, from `ioreg`: power out of the battery, which feeds everything.

    ioreg -rw0 -c AppleSmartBattery    "Voltage" = 11696 (mV), "InstantAmperage" = ... (mA)

ioreg prints the signed current as an unsigned 64-bit number: 18446744073709550178 is -1438 mA.
Discharging is negative, so P = -V I. Every reading needs `ExternalConnected` = No: with a charger
the battery says nothing about the device.

How often the gauge is renewed is not documented: 15 s is stated, and only renewed values are
returned, so that the readings show the true period; where that is longer, a flag says so.
`AppleRawCurrentCapacity` (mAh) is not used as a counter: it is the gauge's estimate of what is
left, which it corrects in jumps.
"""

from __future__ import annotations

import re
import statistics
from itertools import pairwise

from edgegauge.energy import MeterFacts
from edgegauge.host.tree import integer
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.misses import Misses

COMMAND = ("ioreg", "-rw0", "-c", "AppleSmartBattery")
PROPERTY = re.compile(r'^[\s|]*"([A-Za-z]{1,64})" = ([0-9A-Za-z-]{1,32})\s*$', re.M)
"""Properties of the battery itself; those of nested tables have no spaces around `=`."""

PERIOD_S = 15.0
VOLTS = (2.0, 60.0)
MAX_A = 50.0


def properties(text: str) -> dict[str, str]:
    """The battery's own properties by name."""
    return dict(PROPERTY.findall(text))


def signed(text: str | None) -> int | None:
    """A number that ioreg printed as unsigned 64-bit two's complement, or with its sign."""
    value = integer(text)
    if value is None or not -(2**63) <= value < 2**64:
        return None
    return value - 2**64 if value >= 2**63 else value


def discharge_w(found: dict[str, str]) -> float | None:
    """Watts out of the battery; None where the gauge says nothing plausible."""
    current = signed(found.get("InstantAmperage"))
    if current is None:
        current = signed(found.get("Amperage"))
    volts = (integer(found.get("Voltage")) or 0) / 1000
    if current is None or not VOLTS[0] < volts < VOLTS[1] or not 0 < -current / 1000 < MAX_A:
        return None
    return volts * -current / 1000


class MacBatteryMeter:
    """The gauge; `read` returns a value only when the gauge has renewed it."""

    poll_s = 2.0

    def __init__(self, machine: Machine) -> None:
        self.facts = FACTS
        self._machine = machine
        self._last: tuple[str | None, ...] | None = None
        self._changed_s: list[float] = []
        self._misses = Misses()

    def read(self) -> Reading | None:
        """Watts out of the battery; MeterLost once a charger is connected."""
        before = self._machine.clock.now_s()
        text = self._machine.tree.output(*COMMAND)
        after = self._machine.clock.now_s()
        found = properties(text or "")
        if found.get("ExternalConnected") == "Yes":
            raise MeterLost("a charger was connected")
        power = discharge_w(found)
        if power is None or found.get("ExternalConnected") != "No":
            self._misses.missed("the battery gauge did not report a discharge")
            return None
        self._misses.seen()
        keys = ("Voltage", "InstantAmperage", "Amperage", "UpdateTime")
        told = tuple(found.get(key) for key in keys)
        if told == self._last:
            return None
        self._last = told
        self._changed_s.append((before + after) / 2)
        return Reading(self._changed_s[-1], power, took_s=after - before)

    def flags(self) -> list[Flag]:
        """How often the gauge was renewed, where that is not what was assumed."""
        gaps = [b - a for a, b in pairwise(list(self._changed_s))]
        seen = statistics.median(gaps) if gaps else 0.0
        if seen <= 1.5 * PERIOD_S:
            return []
        return [Flag(f"the gauge was renewed every {seen:.0f} s; {PERIOD_S:.0f} s were assumed")]

    def close(self) -> None:
        """Nothing is held open."""


FACTS = MeterFacts(
    meter="mac-battery",
    id="mac-battery:AppleSmartBattery",
    read_from=" ".join(COMMAND),
    unit="mV x mA",
    counter=False,
    update_period_s=PERIOD_S,
    quantum=None,
    calibration_share=0.1,
    calibration="none: the battery's own gauge; 10 % assumed",
    grade="C",
    whole_device=True,
    covers=["the whole computer, from the battery"],
    excludes=["losses of charging"],
)


class MacBatteryKind:
    """The battery of a Mac that is not plugged in."""

    name = "mac-battery"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The gauge; MeterUnusable without one, or with a charger. `address` is not used."""
        text = machine.tree.output(*COMMAND)
        found = properties(text or "")
        if "ExternalConnected" not in found:
            raise MeterUnusable("there is no AppleSmartBattery here: only MacBooks have one")
        if found["ExternalConnected"] != "No":
            raise MeterUnusable("a charger is connected", hint="unplug the charger")
        if discharge_w(found) is None:
            raise MeterUnusable("the battery gauge does not report a discharge")
        return [MacBatteryMeter(machine)]
