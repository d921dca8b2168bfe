"""A Raspberry Pi 5's own calibration: the sum of its PMIC's rails against a USB-C meter.

A small TOML file of points, each a steady state (idle, all cores busy) whose rails were averaged
and whose power a person read off the meter meanwhile. The fit, P = slope x rails + offset, follows
from the points and is not stored beside them. A file whose points have no `metered_w` yet is raw:
`calibrate-meter pi5 --raw FILE --point idle=3.1 --point load=9.8` completes it.

    format = 1
    meter = "pi5"
    board = "Raspberry Pi 5 Model B Rev 1.0"
    created = "2026-11-22"
    points = [{ name = "idle", raw_w = 2.31, raw_se_w = 0.01, samples = 50, metered_w = 3.2 }, ...]
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from pydantic import Field, model_validator

from edgegauge.document import Document
from edgegauge.measure.machine import Clock
from edgegauge.measure.meters import Meter

SAMPLE_S = 1.0
BUSY = "import sys, time; e = time.time() + float(sys.argv[1])\nwhile time.time() < e: pass"
"""The program of a busy core; it ends by itself, should nobody be left to end it."""
METER_SHARE = 0.02
"""k=1, allowed for the USB-C meter itself: cheap ones state 0.5 to 2 % and are seldom checked."""
TWO_POINT_SHARE = 0.05
"""k=1, of a line through two points: nothing shows how far from a line the truth is."""


class Point(Document):
    """One steady state."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,20}$")
    raw_w: float = Field(gt=0, lt=100)
    """Mean sum of the rails."""
    raw_se_w: float = Field(ge=0)
    """Its standard error."""
    samples: int = Field(ge=2)
    metered_w: float | None = Field(default=None, gt=0, lt=100)


class RawPoints(Document):
    """A calibration file, complete or not."""

    format: Literal[1] = 1
    meter: Literal["pi5"] = "pi5"
    board: str
    created: str
    points: list[Point] = Field(min_length=2, max_length=20)

    @model_validator(mode="after")
    def _names_differ(self) -> RawPoints:
        names = [point.name for point in self.points]
        if len(set(names)) < len(names):
            raise ValueError(f"points: names must differ, got {', '.join(names)}")
        return self


class Pi5Calibration(RawPoints):
    """A complete one: a line can be drawn, and it rises."""

    @model_validator(mode="after")
    def _gives_a_line(self) -> Pi5Calibration:
        unmetered = [point.name for point in self.points if point.metered_w is None]
        if unmetered:
            raise ValueError(f"points: no metered_w of {', '.join(unmetered)}; see --point")
        raw = [point.raw_w for point in self.points]
        if max(raw) < 1.2 * min(raw):
            raise ValueError("points: the rails must differ by 20 %, so that a line has a slope")
        if not 0.5 < self.fit().slope < 3:
            raise ValueError(
                f"points: a slope of {self.fit().slope:.2f} cannot be; 1 to 1.3 is usual"
            )
        return self

    def fit(self) -> Fit:
        """The straight line of least squares through the points."""
        return fit_line([(p.raw_w, p.metered_w or 0.0) for p in self.points])

    def residual_w(self) -> float:
        """Standard deviation of the points about the line; 0 of two."""
        fit = self.fit()
        squares = sum(((p.metered_w or 0.0) - fit.watts(p.raw_w)) ** 2 for p in self.points)
        return math.sqrt(squares / max(1, len(self.points) - 2))

    def r_squared(self) -> float:
        """Share of the variance that the line explains; 1 of two points."""
        metered = [p.metered_w or 0.0 for p in self.points]
        mean, fit = fmean(metered), self.fit()
        left = sum((m - fit.watts(p.raw_w)) ** 2 for m, p in zip(metered, self.points, strict=True))
        return 1 - left / sum((m - mean) ** 2 for m in metered)

    def share(self) -> float:
        """Standard uncertainty (k=1) of the corrected power, as a share."""
        if len(self.points) == 2:
            return TWO_POINT_SHARE
        least_w = min(p.metered_w or math.inf for p in self.points)
        return math.hypot(METER_SHARE, self.residual_w() / least_w)

    def described(self) -> str:
        """One line: how many points, and how well they lie on the line."""
        return (
            f"user's fit of {len(self.points)} points (R² {self.r_squared():.4f}, "
            f"residual {self.residual_w():.3f} W), {self.board}, {self.created}"
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """Board power = slope x sum of the rails + offset; W."""

    slope: float
    offset_w: float

    def watts(self, raw_w: float) -> float:
        """The board's power at that sum of the rails."""
        return self.slope * raw_w + self.offset_w


def fit_line(points: Sequence[tuple[float, float]]) -> Fit:
    """Least squares through (raw W, metered W); at least two with different raw values."""
    mean_raw, mean_metered = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - mean_raw) ** 2 for x, _ in points)
    slope = sum((x - mean_raw) * (y - mean_metered) for x, y in points) / spread
    return Fit(slope, mean_metered - slope * mean_raw)


@contextmanager
def busy_cores(count: int, seconds: float) -> Iterator[None]:
    """Keep `count` cores busy within the block, and never for longer than `seconds`."""
    command = [sys.executable, "-I", "-S", "-c", BUSY, str(seconds)]
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.kill)
        yield


def averaged(name: str, meter: Meter, clock: Clock, seconds: float) -> Point:
    """The mean of readings one second apart, with its standard error; MeterLost if it fails."""
    end_s = clock.now_s() + seconds
    values: list[float] = []
    while clock.now_s() < end_s or len(values) < 2:
        reading = meter.read()
        if reading is not None:
            values.append(reading.value)
        clock.wait(SAMPLE_S)
    error_w = stdev(values) / math.sqrt(len(values))
    return Point(name=name, raw_w=fmean(values), raw_se_w=error_w, samples=len(values))
