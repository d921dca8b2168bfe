"""The ratio of one quantity of two results: its interval, and what may be said of it.

Ratios are B / A. The unit of evidence is the child process (a run), because what one process got by
chance (where its memory lies, which cores it met, how warm it was) stays with it through all of its
rounds. So each run gives one value, its median, and the interval is Welch's t on the logarithms of
these values: means of logarithms, Student's t with the Welch-Satterthwaite degrees of freedom,
rounded down (Welch, Biometrika 34, 1947). A bootstrap over runs covers too seldom with the three to
ten runs that a measurement has. One run on a side tells nothing of how runs differ: cannot tell.

A 99th percentile is one value per run too: the interval of the pooled one takes latencies of a run
for independent, and finds two results of one artifact on a busy machine different.

Energies come with an interval of their own (k=2). Those of the two sides are combined on the
logarithm by the method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27,
2008), as if calibrations were independent. Two readings of one meter share theirs, so the interval
is wide.

Verdicts, with a threshold t below which a difference does not matter:

    same            the whole interval lies within 1 / (1 + t) and 1 + t
    faster, slower  the interval does not contain 1 (memory and energy: less, more)
    cannot tell     neither; `runs_needed` is roughly how many runs of each would decide it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Any

from edgegauge.energy import Energy
from edgegauge.evaluate.intervals import student_t
from edgegauge.figure import Figure
from edgegauge.measure.statistics import quantile

DEFAULT_THRESHOLD = 0.02
"""A difference of two percent: what two calls on a quiet machine may differ by."""

MOST_RUNS = 1000
"""More runs than this are not worth asking for."""

RUN_METHOD = "B / A of one value per run, 95 % interval by Welch's t on logarithms"
OWN_METHOD = "B / A, interval from those of both figures"

CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Words:
    """What more and less of a quantity are called."""

    more: str
    less: str


RATE, TIME, AMOUNT = Words("faster", "slower"), Words("slower", "faster"), Words("more", "less")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quantity of both results. `ratio` None: not compared, and `reason` says why."""

    name: str
    noun: str
    a: Figure | None
    b: Figure | None
    ratio: Figure | None = None
    verdict: str | None = None
    runs_needed: int | None = None
    """Of each side; only where the verdict is `cannot tell`, None where more than 1000."""
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row as a document."""
        figures = {k: f and f.to_json() for k, f in (("a", self.a), ("b", self.b))}
        return {
            "name": self.name,
            **figures,
            "ratio": self.ratio and self.ratio.to_json(),
            "verdict": self.verdict,
            "runs_needed": self.runs_needed,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Interval:
    """The logarithm of a ratio, both ends, and the spread of one run of each side together."""

    centre: float
    low: float
    high: float
    spread: float | None = None
    runs: int = 1


def from_runs(row: Row, words: Words, runs: Sequence[Sequence[float]], threshold: float) -> Row:
    """The row with its verdict, from one value per run of A and of B.

    Values that no measurement gives (files may hold anything) are left out.
    """
    a, b = ([value for value in values if 1e-100 < value < 1e100] for values in runs)
    if not a or not b:
        silent = " and ".join(x for x, values in (("A", a), ("B", b)) if not values)
        return replace(row, reason=f"not known of {silent}")
    if min(len(a), len(b)) < 2:
        ratio = math.exp(_mean_log(b) - _mean_log(a))
        return replace(
            row, ratio=Figure(ratio, "1", "measured", RUN_METHOD), verdict=CANNOT_TELL,
            runs_needed=3, reason="one run does not tell how runs differ",
        )  # fmt: skip
    return _judged(row, words, welch(a, b), threshold, RUN_METHOD)


def welch(a: Sequence[float], b: Sequence[float]) -> Interval:
    """The logarithm of b / a for one positive value per run, at least two of each, at 95 %."""
    logs = [[math.log(value) for value in runs] for runs in (a, b)]
    centre = fmean(logs[1]) - fmean(logs[0])
    shares = [variance(runs) / len(runs) for runs in logs]
    total = math.fsum(shares)
    spread = math.sqrt(sum(variance(runs) for runs in logs))
    runs = min(len(a), len(b))
    weights = math.fsum(s * s / (len(x) - 1) for s, x in zip(shares, logs, strict=True))
    if not weights:
        return Interval(centre, centre, centre, spread, runs)
    half = student_t(max(1, math.floor(total * total / weights))) * math.sqrt(total)
    return Interval(centre, centre - half, centre + half, spread, runs)


def recovered(a: Figure, b: Figure) -> Interval | None:
    """The logarithm of b / a from the intervals of both; None where one has no positive ends."""
    ends = (a.low, a.high, b.low, b.high)
    if any(end is None or end <= 0 for end in ends) or min(a.value, b.value) <= 0:
        return None
    a0, a1, b0, b1 = (math.log(end) for end in ends if end is not None)
    at_a, at_b = math.log(a.value), math.log(b.value)
    centre = at_b - at_a
    return Interval(
        centre,
        centre - math.hypot(at_b - b0, a1 - at_a),
        centre + math.hypot(b1 - at_b, at_a - a0),
    )


def _from_figures(row: Row, words: Words, threshold: float) -> Row:
    """The row with its verdict, from the intervals of its own figures."""
    if row.a is None or row.b is None:
        return replace(row, reason="not known of both")
    interval = recovered(row.a, row.b)
    if interval is None:
        return replace(row, verdict=CANNOT_TELL, reason="a figure has no closed interval")
    judged = _judged(row, words, interval, threshold, OWN_METHOD)
    if judged.verdict != CANNOT_TELL:
        return judged
    return replace(judged, reason="a longer energy run or a better meter would narrow it")


def _judged(row: Row, words: Words, found: Interval, threshold: float, method: str) -> Row:
    """The row with its verdict."""
    limit = math.log1p(threshold)
    rounding = 1e-12
    if -limit - rounding <= found.low and found.high <= limit + rounding:
        verdict = "same"
    elif found.low > 0:
        verdict = words.more
    elif found.high < 0:
        verdict = words.less
    else:
        verdict = CANNOT_TELL
    low, value, high = (_exp(x) for x in (found.low, found.centre, found.high))
    needed = _runs_needed(found, limit) if verdict == CANNOT_TELL else None
    ratio = Figure(value, "1", "measured", method, low, high)
    return replace(row, ratio=ratio, verdict=verdict, runs_needed=needed)


def _exp(exponent: float) -> float:
    """The exponential, within what a float holds: files may hold anything."""
    return math.exp(min(max(exponent, -700.0), 700.0))


def _runs_needed(found: Interval, limit: float) -> int | None:
    """Runs of each side that would narrow the interval enough for a verdict, if nothing else moved.

    Enough is either clear of 1 or inside of the threshold, whichever is wider.
    """
    enough = max(abs(found.centre), limit - abs(found.centre))
    if enough <= 0 or found.spread is None:
        return None
    for runs in range(max(2, found.runs), MOST_RUNS + 1):
        if student_t(2 * runs - 2) * found.spread / math.sqrt(runs) <= enough:
            return runs
    return None


def tails(runs: Sequence[Sequence[float]]) -> list[float]:
    """The 99th percentile of each run; nothing where a run has fewer values than that needs."""
    found = [quantile(values, 0.99) for values in runs]
    return [q.value for q in found if q] if all(found) else []


def of_energy(
    row: Row,
    a: Sequence[Energy],
    b: Sequence[Energy],
    figure: Callable[[Energy], Figure | None],
    threshold: float,
) -> Row:
    """The row of the energy `figure` of the first source that both have; never of different ones.

    `row` holds the figures of the best sources, for where nothing compares.
    """
    ours, theirs = ([e for e in energies if figure(e) is not None] for energies in (a, b))
    pairs = [(x, y) for x in ours for y in theirs if _meter(x) == _meter(y)]
    if pairs:
        x, y = pairs[0]
        return _from_figures(replace(row, a=figure(x), b=figure(y)), AMOUNT, threshold)
    if not ours or not theirs:
        return replace(row, reason="not measured in both")
    sources = (
        f"{e.source.id} (grade {e.source.grade}, {', '.join(e.source.covers)})"
        for e in (ours[0], theirs[0])
    )
    return replace(row, reason=f"different sources: {' and '.join(sources)}")


def _meter(energy: Energy) -> tuple[Any, ...]:
    """What must agree before joules compare."""
    facts = energy.source
    return (facts.meter, facts.grade, facts.whole_device, sorted(facts.covers), facts.calibration)


def _mean_log(values: Sequence[float]) -> float:
    return fmean(math.log(value) for value in values)
