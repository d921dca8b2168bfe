"""The machine's battery as an energy meter: Linux laptops, UPS boards, Linux phones.

It measures the whole device, and only while it discharges: with a charger connected, whatever the
gauge says is not what the device draws, so that ends the meter. Three ways, the best one that every
battery of the machine offers:

    counter    energy_now (µWh), or charge_now (µAh) times the voltage, step by step    grade C
    power      power_now (µW), or current_now x voltage_now: sampled                    grade C
    percent    capacity (whole percent) of the energy when full                         grade D

Energy and charge are never mixed within a battery. Drivers disagree on the sign of current and
power (the kernel's text says negative when discharging; many embedded controllers tell a magnitude;
qualcomm-battmgr negates the power too), so the magnitude is taken and `status` gives the direction.
Where there is a counter the power is only compared with it; some gauges' power is far off
(linux-surface/kernel#30). The batteries of a machine are added.
"""

from __future__ import annotations

from typing import Literal

from edgegauge.energy import Grade, MeterFacts
from edgegauge.host.power import SUPPLIES, chargers_online, own_batteries
from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.gauge import HOUR_S, MICRO, MOST_W, UPDATE_S, Battery, Check, Gauge

Way = Literal["counter", "power", "percent"]

POLL_S = 0.5
DISAGREE = 0.10

CALIBRATION: dict[Way, tuple[float, str, Grade]] = {
    "counter": (
        0.05,
        "the battery's own gauge, not calibrated: makers state no tolerance of the energy; gauges "
        "state a margin of 1 to 5 % for the charge (MaxError of the TI BQ41Z50, SLUUCP8), and 5 % "
        "is allowed for",
        "C",
    ),
    "power": (
        0.10,
        "the battery's own gauge, not calibrated, and how it averages is not known: "
        "10 % is allowed for",
        "C",
    ),
    "percent": (
        0.15,
        "percent of the energy that the gauge learnt for a full battery; it is not linear: "
        "15 % is allowed for",
        "D",
    ),
}


class BatteryKind:
    """Finds the batteries of a discharging machine, as one source."""

    name = "battery"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """One meter for all batteries. Raises MeterUnusable where there is none to trust."""
        tree = machine.tree
        if address is not None:
            raise MeterUnusable(
                "batteries are read together and have no address", hint="--meter battery"
            )
        if tree.refused(SUPPLIES):
            raise MeterUnusable(f"/{SUPPLIES} is not readable (Android hides it from apps)")
        batteries = [Battery(name) for name in own_batteries(tree)]
        if not batteries:
            raise MeterUnusable("no battery here")
        if why := _not_discharging(tree, batteries):
            raise MeterUnusable(
                f"the battery is not discharging ({why}): it measures only when nothing else "
                "feeds the device",
                hint="unplug the charger",
            )
        return [BatteryMeter(machine, batteries, _way(tree, batteries))]


def _not_discharging(tree: Tree, batteries: list[Battery]) -> str | None:
    """Why the batteries do not feed the device alone; None where they do.

    Of several one may rest: it is enough that one discharges and none is charged.
    """
    if chargers := chargers_online(tree):
        return f"{', '.join(chargers)} is online"
    statuses = [battery.status(tree) for battery in batteries]
    if "Discharging" in statuses and "Charging" not in statuses:
        return None
    return f"status {', '.join(statuses)}"


def _way(tree: Tree, batteries: list[Battery]) -> Way:
    """The best way that all batteries offer. Raises MeterUnusable where they offer none."""
    if all(b.quantity(tree) for b in batteries):
        return "counter"
    watts = [b.watts(tree) for b in batteries]
    if None not in watts and any(watts):  # 0 W in all, of a device that runs, is no power
        return "power"
    if all(b.number(tree, "capacity") is not None and b.full_j(tree) for b in batteries):
        return "percent"
    names = ", ".join(b.name for b in batteries)
    if any(tree.refused(f"{SUPPLIES}/{b.name}/capacity") for b in batteries):
        raise MeterUnusable(f"{names} is present but not readable by this user")
    raise MeterUnusable(
        f"{names} tells neither a plausible energy_now or charge_now, nor a power, nor the percent "
        "of a known energy"
    )


class BatteryMeter:
    """All batteries of a machine, read in one of three ways."""

    poll_s = POLL_S

    def __init__(self, machine: Machine, batteries: list[Battery], way: Way) -> None:
        tree = machine.tree
        self._machine, self._batteries, self._way = machine, batteries, way
        self._gauges = [] if way == "power" else [_gauge(tree, b, way) for b in batteries]
        self._check = Check()
        self._flags = _margins(tree, batteries)
        self.facts = _facts(tree, batteries, way, self._gauges)

    def read(self) -> Reading:
        """Joules taken since the first reading, or watts. Raises MeterLost."""
        tree, clock = self._machine.tree, self._machine.clock
        self._still_discharging(tree)
        before = clock.now_s()
        watts = [battery.watts(tree) for battery in self._batteries]
        power = None if None in watts else sum(w or 0.0 for w in watts)
        if self._way == "power":
            value = power
        else:
            value = sum(gauge.read(tree, clock.now_s()) for gauge in self._gauges)
        after = clock.now_s()
        if value is None or (self._way == "power" and value > MOST_W):
            told = "nothing" if value is None else f"{value:.0f} W"
            raise MeterLost(f"{self.facts.read_from} no longer tells a possible power, but {told}")
        if self._way != "power":
            self._check.add(before, value, power)
        return Reading((before + after) / 2, value, took_s=after - before)

    def flags(self) -> list[Flag]:
        """Margins that the gauge states, jumps, and a power that disagrees with the counter."""
        found = [*self._flags, *(flag for gauge in self._gauges for flag in gauge.flags())]
        share = self._check.disagreement() if self._way == "counter" else None
        if share is not None and abs(share) > DISAGREE:
            found.append(Flag(f"the gauge's power is {100 * share:+.0f} % off its own counter"))
        return found

    def close(self) -> None:
        """Nothing is kept open."""

    def _still_discharging(self, tree: Tree) -> None:
        why = _not_discharging(tree, self._batteries)
        if why is not None:
            raise MeterLost(f"a charger was connected, or the battery went ({why})")
        if len(own_batteries(tree)) != len(self._batteries):
            raise MeterLost("a battery was inserted or removed")


def _gauge(tree: Tree, battery: Battery, way: Way) -> Gauge:
    if way == "percent":
        return Gauge(battery, "capacity", (battery.full_j(tree) or 0.0) / 100)
    if battery.quantity(tree) == "energy":
        return Gauge(battery, "energy_now", MICRO * HOUR_S)
    return Gauge(battery, "charge_now", None)


def _margins(tree: Tree, batteries: list[Battery]) -> list[Flag]:
    """What the gauges themselves say of their error; at 100 % the values are useless (kernel)."""
    margins = [(b.name, b.number(tree, "capacity_error_margin") or 0) for b in batteries]
    return [
        Flag(f"{name} says its values may be {margin} % wrong", spoils=margin >= 100)
        for name, margin in margins
        if margin > 0
    ]


def _facts(tree: Tree, batteries: list[Battery], way: Way, gauges: list[Gauge]) -> MeterFacts:
    share, calibration, grade = CALIBRATION[way]
    names = "+".join(b.name for b in batteries)
    keys = {gauge.key for gauge in gauges}
    units = {"energy_now": "µWh", "charge_now": "µAh x µV", "capacity": "%"}
    direct = all(b.number(tree, "power_now") is not None for b in batteries)
    told = "power_now" if direct else "current_now x voltage_now"
    folders = [f"/{SUPPLIES}/{b.name}/{told}" for b in batteries]
    return MeterFacts(
        meter="battery",
        id=f"battery:{names}",
        read_from=", ".join([g.shown for g in gauges] or folders),
        unit=" and ".join(sorted(units[k] for k in keys)) or ("µW" if direct else "µA x µV"),
        counter=way != "power",
        update_period_s=UPDATE_S,
        quantum=max((gauge.quantum_j(tree) for gauge in gauges), default=None),
        calibration_share=share,
        calibration=calibration,
        grade=grade,
        whole_device=True,
        covers=["whole device, from the battery on"],
        excludes=["losses of the charger"],
    )
