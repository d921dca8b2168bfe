"""Long series made short enough to draw, without inventing values; pure.

What a file holds may be any number: `drawable` says which ones a picture can show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

LEAST, MOST = 1e-12, 1e15
"""Numbers beyond these are accidents of a file, and break the arithmetic of scales."""

MOST_POINTS = 300

PERIODS = 10
"""A new value of a counter is seen up to one reading late: a tenth of a step."""


def drawable(value: float | None) -> bool:
    """Whether this is a number above 0 that a picture can show."""
    return value is not None and math.isfinite(value) and LEAST <= value <= MOST


def is_time(value: float) -> bool:
    """Whether this is a number of seconds that a picture can show."""
    return math.isfinite(value) and abs(value) <= MOST


@dataclass(frozen=True, slots=True)
class Bin:
    """What several neighbouring points became."""

    t_s: float
    middle: float
    low: float
    high: float


def binned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[Bin]:
    """Points in time order as at most so many bins of equally many: median, least and largest."""
    kept = sorted((t, v) for t, v in points if is_time(t) and drawable(v))
    size = max(1, math.ceil(len(kept) / most))
    groups = [kept[i : i + size] for i in range(0, len(kept), size)]
    return [
        Bin(median(t for t, _ in g), median(v for _, v in g), min(v for _, v in g),
            max(v for _, v in g))
        for g in groups
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """Mean watts from one moment to another."""

    start_s: float
    end_s: float
    watts: float


def steps_of(
    readings: Sequence[tuple[float, float]], counter: bool, most: int = MOST_POINTS
) -> list[Step]:
    """Power between readings: of a counter its difference, of watts their mean.

    A counter is differenced from one new value to another, not from one reading to the next: where
    it moves more slowly than it is read, that would draw its step, not the power, and neighbours
    are joined until a step is `PERIODS` readings long. No more than `most` are left.
    """
    known = sorted((t, v) for t, v in readings if is_time(t) and math.isfinite(v))
    if len(known) < 2 or known[0][0] == known[-1][0]:
        return []
    gap_s = median(b[0] - a[0] for a, b in pairwise(known))
    slow = False
    if counter:
        moved = [known[0], *(b for a, b in pairwise(known) if b[1] != a[1])]
        slow = len(moved) < 0.9 * len(known)
        known = moved if len(moved) > 2 else [known[0], known[-1]]
    joules = [v for _, v in known] if counter else _integral(known)
    least_s = max(PERIODS * gap_s if slow else 0.0, (known[-1][0] - known[0][0]) / most)
    found: list[Step] = []
    start = 0
    for end in range(1, len(known)):
        seconds = known[end][0] - known[start][0]
        if seconds <= 0 or (seconds < least_s and end < len(known) - 1):
            continue
        watts = (joules[end] - joules[start]) / seconds
        if math.isfinite(watts) and abs(watts) <= MOST:
            found.append(Step(known[start][0], known[end][0], watts))
        start = end
    return found


def _integral(readings: Sequence[tuple[float, float]]) -> list[float]:
    """Joules since the first reading of watts, by trapezoid."""
    total, found = 0.0, [0.0]
    for (t0, w0), (t1, w1) in pairwise(readings):
        total += (t1 - t0) * (w0 + w1) / 2
        found.append(total)
    return found


def quantiles(values: Sequence[float], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """(value, share of values up to it), in order; of many values evenly spaced ones."""
    kept = sorted(v for v in values if drawable(v))
    count = len(kept)
    picks = (
        range(count)
        if count <= most
        else [round(i * (count - 1) / (most - 1)) for i in range(most)]
    )
    return [(kept[i], (i + 1) / count) for i in picks]
