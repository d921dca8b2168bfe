"""Current monitors on any board: each rail of an INA219, INA226, INA238, INA3221, ... is a meter.

Nobody but the board's maker knows which rail is upstream of which, so rails are never added up and
none is called the whole device. `--meter ina:LABEL` takes one of them. The rails of a Jetson are
known; they are `meters/jetson.py`'s.
"""

from __future__ import annotations

from collections import Counter

from edgegauge.energy import MeterFacts
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterUnusable
from edgegauge.measure.meters.jetson import is_jetson
from edgegauge.measure.meters.rails import (
    CALIBRATION_SHARE,
    Rail,
    RailMeter,
    calibration_text,
    chips,
    rails_of,
    unreadable,
    update_s,
)

KERNEL_SHUNT_UOHM = 10_000
"""What the kernel assumes where nobody stated a shunt (drivers/hwmon/ina2xx.c)."""


class InaKind:
    """Finds the rails of current monitors on boards that are not Jetsons."""

    name = "ina"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """A meter for each rail, or for the one labelled `address`."""
        tree = machine.tree
        if is_jetson(tree):
            raise MeterUnusable("the rails of a Jetson are read by the meter jetson")
        rails = [rail for at, chip in chips(tree) for rail in rails_of(tree, at, chip)]
        if not rails:
            raise MeterUnusable("no INA current monitor under /sys/class/hwmon")
        if address is not None:
            labels = ", ".join(rail.label for rail in rails)
            rails = [rail for rail in rails if rail.label == address]
            if not rails:
                raise MeterUnusable(f"no rail labelled {address!r}; there are: {labels}")
        usable = [rail for rail in rails if rail.watts(tree) is not None]
        if not usable:
            raise unreadable(tree, rails)
        seen: Counter[str] = Counter()
        return [_meter(machine, rail, seen) for rail in usable]


def _meter(machine: Machine, rail: Rail, seen: Counter[str]) -> Meter:
    seen[rail.label] += 1
    count = seen[rail.label]
    calibration = calibration_text([rail])
    if rail.shunt_uohm == KERNEL_SHUNT_UOHM:
        calibration += "; 10000 µohm is also what the kernel assumes where nobody stated one"
    facts = MeterFacts(
        meter="ina",
        id=f"ina:{rail.label}" + (f"#{count}" if count > 1 else ""),
        read_from=" x ".join(f"/{path}" for path in rail.paths),
        unit="µW" if rail.power else "mV x mA",
        counter=False,
        update_period_s=update_s([rail]),
        quantum=rail.quantum_w(machine.tree),
        calibration_share=CALIBRATION_SHARE,
        calibration=calibration,
        grade="C",
        whole_device=False,
        covers=[f"rail {rail.label}"],
        excludes=["every other rail, and the converters before this one"],
    )
    return RailMeter(machine, [rail], facts)
