"""How much slower one side of a paired comparison is, from what alternating rounds took. Pure.

The unit of evidence is a pair of processes: what a process got by chance (where its memory lies)
stays with it, so however many rounds one pair does, its ratio may be wrong by percents for ever.

    quad      rounds A B B A or B A A B: the logarithm of the ratio of times per token, in which a
              linear drift cancels
    pair      the Hodges-Lehmann location of its quads: the median of the means of any two of them
              and of each by itself. A round that something else stretched hardly moves it
    estimate  the Hodges-Lehmann location of the pairs, its interval that of Wilcoxon's signed ranks

Which side is which is a matter of names while nothing differs, so values of pairs are then
symmetric around 0, and signed ranks need no more than that: no distribution, no variance, and
noise within a pair may be correlated as it likes (Hollander, Wolfe and Chicken, Nonparametric
Statistical Methods, 3rd edition, 3.1 to 3.3). Each interval leaves out 1.25 % on either side, so
that those of two metrics together hold with 95 %.

Slow-downs here are logarithms of (candidate's time per token / baseline's). With a tolerance t:

    fail         the estimate is beyond t, and the interval does not contain 0
    pass         the estimate is within t, and the interval does not contain 2 t
    cannot tell  neither

Pairs are added until half the interval is no wider than t (`narrow_enough`), whatever the estimate
is: to look at the width after every pair favours no verdict, to look at the verdict would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from edgegauge.check.outcome import Outcome

TAIL = 0.0125
"""What an interval leaves out on either side."""
LEAST_PAIRS = 8
"""Seven have an interval too, but that is all of their range."""
MOST_PAIRS = 100
Z_95, Z_TAIL = 1.644854, 2.241403
"""95 % and 98.75 % points of the normal distribution."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """The logarithm of the ratio of times per token, and both ends of its interval."""

    centre: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def quad(baseline: Sequence[float], candidate: Sequence[float]) -> float:
    """The slow-down in one quad, from the times per token of both rounds of each side."""
    logs = [math.fsum(math.log(took) for took in side) for side in (baseline, candidate)]
    return (logs[1] - logs[0]) / 2


def slow_down(pairs: Sequence[Sequence[float]]) -> SlowDown:
    """The estimate from the quads of each pair, of at least `LEAST_PAIRS` pairs."""
    means = _means([median(_means(quads)) for quads in pairs])
    outside = _outside(len(pairs))
    return SlowDown(median(means), means[outside], means[-1 - outside])


def narrow_enough(found: SlowDown, tolerance: float) -> bool:
    """Whether no change and twice the tolerance can be told apart."""
    return found.half <= tolerance


def outcome_of(found: SlowDown, tolerance: float) -> Outcome:
    """The verdict; see the top of this file."""
    if found.centre > tolerance:
        return "fail" if found.low > 0 else "cannot tell"
    return "pass" if found.high < 2 * tolerance else "cannot tell"


def minimum_detectable(found: SlowDown, tolerance: float) -> float:
    """The slow-down that so many pairs with this spread would make fail in 95 % of cases.

    To fail, an estimate must exceed the tolerance and half of the interval; it scatters around the
    true value with a standard error that the interval tells, being `Z_TAIL` of them wide or more.
    """
    return max(tolerance, found.half) + found.half * Z_95 / Z_TAIL


def _means(values: Sequence[float]) -> list[float]:
    """The means of any two values and of each by itself, in order."""
    return sorted((a + b) / 2 for i, a in enumerate(values) for b in values[i:])


@cache
def _outside(count: int) -> int:
    """How many of the means of so many values lie beyond either end of the interval.

    The number of negative means of values symmetric around 0 is Wilcoxon's statistic: the sum of
    those of the ranks 1 to `count` that a fair coin picks. Its distribution is counted out.
    """
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    at_most, beyond = 0, 0
    while (at_most := at_most + ways[beyond]) <= TAIL * 2**count:
        beyond += 1
    return beyond - 1
