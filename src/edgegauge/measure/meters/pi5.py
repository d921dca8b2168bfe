"""Raspberry Pi 5: the rails behind its power chip, from `vcgencmd pmic_read_adc`.

The command prints `NAME_A current(7)=1.42A` and `NAME_V volt(15)=0.90V`; the numbers in
parentheses do not pair, and neither does the order of lines, so volts and amperes are paired by
name, and all twelve rails must be there: a sum with a rail missing would look like a frugal board.

    --meter pi5              the sum of the rails. Nothing corrects it: 5 V USB, HATs, NVMe, the fan
                             and the converters' losses are not in it, and a flag says so
    --meter pi5:corrected    1.1451 x that sum + 0.5879 W: the published fit of one other board
    --meter pi5:FILE.toml    your own fit, from `edgegauge devices calibrate-meter pi5`

The rails and the fit are those of github.com/jfikar/RPi5-power (May 2024; one board against a USB-C
meter, no error stated). Readings are momentary and fluctuate. Each is a process and a question to
the firmware, which would disturb a run on all cores if it were asked more than twice a second.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edgegauge.document import read_toml
from edgegauge.energy import MeterFacts
from edgegauge.errors import InputError
from edgegauge.host.tree import Tree
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterUnusable, Reading
from edgegauge.measure.meters.misses import Misses
from edgegauge.measure.meters.pi5_calibration import Fit, Pi5Calibration

COMMAND = ("vcgencmd", "pmic_read_adc")
CHIP = "brcm,bcm2712"
"""The Pi 5's processor in the device tree; the Pi 500 and the Compute Module 5 have it too."""
RAILS = (
    "3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS",
    "0V8_SW", "VDD_CORE", "3V3_DAC", "3V3_ADC", "0V8_AON", "HDMI",
)  # fmt: skip
"""Of EXT5V (the input) and BATT (the clock's battery) only the voltage is told."""
LINE = re.compile(
    r"\s*(?P<rail>[0-9A-Z_]{1,20})_"
    r"(?:A current\(\d{1,3}\)=(?P<amperes>-?\d{1,3}\.\d{1,12})A"
    r"|V volt\(\d{1,3}\)=(?P<volts>-?\d{1,3}\.\d{1,12})V)\s*"
)
MOST_A, MOST_V = 25.0, 30.0
"""No rail of the board comes near."""

POLL_S = 1.0
PUBLISHED = Fit(slope=1.1451, offset_w=0.5879)
PUBLISHED_SOURCE = "published fit of one other board, github.com/jfikar/RPi5-power"
UNCALIBRATED_SHARE = 0.10
"""k=1, of the rails and of the published fit: grade C, 20 % with 95 % confidence."""
MARGIN = 0.25
"""A user's fit is trusted so far (as a share of the calibrated span) beyond its points."""


class PmicTextError(ValueError):
    """What the command printed is not a reading of all rails."""


def rails_w(text: str) -> dict[str, float]:
    """Watts of the known rails in what `vcgencmd pmic_read_adc` printed, in any order.

    Raises PmicTextError naming each rail that is missing, told twice or out of range.
    """
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    problems = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if not match or match["rail"] not in RAILS:
            continue
        rail, is_current = match["rail"], match["amperes"] is not None
        values, most = (amperes, MOST_A) if is_current else (volts, MOST_V)
        value = float(match["amperes"] if is_current else match["volts"])
        if rail in values:
            problems.append(f"{rail} is told twice")
        if not -1.0 < value < most:
            problems.append(f"{rail} is {value:g}")
        values[rail] = value
    for kind, values in (("current", amperes), ("voltage", volts)):
        problems += [f"{rail} has no {kind}" for rail in RAILS if rail not in values]
    if problems:
        raise PmicTextError(", ".join(problems[:4]) + (", ..." if len(problems) > 4 else ""))
    watts = {rail: amperes[rail] * volts[rail] for rail in RAILS}
    if sum(watts.values()) <= 0:
        raise PmicTextError("the rails of a running board add up to nothing")
    return watts


@dataclass(frozen=True, slots=True)
class Correction:
    """From the sum of the rails to the power of the board."""

    fit: Fit
    source: str
    share: float
    """Standard uncertainty (k=1) of the scale."""
    low_w: float = -math.inf
    """The sums for which the fit was made lie between these two."""
    high_w: float = math.inf


class Pi5Kind:
    """Finds the PMIC of a Raspberry Pi 5."""

    name = "pi5"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The one meter; `address` is `corrected` or a calibration file. InputError for others."""
        return [pi5_meter(machine, _correction(address))]


def pi5_meter(machine: Machine, correction: Correction | None = None) -> Pi5Meter:
    """The PMIC as a meter; MeterUnusable with what is missing."""
    tree = machine.tree
    model = tree.text("proc/device-tree/model") or ""
    if CHIP not in (tree.text("proc/device-tree/compatible") or "").split("\0"):
        if model.startswith("Raspberry Pi"):
            raise MeterUnusable(f"Raspberry Pi 4 and older have no current sensing: {model}")
        raise MeterUnusable("this is not a Raspberry Pi 5")
    text = tree.output(*COMMAND)
    if text is None:
        raise _no_answer(tree)
    try:
        rails_w(text)
    except PmicTextError as error:
        raise MeterUnusable(f"{' '.join(COMMAND)}: {error}") from None
    return Pi5Meter(machine, correction)


def _no_answer(tree: Tree) -> MeterUnusable:
    if tree.refused("dev/vcio"):
        return MeterUnusable(
            "this user may not ask the firmware (/dev/vcio): join the group video and log in again",
            "sudo usermod -aG video $USER",
        )
    if not tree.exists("usr/bin/vcgencmd"):
        return MeterUnusable(
            "vcgencmd is not installed",
            "sudo apt install raspi-utils || sudo apt install libraspberrypi-bin",
        )
    return MeterUnusable(f"{' '.join(COMMAND)} failed; in a container, pass /dev/vcio through")


def _correction(address: str | None) -> Correction | None:
    if address is None:
        return None
    if address == "corrected":
        return Correction(PUBLISHED, PUBLISHED_SOURCE, UNCALIBRATED_SHARE)
    if not address.endswith(".toml"):
        raise InputError(
            f"pi5 takes `corrected` or a calibration FILE.toml, got {address!r}",
            hint="edgegauge devices calibrate-meter pi5",
        )
    made = read_toml(Path(address), Pi5Calibration)
    fit = made.fit()
    raw = [point.raw_w for point in made.points]
    return Correction(fit, f"{made.described()}, in {address}", made.share(), min(raw), max(raw))


class Pi5Meter:
    """The sum of the rails, corrected if that was asked for; see the protocol `Meter`."""

    poll_s = POLL_S

    def __init__(self, machine: Machine, correction: Correction | None) -> None:
        self.facts = _facts(correction)
        self._machine, self._correction, self._misses = machine, correction, Misses()
        self._sums: list[float] = []

    def read(self) -> Reading | None:
        """One call of the command."""
        clock = self._machine.clock
        before_s = clock.now_s()
        text = self._machine.tree.output(*COMMAND)
        after_s = clock.now_s()
        try:
            raw_w = sum(rails_w(text or "").values())
        except PmicTextError as error:
            said = "it failed" if text is None else str(error)
            self._misses.missed(f"{' '.join(COMMAND)}: {said},")
            return None
        self._misses.seen()
        self._sums.append(raw_w)
        value = self._correction.fit.watts(raw_w) if self._correction else raw_w
        return Reading((before_s + after_s) / 2, value, after_s - before_s)

    def flags(self) -> list[Flag]:
        """That the sum is not the board's power, or how it was corrected."""
        if not self._sums:
            return []
        mean_w = fmean(self._sums)
        correction = self._correction
        if correction is None:
            missing = 1 - mean_w / PUBLISHED.watts(mean_w)
            text = (
                f"sum of the PMIC's rails only: by the {PUBLISHED_SOURCE}, "
                f"about {missing:.0%} of the board's power is missing"
            )
            return [Flag(text)]
        fit = correction.fit
        text = f"corrected: {fit.slope:g} x rails {fit.offset_w:+g} W ({correction.source})"
        spare = MARGIN * (correction.high_w - correction.low_w)
        if not correction.low_w - spare <= mean_w <= correction.high_w + spare:
            text += (
                f"; the rails' mean of {mean_w:.2f} W lies outside of the calibrated "
                f"{correction.low_w:.2f} to {correction.high_w:.2f} W"
            )
        return [Flag(text)]

    def close(self) -> None:
        """Nothing is open between readings."""


def _facts(correction: Correction | None) -> MeterFacts:
    rails = f"{len(RAILS)} rails of the PMIC"
    losses = ["5 V USB devices", "HATs", "NVMe", "fan", "converter losses"]
    if correction is None:
        source, share = "calibrated by: none", UNCALIBRATED_SHARE
        covers, excludes = [rails], losses
    else:
        source, share = f"calibrated by: {correction.source}", correction.share
        covers = [f"board at its USB-C input, fitted to {rails}"]
        excludes = ["power supply", "what was not plugged in when the fit was made"]
    return MeterFacts(
        meter="pi5",
        id="pi5:pmic" if correction is None else "pi5:pmic-corrected",
        read_from=" ".join(COMMAND),
        unit="V x A",
        counter=False,
        update_period_s=POLL_S,
        calibration_share=share,
        calibration=source,
        grade="C",
        whole_device=correction is not None,
        covers=covers,
        excludes=excludes,
    )
