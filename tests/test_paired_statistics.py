"""The verdict of a paired comparison: exact on small values, and honest under simulated noise."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, product
from statistics import fmean, median

import pytest

from edgegauge.check import paired_statistics as statistics
from edgegauge.check.outcome import Outcome, worst
from edgegauge.check.paired import METRICS, QUADS, Compared
from edgegauge.check.paired_statistics import LEAST_PAIRS, TAIL, SlowDown

Noise = Callable[[random.Random], list[float]]


def slow_down(values: list[float]) -> SlowDown:
    """The estimate from pairs that did one quad each."""
    return statistics.slow_down([[value] for value in values])


# Small values.


def test_a_quad_is_the_ratio_of_times_without_a_linear_drift() -> None:
    assert statistics.quad([2, 2], [4, 4]) == pytest.approx(math.log(2))
    # A B B A on a machine that gets 10 % slower with every round
    assert statistics.quad([1, 1.1**3], [3 * 1.1, 3 * 1.1**2]) == pytest.approx(math.log(3))
    # B A A B
    assert statistics.quad([1.1, 1.1**2], [3, 3 * 1.1**3]) == pytest.approx(math.log(3))


def test_a_pair_is_the_median_of_the_means_of_its_quads() -> None:
    # 1, 1.5, 2, 2.5, 3, 4
    found = statistics.slow_down([[4, 1, 2]] * 8)
    assert (found.low, found.centre, found.high) == (2.25, 2.25, 2.25)


def test_one_stretched_round_moves_nothing() -> None:
    assert statistics.slow_down([[0, 0, 100, 0]] * 8).high == 0


def test_the_estimate_and_its_interval_by_hand() -> None:
    # The least means are 1, 1.5, 2 and 2; two of them are left out.
    assert slow_down([8, 3, 1, 2, 7, 5, 6, 4]) == SlowDown(4.5, 2, 7)
    assert slow_down([8, 3, 1, 2, 7, 5, 6, 4]).half == 2.5


@pytest.mark.parametrize("count", [8, 9, 11])
def test_an_interval_leaves_0_out_as_often_as_signed_ranks_say(count: int) -> None:
    """Against all ways to give these values signs, which are equally likely without a change."""
    sizes = [1 + 0.9**i for i in range(count)]
    signed = [
        slow_down([s * size for s, size in zip(signs, sizes, strict=True)])
        for signs in product((-1, 1), repeat=count)
    ]
    sums = [sum(picked) for picked in product(*((0, rank) for rank in range(1, count + 1)))]
    beyond = accumulate(sums.count(total) / 2**count for total in range(max(sums) + 1))
    expected = max(share for share in beyond if share <= TAIL)
    assert sum(found.low > 0 for found in signed) == expected * 2**count
    assert sum(found.high < 0 for found in signed) == expected * 2**count


@pytest.mark.parametrize(
    ("centre", "low", "high", "outcome"),
    [
        (0.00, -0.01, 0.01, "pass"),
        (0.05, 0.04, 0.06, "pass"),
        (0.05, 0.00, 0.10, "cannot tell"),
        (0.00, -0.11, 0.11, "cannot tell"),
        (0.06, 0.01, 0.11, "fail"),
        (0.06, 0.00, 0.12, "cannot tell"),
        (-0.5, -0.6, -0.4, "pass"),
    ],
)
def test_the_rule_of_the_verdict(centre: float, low: float, high: float, outcome: Outcome) -> None:
    assert statistics.outcome_of(SlowDown(centre, low, high), 0.05) == outcome


def test_pairs_are_enough_when_the_interval_is_as_wide_as_twice_the_tolerance() -> None:
    assert statistics.narrow_enough(SlowDown(9, 8.95, 9.04), 0.05)
    assert not statistics.narrow_enough(SlowDown(0, -0.05, 0.06), 0.05)


# Simulations. What a machine does to the rounds of one pair of processes, as logarithms and in the
# order of time; of each kind so much that it takes 8 to 16 pairs to know a slow-down to 2.5 %.

TOLERANCE, MOST_PAIRS, TRIALS = 0.025, 16, 200
ROUNDS = range(4 * QUADS)


def independent(rng: random.Random) -> list[float]:
    return [rng.gauss(0, 0.06) for _ in ROUNDS]


def heavy_tailed(rng: random.Random) -> list[float]:
    """Student's t with 2 degrees of freedom, which has no variance."""
    return [rng.gauss(0, 0.03) / math.sqrt(rng.gammavariate(1, 1)) for _ in ROUNDS]


def stretched(rng: random.Random) -> list[float]:
    """One round in 20 takes up to four times as long, and none is quicker."""
    return [rng.gauss(0, 0.02) + (rng.random() < 0.05) * rng.uniform(0, 1.4) for _ in ROUNDS]


def drifting(rng: random.Random) -> list[float]:
    slope = rng.gauss(0, 0.2)
    return [slope * i + rng.gauss(0, 0.05) for i in ROUNDS]


def correlated(rng: random.Random) -> list[float]:
    """What disturbs a round lasts for about three."""
    noise = accumulate((rng.gauss(0, 0.1) for _ in ROUNDS), lambda old, new: 0.7 * old + new)
    return list(noise)


KINDS = (independent, heavy_tailed, stretched, drifting, correlated)


def pair_of(rng: random.Random, noise: Noise, own: float, slower: float, first: int) -> list[float]:
    """The quads of one pair of processes, each of which is by chance slower by about `own`."""
    process = [rng.gauss(0, own), rng.gauss(0, own) + math.log1p(slower)]
    rounds, quads = iter(noise(rng)), []
    for number in range(QUADS):
        begins = (first + number) % 2
        took: tuple[list[float], list[float]] = ([], [])
        for side in (begins, 1 - begins, 1 - begins, begins):
            took[side].append(math.exp(next(rounds) + process[side]))
        quads.append(statistics.quad(*took))
    return quads


def compared(noise: Noise, own: float, slower: float) -> list[Compared]:
    """Whole comparisons of both metrics, each of which ends when it knows enough."""
    rng, done = random.Random(1), []
    for _ in range(TRIALS):
        found = Compared()
        while found.pairs < MOST_PAIRS and not found.decided(math.log1p(TOLERANCE)):
            first = found.pairs
            for name in METRICS:
                found.quads[name].append(pair_of(rng, noise, own, slower, first))
        done.append(found)
    return done


def shares(done: list[Compared]) -> dict[Outcome, float]:
    """How often each outcome was that of the worse metric."""
    outcomes = Counter(
        worst(
            statistics.outcome_of(found.slow_down(name), math.log1p(TOLERANCE)) for name in METRICS
        )
        for found in done
    )
    return {outcome: count / len(done) for outcome, count in outcomes.items()}


@pytest.mark.parametrize("own", [0.0, 0.02])
@pytest.mark.parametrize("noise", KINDS)
def test_no_change_seldom_fails_and_5_percent_seldom_passes(noise: Noise, own: float) -> None:
    unchanged = compared(noise, own, slower=0)
    # These figures are of a machine that is neither quiet nor so busy that nobody can tell.
    assert fmean(found.pairs for found in unchanged) > LEAST_PAIRS + 1
    found = shares(unchanged)
    assert found.get("fail", 0) <= 0.05
    assert found["pass"] > 0.6
    slower = shares(compared(noise, own, slower=0.05))
    assert slower["fail"] >= 0.95
    assert "pass" not in slower


def test_what_a_process_got_by_chance_is_counted_once() -> None:
    rng = random.Random(1)
    alarms = Counter[str]()
    for _ in range(TRIALS):
        pairs = [pair_of(rng, independent, 0.1, 0, first) for first in range(LEAST_PAIRS)]
        quads = [quad for pair in pairs for quad in pair]
        alarms["pairs"] += statistics.slow_down(pairs).low > 0
        alarms["quads"] += slow_down(quads).low > 0
    assert alarms["pairs"] <= 0.025 * TRIALS
    assert alarms["quads"] > 0.1 * TRIALS  # what would come of taking each quad for a unit


def single(rng: random.Random, slower: float, tolerance: float, least: int, most: int) -> SlowDown:
    """One metric, from pairs that scatter by 1 and are at least so many."""
    values = [slower + rng.gauss(0, 1) for _ in range(least)]
    while not statistics.narrow_enough(slow_down(values), tolerance) and len(values) < most:
        values.append(slower + rng.gauss(0, 1))
    return slow_down(values)


@pytest.mark.parametrize(
    ("tolerance", "least", "most"),
    [
        (0.1, 16, 16),  # the interval decides: the tolerance is far inside it
        (0.9, 16, 16),  # the tolerance decides
        (0.7, 8, 24),  # stops when the interval is as wide as the tolerance, after 8 to 24
    ],
)
def test_the_minimum_detectable_slow_down_fails_in_95_percent(
    tolerance: float, least: int, most: int
) -> None:
    def failed(slower: float) -> float:
        rng = random.Random(3)
        found = [single(rng, slower, tolerance, least, most) for _ in range(400)]
        return fmean(statistics.outcome_of(each, tolerance) == "fail" for each in found)

    rng = random.Random(2)
    spread = [single(rng, 0, tolerance, least, most) for _ in range(100)]
    stated = median(statistics.minimum_detectable(each, tolerance) for each in spread)
    assert 0.91 <= failed(stated) <= 0.98
    assert failed(0.8 * stated) < 0.87


@pytest.mark.parametrize("tolerance", [0.5, 0.7, 0.9])
def test_to_stop_at_a_width_does_not_multiply_false_alarms(tolerance: float) -> None:
    """To stop at the first interval without 0, which nobody may do, would."""
    rng, stopped, peeped, trials = random.Random(4), 0, 0, 400
    for _ in range(trials):
        stopped += single(rng, 0, tolerance, least=8, most=24).low > 0
        values = [rng.gauss(0, 1) for _ in range(24)]
        peeped += any(slow_down(values[:count]).low > 0 for count in range(8, 25))
    assert stopped <= 0.025 * trials
    assert peeped > 0.03 * trials
