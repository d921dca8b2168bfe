"""A phone under Termux: the charge that its battery gave, from `termux-battery-status`.

The energy is that of the charge counter, step by step: E = sum of voltage x fall of
`charge_counter`. It is the whole phone, screen and radios included, and it counts only while
nothing charges: status DISCHARGING and plugged UNPLUGGED, at every reading.

`current` is not used for energy. Termux:API multiplies it by 1000 when its magnitude is below 1000,
for phones that tell mA where Android asks for µA. Such a phone is right at 900 mA and 1000 times
too small at 1300 mA, which is what a language model draws. Its sign differs between phones as well.
So it is compared with the counter, over five minutes or more, in each scale and sign; where none
agrees a flag says so, and a phone without a plausible charge counter is refused.

Units: termux/termux-api, BatteryStatusAPI.java: `voltage` mV, `charge_counter` µAh (some phones
tell mAh, or percent), `percentage` %. Where Android lets one read the battery's files, that is
`meters/battery.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from edgegauge.energy import Grade, MeterFacts
from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterLost, MeterUnusable, Reading
from edgegauge.measure.meters.misses import Misses

COMMAND = "termux-battery-status"
PREFIX = "data/data/com.termux/files/usr"
POLL_S = 5.0
"""Each reading is a process and a message to an app, which takes most of a second."""

J_PER_UAH_V = 3.6e-3
"""1 µAh at 1 V."""
CAPACITY_UAH = (1e6, 25e6)
"""Batteries of phones and tablets: 1 to 25 Ah. A thousandth of that is a counter in mAh."""
VOLTS = (2.5, 20.0)
CURRENT_CHECK_S = 300.0
AGREE = 0.2
"""Mean current and slope of the counter agree within that share."""
RISE_SHARE = 0.01
"""A counter that rises by that share of the battery while discharging was recalibrated."""
STUCK_S = 120.0
"""A phone that runs draws at least 0.1 A; in that time even a 1000 µAh step is passed."""
MOST_W = 60.0
"""No phone or tablet draws more: a counter that falls faster was recalibrated."""
PERCENT_STEP = 0.0075
"""Steps of that share of the capacity or more are whole percents of charge."""
CALIBRATION_SHARE = 0.10
CALIBRATION = (
    "nobody calibrated the fuel gauge: Android states no accuracy, only that runs on one phone are "
    "consistent (source.android.com/docs/core/power/device)"
)


@dataclass(frozen=True, slots=True)
class Status:
    """What the command told; None for what it left out or what cannot be."""

    status: str
    plugged: str
    percentage: float | None
    volts: float | None
    current: float | None
    """As told: µA after the correction described above, or not."""
    charge_counter: float | None

    @property
    def discharging(self) -> bool:
        """Nothing but the battery feeds the phone."""
        return self.status == "DISCHARGING" and self.plugged == "UNPLUGGED"


def parse(text: str | None) -> Status | None:
    """The JSON that the command prints; None if it is not that."""
    try:
        told = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not isinstance(told.get("status"), str):
        return None
    counter = _number(told.get("charge_counter"))
    percentage = _number(told.get("percentage"))
    return Status(
        status=told["status"],
        plugged=str(told.get("plugged")),
        percentage=percentage if percentage is not None and 0 <= percentage <= 100 else None,
        volts=_volts(_number(told.get("voltage"))),
        current=_number(told.get("current")),
        charge_counter=counter if counter is not None and counter > 0 else None,
    )


def _number(value: Any) -> float | None:
    """A number that is one: Android's own 'unknown' is the smallest integer."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e12 and value != -(2**31) else None


def _volts(told: float | None) -> float | None:
    """From mV, as it should be, or V or µV, as some phones have it: no two of them overlap."""
    for scale in (1e-3, 1.0, 1e-6):
        if told is not None and VOLTS[0] <= told * scale <= VOLTS[1]:
            return told * scale
    return None


def counter_unit_uah(status: Status) -> float | None:
    """µAh of one unit of the charge counter, 1 or 1000; None where it is no charge.

    The percentage says what the full battery would hold then, which must be a phone's battery.
    """
    if status.charge_counter is None or not status.percentage:
        return None
    full = status.charge_counter / status.percentage * 100
    for unit in (1.0, 1000.0):
        if CAPACITY_UAH[0] <= full * unit <= CAPACITY_UAH[1]:
            return unit
    return None


class TermuxKind:
    """Finds the battery of a phone under Termux."""

    name = "termux"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The one meter. It takes no address."""
        if address is not None:
            raise MeterUnusable(f"it takes no address, got {address!r}")
        tree = machine.tree
        text = tree.output(COMMAND)
        if text is None:
            raise _no_answer(tree)
        status = parse(text)
        if status is None:
            raise MeterUnusable(
                f"{COMMAND} printed no status", "install the Termux:API app and open it once"
            )
        if not status.discharging:
            raise MeterUnusable(
                f"the phone is not running from its battery alone ({_feeding(status)})",
                "unplug it; reach it over Wi-Fi",
            )
        if status.volts is None:
            raise MeterUnusable(f"{COMMAND} tells no voltage", "update the Termux:API app")
        unit = counter_unit_uah(status)
        if unit is None:
            raise _no_counter(status)
        return [TermuxMeter(machine, status, unit)]


def _no_answer(tree: Tree) -> MeterUnusable:
    if tree.exists(f"{PREFIX}/bin/{COMMAND}"):
        return MeterUnusable(
            f"{COMMAND} gave no answer", "install the Termux:API app and open it once"
        )
    if tree.exists(PREFIX):
        return MeterUnusable(f"{COMMAND} is not installed", "pkg install termux-api")
    return MeterUnusable("this is not Termux on an Android phone")


def _no_counter(status: Status) -> MeterUnusable:
    if status.charge_counter is None:
        said = "the phone tells no charge counter"
    else:
        said = (
            f"a charge counter of {status.charge_counter:g} at {status.percentage} % "
            "is no phone's battery"
        )
    return MeterUnusable(
        f"{said}, and its current alone may be 1000 times too small; percent steps of a battery "
        "whose energy is not known are no energy"
    )


def _feeding(status: Status) -> str:
    return f"status {status.status[:20]}, plugged {status.plugged[:20]}"


class TermuxMeter:
    """Joules that the battery gave since the first reading; see the protocol `Meter`."""

    poll_s = POLL_S

    def __init__(self, machine: Machine, first: Status, unit_uah: float) -> None:
        self._machine, self._unit_uah, self._misses = machine, unit_uah, Misses()
        self._full_uah = 100 * (first.charge_counter or 0.0) * unit_uah / (first.percentage or 1)
        self._coulombs = _Discharge()
        self._current = _CurrentCheck()
        self.facts = _facts("C")
        """Of grade D while the counter is only seen to move in whole percents."""

    def read(self) -> Reading | None:
        """One call of the command; MeterLost as soon as something charges."""
        clock = self._machine.clock
        before_s = clock.now_s()
        status = parse(self._machine.tree.output(COMMAND))
        after_s = clock.now_s()
        if status is not None and not status.discharging:
            raise MeterLost(f"the battery is no longer alone: {_feeding(status)}")
        if status is None or status.volts is None or status.charge_counter is None:
            self._misses.missed(f"{COMMAND} told no charge and voltage")
            return None
        self._misses.seen()
        t_s = (before_s + after_s) / 2
        charge_uah = status.charge_counter * self._unit_uah
        self._coulombs.add(t_s, charge_uah, status.volts)
        self._current.add(t_s, charge_uah, status.current)
        step_uah = self._coulombs.least_step_uah or 0.0
        self.facts = _facts("D" if step_uah >= PERCENT_STEP * self._full_uah else "C")
        return Reading(t_s, self._coulombs.joules, after_s - before_s)

    def flags(self) -> list[Flag]:
        """A counter that never moved or was recalibrated; a current that cannot be right."""
        found = [*self._coulombs.flags(self._full_uah), *self._current.flags()]
        if self.facts.grade == "D":
            found.append(Flag("the charge counter moves in whole percents of the battery"))
        return found

    def close(self) -> None:
        """Nothing is open between readings."""


class _Discharge:
    """Volts x fall of the charge, followed at its lowest: it may go up and down by a step."""

    def __init__(self) -> None:
        self.joules = 0.0
        self.least_step_uah: float | None = None
        self._first_s = self._last_s = self._fell_s = 0.0
        self._lowest_uah: float | None = None
        self._rise_uah = self._jump_uah = 0.0
        self._volts: list[float] = []
        """Since the last fall."""

    def add(self, t_s: float, charge_uah: float, volts: float) -> None:
        self._last_s = t_s
        self._volts.append(volts)
        if self._lowest_uah is None:
            self._first_s, self._lowest_uah = t_s, charge_uah
            return
        fall_uah = self._lowest_uah - charge_uah
        self._rise_uah = max(self._rise_uah, -fall_uah)
        if fall_uah <= 0:
            return
        fall_j = fall_uah * fmean(self._volts) * J_PER_UAH_V
        # The first step may hold what was taken long before the first reading.
        if self.least_step_uah and fall_j > MOST_W * (t_s - self._fell_s + POLL_S):
            self._jump_uah = max(self._jump_uah, fall_uah)
        self.joules += fall_j
        self._fell_s = t_s
        self.least_step_uah = min(fall_uah, self.least_step_uah or math.inf)
        self._lowest_uah, self._volts = charge_uah, [volts]

    def flags(self, full_uah: float) -> list[Flag]:
        found = []
        seconds = self._last_s - self._first_s
        if self.least_step_uah is None and seconds >= STUCK_S:
            found.append(Flag(f"the charge counter never moved in {seconds:.0f} s", spoils=True))
        if self._rise_uah > RISE_SHARE * full_uah:
            text = f"the charge counter rose by {self._rise_uah / 1000:.0f} mAh while discharging"
            found.append(Flag(text, spoils=True))
        if self._jump_uah:
            text = f"the charge counter fell by {self._jump_uah / 1000:.0f} mAh at once"
            found.append(Flag(text, spoils=True))
        return found


class _CurrentCheck:
    """The told current against the slope of the charge counter, from its first fall to its last."""

    def __init__(self) -> None:
        self._last_uah: float | None = None
        self._since: list[tuple[float, float]] = []
        """(s, current as told) since the last fall."""
        self._start: tuple[float, float] | None = None
        """Time and charge of the first fall."""
        self._seconds = self._told = self._fallen_uah = 0.0
        """Between the first fall and the last: seconds, integral of the current, charge."""

    def add(self, t_s: float, charge_uah: float, current: float | None) -> None:
        if current is not None:
            self._since.append((t_s, current))
        fell = self._last_uah is not None and charge_uah < self._last_uah
        if self._last_uah is None or fell:
            self._last_uah = charge_uah
        if not fell:
            return
        if self._start is None:
            self._start = (t_s, charge_uah)
        else:
            seconds = t_s - self._start[0] - self._seconds
            told = [current for _, current in self._since]
            self._told += fmean(told) * seconds if told else 0.0
            self._seconds += seconds
            self._fallen_uah = self._start[1] - charge_uah
        self._since = []

    def flags(self) -> list[Flag]:
        if self._seconds < CURRENT_CHECK_S or not self._told:
            return []
        told_ua, counted_ua = self._told / self._seconds, self._fallen_uah * 3600 / self._seconds
        for scale, said in ((1.0, None), (1000.0, "in mA, where µA are meant")):
            for sign in (-1, 1):
                if abs(sign * scale * told_ua / counted_ua - 1) <= AGREE:
                    return [Flag(f"the phone's current is {said}; it was not used")] if said else []
        text = (
            f"the phone's current disagrees with its charge counter in every scale and sign: "
            f"mean {told_ua:.0f} against {counted_ua:.0f} µA; it was not used"
        )
        return [Flag(text)]


def _facts(grade: Grade) -> MeterFacts:
    return MeterFacts(
        meter="termux",
        id="termux:battery",
        read_from=COMMAND,
        unit="µAh x mV",
        counter=True,
        update_period_s=POLL_S,
        calibration_share=CALIBRATION_SHARE,
        calibration=CALIBRATION,
        grade=grade,
        whole_device=True,
        covers=["the whole phone, screen and radios included"],
        excludes=["losses of the charger"],
    )
