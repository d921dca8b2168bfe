"""Rails behind current monitors: volts x amperes of one supply line, from the chips' own files.

Texas Instruments' monitors (INA219, INA226, INA238, ...) have one channel and tell `power1_input`
in µW, or the bus voltage `in1_input` in mV and `curr1_input` in mA. The INA3221 has three channels
and no power; its channels 4 to 7 are shunt voltages and their sum, which are no rails. Chips are
found by their `name`: the number in `hwmon3` is another one after the next boot.

Formats: the kernel's Documentation/hwmon/ina2xx.rst, ina238.rst and ina3221.rst.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgegauge.energy import MeterFacts
from edgegauge.host.tree import Tree, fields
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, MeterUnusable, Reading
from edgegauge.measure.meters.misses import Misses

HWMON = "sys/class/hwmon"
SINGLE = re.compile(r"ina\d{3}|sq52206")
TRIPLE = "ina3221"
CHANNELS = (1, 2, 3)
INA3221_SHUNT_LSB_UV = 40
"""Step of its shunt voltage in µV (data sheet SBOS576): through the shunt, its step of current."""

UNKNOWN_UPDATE_S = 0.1
"""For a chip without `update_interval`; its conversions take milliseconds unless it averages."""
POLL_S = (0.2, 1.0)
"""Shortest and longest time between readings: each costs two transfers on a slow bus per rail."""
CALIBRATION_SHARE = 0.05
"""k=1. The chips state up to 1 %; shunt, solder and board are as they are: grade C."""


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply line: where its power is read, or its voltage and current."""

    label: str
    chip: str
    """Name of the chip, or of its driver."""
    power: str | None = None
    """Path of its power."""
    power_unit_w: float = 1e-6
    millivolts: str = ""
    milliamperes: str = ""
    shunt_uohm: int | None = None
    update_s: float | None = None
    """Time in which the chip makes one value, its averaging included."""

    @property
    def paths(self) -> list[str]:
        """The files that a reading needs."""
        return [self.power] if self.power else [self.millivolts, self.milliamperes]

    def watts(self, tree: Tree) -> float | None:
        """Power now; None where a file gives no number, which is not zero."""
        if self.power:
            told = tree.integer(self.power)
            return None if told is None else told * self.power_unit_w
        millivolts, milliamperes = tree.integer(self.millivolts), tree.integer(self.milliamperes)
        if millivolts is None or milliamperes is None:
            return None
        return millivolts * milliamperes / 1e6

    def quantum_w(self, tree: Tree) -> float | None:
        """Step of the power where the chip's is known: an INA3221 through its shunt."""
        millivolts = tree.integer(self.millivolts) if self.millivolts else None
        if self.chip != TRIPLE or not self.shunt_uohm or not millivolts:
            return None
        return INA3221_SHUNT_LSB_UV / self.shunt_uohm * millivolts / 1e3

    def connected(self) -> bool:
        """Whether anything is on the channel: makers label the unused ones NC."""
        return not re.fullmatch(r"NC\d*", self.label.strip(), re.I)


def chips(tree: Tree) -> list[tuple[str, str]]:
    """(folder, name) of the current monitors of hwmon, in the order of their folders."""
    found = [(f"{HWMON}/{n}", tree.text(f"{HWMON}/{n}/name") or "") for n in tree.names(HWMON)]
    return [(at, name) for at, name in found if name == TRIPLE or SINGLE.fullmatch(name)]


def rails_of(tree: Tree, at: str, chip: str) -> list[Rail]:
    """The rails of a hwmon chip that are in use."""
    made = [_rail(tree, at, chip, n) for n in (CHANNELS if chip == TRIPLE else (1,))]
    return [rail for rail in made if rail is not None and rail.connected()]


def _rail(tree: Tree, at: str, chip: str, channel: int) -> Rail | None:
    """A channel; None where it is switched off or has no files."""
    switches = (f"{at}/in{channel}_enable", f"{at}/curr{channel}_enable")
    if any(tree.text(switch) == "0" for switch in switches):
        return None
    power = f"{at}/power{channel}_input"
    volts, amperes = f"{at}/in{channel}_input", f"{at}/curr{channel}_input"
    has_power = chip != TRIPLE and tree.exists(power)
    if not has_power and not (tree.exists(volts) and tree.exists(amperes)):
        return None
    shunt = f"shunt{channel}_resistor" if chip == TRIPLE else "shunt_resistor"
    update_ms = tree.integer(f"{at}/update_interval")
    return Rail(
        label=_label(tree, at, chip, channel),
        chip=chip,
        power=power if has_power else None,
        millivolts=volts,
        milliamperes=amperes,
        shunt_uohm=tree.integer(f"{at}/{shunt}"),
        update_s=update_ms / 1000 if update_ms and update_ms > 0 else None,
    )


def _label(tree: Tree, at: str, chip: str, channel: int) -> str:
    """The board maker's name of a channel, or the chip's name in the device tree."""
    for name in (f"in{channel}_label", f"power{channel}_label", f"curr{channel}_label", "label"):
        label = tree.text(f"{at}/{name}")
        if label:
            return label[:60]
    node = fields(tree.text(f"{at}/device/uevent"), "=").get("OF_FULLNAME", "")
    where = node.rpartition("/")[2][:60] or chip
    return f"{where}.{channel}" if chip == TRIPLE else where


def calibration_text(rails: Sequence[Rail]) -> str:
    """What the scale of these rails rests on."""
    shunts = [f"{r.shunt_uohm} µohm ({r.label})" for r in rails if r.shunt_uohm]
    stated = f"shunt as configured: {', '.join(shunts)}" if shunts else "shunt not stated"
    return f"nobody calibrated it; {stated}, and a wrong one scales everything"


def unreadable(tree: Tree, rails: Sequence[Rail]) -> MeterUnusable:
    """Why these rails tell no power, and the command that mends it."""
    paths = [path for rail in rails for path in rail.paths]
    if refused := [f"/{path}" for path in paths if tree.refused(path)]:
        return MeterUnusable(
            f"this user may not read {refused[0]}", f"sudo chmod a+r {' '.join(refused)}"
        )
    return MeterUnusable(f"/{' and /'.join(rails[0].paths)} hold no number")


def update_s(rails: Sequence[Rail]) -> float:
    """Time in which the slowest of the chips makes a value."""
    return max(rail.update_s or UNKNOWN_UPDATE_S for rail in rails)


class RailMeter:
    """The power of one rail or the sum of several; see the protocol `Meter`."""

    def __init__(self, machine: Machine, rails: Sequence[Rail], facts: MeterFacts) -> None:
        self.facts = facts
        shortest, longest = POLL_S
        self.poll_s = min(longest, max(shortest, facts.update_period_s / 2))
        self._machine, self._rails, self._misses = machine, rails, Misses()
        stated = [rail.update_s for rail in rails]
        self._span_s = update_s(rails) if all(stated) else 0.0

    def read(self) -> Reading | None:
        """All rails, one after the other."""
        clock, tree = self._machine.clock, self._machine.tree
        before_s = clock.now_s()
        watts = [rail.watts(tree) for rail in self._rails]
        after_s = clock.now_s()
        for rail, told in zip(self._rails, watts, strict=True):
            if told is None:
                self._misses.missed(f"no number in /{' and /'.join(rail.paths)}")
                return None
        self._misses.seen()
        total = sum(w for w in watts if w is not None)
        return Reading((before_s + after_s) / 2, total, after_s - before_s, self._span_s)

    def flags(self) -> list[Flag]:
        """Nothing: what there is to know is in the facts."""
        return []

    def close(self) -> None:
        """Nothing is open between readings."""
