"""One battery's gauge: what it tells, its counter as joules, its power beside its counter.

    battery = Battery("BAT0")
    battery.watts(tree)                  # magnitude of the power; None where it tells none
    gauge = Gauge(battery, "energy_now", 0.0036)
    gauge.read(tree, now_s)              # joules taken since the first reading, never falling

Energy (µWh) and charge (µAh) are never mixed; charge is energy with the voltage at each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgegauge.host.power import NOMINAL_CELL_V, SUPPLIES
from edgegauge.host.tree import Tree
from edgegauge.measure.meters import Flag, MeterLost

MICRO = 1e-6
HOUR_S = 3600.0
USABLE_POINTS = 10.0
"""A counter that is so many percent off the gauge's own percentage is not one."""
LEAST_STEPS = 20
"""Steps of a counter before its power is compared with it: one step more or less is 5 % then."""
JUMP = 0.01
"""A counter that rises by that share of what it was, while discharging, was recalibrated."""
STUCK_POINTS = 2
"""The percentage fell so far while the counter never moved."""
UPDATE_S = 1.0
"""The kernel's smart-battery driver keeps values for a second (cache_time of sbs.c); the gauge
behind it may take up to a minute, which shows in the steps of the readings."""
MOST_W = 500.0
"""No device with a battery draws more."""
COARSE = {"energy": 10_000, "charge": 1_000}
"""µWh and µAh: the steps of smart batteries (10 mWh, 1 mAh); few embedded controllers are coarser.
Background knowledge, and only the first estimate: the steps of a run tell."""


@dataclass(frozen=True, slots=True)
class Battery:
    """One battery of /sys/class/power_supply and what it tells; None where it does not."""

    name: str

    def number(self, tree: Tree, key: str) -> int | None:
        """A whole number that it tells."""
        return tree.integer(f"{SUPPLIES}/{self.name}/{key}")

    def status(self, tree: Tree) -> str:
        """`Discharging`, `Charging`, `Full`, ...; `unknown` where it tells none."""
        return tree.text(f"{SUPPLIES}/{self.name}/status") or "unknown"

    def volts(self, tree: Tree) -> float | None:
        """Its voltage now."""
        microvolts = self.number(tree, "voltage_now")
        return microvolts * MICRO if microvolts and microvolts > 0 else None

    def watts(self, tree: Tree) -> float | None:
        """Magnitude of the power."""
        microwatts = self.number(tree, "power_now")
        if microwatts is not None:
            return abs(microwatts) * MICRO
        microamperes, volts = self.number(tree, "current_now"), self.volts(tree)
        if microamperes is None or volts is None:
            return None
        return abs(microamperes) * MICRO * volts

    def full_j(self, tree: Tree) -> float | None:
        """Energy of the full battery."""
        for quantity in ("energy", "charge"):
            full = self.number(tree, f"{quantity}_full")
            if not full or full < 0:
                full = self.number(tree, f"{quantity}_full_design")
            if not full or full < 0:
                continue
            design = self.number(tree, "voltage_min_design") or 0
            volts = design * MICRO if design > 0 else NOMINAL_CELL_V
            return full * MICRO * HOUR_S * (volts if quantity == "charge" else 1.0)
        return None

    def quantity(self, tree: Tree) -> str | None:
        """`energy` or `charge`, whose counter is usable; energy where both are."""
        for quantity in ("energy", "charge"):
            now = self.number(tree, f"{quantity}_now")
            if now is None or now <= 0 or not self._plausible(tree, quantity, now):
                continue
            if quantity == "energy" or self.volts(tree) is not None:
                return quantity
        return None

    def quantum_j(self, tree: Tree, quantity: str) -> float:
        """The counter's step, as far as the round numbers it tells give it away."""
        keys = (f"{quantity}_{k}" for k in ("now", "full", "full_design"))
        units = math.gcd(*(self.number(tree, key) or 0 for key in keys))
        volts = self.volts(tree) or 0.0
        joules = MICRO * HOUR_S * (volts if quantity == "charge" else 1.0)
        return min(units, COARSE[quantity]) * joules

    def _plausible(self, tree: Tree, quantity: str, now: int) -> bool:
        """Whether the counter agrees with the percentage, of the full or of the new battery."""
        percent = self.number(tree, "capacity")
        fulls = [self.number(tree, f"{quantity}_{k}") for k in ("full", "full_design")]
        known = [full for full in fulls if full and full > 0]
        if percent is None or not known:
            return True
        return any(abs(100 * now / full - percent) <= USABLE_POINTS for full in known)


class Gauge:
    """One battery's counter: joules taken since the first reading, never falling.

    A gauge that goes up and down by a step is followed at its lowest, so that nothing counts twice.
    """

    def __init__(self, battery: Battery, key: str, joules_per_unit: float | None) -> None:
        self._battery, self.key = battery, key
        self._joules = joules_per_unit
        """Of one unit; None for charge, whose energy depends on the voltage."""
        self._last: tuple[int, float] | None = None
        self._changed_s = 0.0
        self._net_j = self._most_j = 0.0
        self._moved = False
        self._jumped: str | None = None
        self._first_percent: int | None = None
        self._percent: int | None = None
        """The last one, while the counter has not moved."""

    @property
    def shown(self) -> str:
        """Where it is read: `/sys/class/power_supply/BAT0/energy_now`."""
        return f"/{SUPPLIES}/{self._battery.name}/{self.key}"

    def quantum_j(self, tree: Tree) -> float:
        """Joules of its smallest step."""
        if self.key == "capacity":
            return self._joules or 0.0
        return self._battery.quantum_j(tree, self.key.removesuffix("_now"))

    def read(self, tree: Tree, now_s: float) -> float:
        """Joules since the first reading. Raises MeterLost."""
        told = self._battery.number(tree, self.key)
        volts = self._battery.volts(tree) if self._joules is None else 1.0
        if told is None or told < 0 or volts is None:
            what = self.key if volts is not None else "voltage_now"
            raise MeterLost(f"{self._battery.name} no longer tells {what}")
        if not self._moved:
            self._percent = self._battery.number(tree, "capacity")
        if self._last is None:
            self._changed_s, self._first_percent = now_s, self._percent
        elif told != self._last[0]:
            self._step(told, volts, *self._last, now_s)
        self._last = told, volts
        return self._most_j

    def _step(self, told: int, volts: float, last: int, last_volts: float, now_s: float) -> None:
        if self._joules is None:
            taken_j = (last - told) * MICRO * HOUR_S * (volts + last_volts) / 2
        else:
            taken_j = (last - told) * self._joules
        # The first step may hold what was taken long before the first reading.
        too_fast = self._moved and taken_j > MOST_W * (now_s - self._changed_s + UPDATE_S)
        if self.key != "capacity" and (told - last > JUMP * last or too_fast):
            self._jumped = f"{self._battery.name}: {self.key} jumped from {last} to {told}"
        self._moved, self._changed_s = True, now_s
        self._net_j += taken_j
        self._most_j = max(self._most_j, self._net_j)

    def flags(self) -> list[Flag]:
        """Whether it was recalibrated, or stood still while the battery emptied."""
        found = [Flag(f"{self._jumped}: it was recalibrated", spoils=True)] if self._jumped else []
        if self._moved or self._percent is None or self._first_percent is None:
            return found
        if (fell := self._first_percent - self._percent) >= STUCK_POINTS:
            text = f"{self._battery.name}: {self.key} stood still while {fell} percent went"
            found.append(Flag(text, spoils=True))
        return found


class Check:
    """The gauge's power, integrated, beside its counter: from one step of the counter to another,
    so that the comparison does not depend on where within a step it starts."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._power_j = 0.0
        self._counted_j: float | None = None
        self._steps: list[tuple[float, float]] = []
        """The first and the last step: joules of the counter, of the power."""
        self._count = 0

    def add(self, t_s: float, counted_j: float, watts: float | None) -> None:
        """One reading of both."""
        if watts is None:
            return
        if self._last is not None:
            self._power_j += (watts + self._last[1]) / 2 * (t_s - self._last[0])
        self._last = t_s, watts
        if self._counted_j is not None and counted_j > self._counted_j:
            self._steps = [*self._steps[:1], (counted_j, self._power_j)]
            self._count += 1
        self._counted_j = counted_j

    def disagreement(self) -> float | None:
        """Power over counter, less one; None where there is too little to compare."""
        if self._count <= LEAST_STEPS:
            return None
        (first_j, first_power_j), (last_j, last_power_j) = self._steps
        return (last_power_j - first_power_j) / (last_j - first_j) - 1
