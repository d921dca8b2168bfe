"""Order statistics: sample sizes, ranks and coverage against known values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.measure.statistics import (
    centre,
    least_samples,
    quantile,
    ranks,
    repeatability,
    stall_share,
    t_95,
)

VALUES = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=120)


@pytest.mark.parametrize(("p", "n"), [(0.9, 29), (0.95, 59), (0.99, 299)])
def test_a_percentile_needs_its_sample(p: float, n: int) -> None:
    assert least_samples(p) == n
    assert quantile([1.0] * (n - 1), p) is None
    assert quantile([1.0] * n, p) is not None


@pytest.mark.parametrize(("p", "n"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_both_sides_are_bounded_from_a_known_size_on(p: float, n: int) -> None:
    assert None in ranks(n - 1, p)
    assert None not in ranks(n, p)


def test_ranks_are_those_of_the_tables() -> None:
    # 95 % interval of the median: n = 10 and 20 of Conover's table A3; p99 of 1000: 983 to 997.
    assert ranks(10, 0.5) == (2, 9)
    assert ranks(20, 0.5) == (6, 15)
    assert ranks(1000, 0.99) == (983, 997)


@pytest.mark.parametrize(("n", "p"), [(9, 0.5), (60, 0.9), (400, 0.99)])
def test_the_interval_covers_the_quantile_of_a_skewed_distribution(n: int, p: float) -> None:
    draw = random.Random(7)
    # The p-quantile of exp(0.5 Z) where Z has the p-quantile z.
    z = {0.5: 0.0, 0.9: 1.2815515655, 0.99: 2.3263478740}[p]
    truth, trials, covered = math.exp(0.5 * z), 600, 0
    for _ in range(trials):
        values = [math.exp(0.5 * draw.gauss(0, 1)) for _ in range(n)]
        found = centre(values) if p == 0.5 else quantile(values, p)
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
    # Three standard errors of a share of 0.95 over 600 trials are 0.027.
    assert covered / trials >= 0.95 - 0.027


@given(VALUES)
def test_the_centre_lies_in_its_interval_and_order_does_not_matter(values: list[float]) -> None:
    found = centre(values)
    assert found.low <= found.value <= found.high
    assert centre(values[::-1]) == found
    assert (found.covers is None) == (len(values) < 6)


@given(VALUES, st.sampled_from([0.9, 0.95, 0.99]))
def test_a_quantile_lies_in_its_interval(values: list[float], p: float) -> None:
    found = quantile(values, p)
    if found is not None:
        assert found.value in values
        assert found.low is None or found.low <= found.value
        assert found.high is None or found.value <= found.high


def test_few_values_give_their_range() -> None:
    found = centre([3.0, 1.0, 2.0])
    assert (found.value, found.low, found.high, found.covers) == (2.0, 1.0, 3.0, None)
    assert found.spread == 1.0


def test_no_values_have_no_median() -> None:
    with pytest.raises(ValueError, match="no values"):
        centre([])


def test_a_large_sample_takes_the_same_road() -> None:
    n = 200_000
    low, high = ranks(n, 0.99)
    deviation = math.sqrt(n * 0.99 * 0.01)
    assert low is not None and high is not None
    assert low == pytest.approx(n * 0.99 - 1.96 * deviation, abs=3)
    assert high == pytest.approx(n * 0.99 + 1.96 * deviation, abs=3)


def test_one_stall_shows_in_the_share_of_time() -> None:
    assert stall_share([0.01] * 99) == 0.0
    assert stall_share([0.01] * 99 + [0.99]) == pytest.approx(0.5)
    assert stall_share([]) is None


# --- the 99th percentile of latencies ---

NORMAL = NormalDist()


def log_normal(uniform: np.ndarray) -> np.ndarray:
    """Latencies of about 20 ms."""
    return 0.020 * np.exp(0.25 * normal(uniform))


def bimodal(uniform: np.ndarray) -> np.ndarray:
    """Every fiftieth token meets a stall of 150 ms, so the 99th percentile lies among those."""
    stalls = uniform >= 0.98
    usual = 0.020 * np.exp(0.1 * normal(np.where(stalls, 0.5, uniform / 0.98)))
    return np.where(stalls, 0.150 * np.exp(0.3 * normal((uniform - 0.98) / 0.02)), usual)


def normal(uniform: np.ndarray) -> np.ndarray:
    return np.interp(uniform, *GRID)


SHARES = np.linspace(0.0005, 0.9995, 2000)
GRID = (SHARES, np.array([NORMAL.inv_cdf(float(share)) for share in SHARES]))
"""Shapes are functions of a uniform number that never fall, so the truth is their value at 0.99."""


@pytest.mark.parametrize("n", [368, 500, 1000])
@pytest.mark.parametrize("shape", [log_normal, bimodal])
def test_the_interval_of_the_99th_percentile_covers_it(
    shape: Callable[[np.ndarray], np.ndarray], n: int
) -> None:
    truth, covered, trials = shape(np.array(0.99)), 0, 1000
    draw = np.random.default_rng(n)
    for _ in range(trials):
        found = quantile(shape(draw.uniform(size=n)).tolist(), 0.99)
        assert found is not None and found.low is not None and found.high is not None
        covered += bool(found.low <= truth <= found.high)
    assert covered >= 0.95 * trials


@pytest.mark.parametrize("shape", [log_normal, bimodal])
def test_the_largest_of_299_exceeds_the_99th_percentile(
    shape: Callable[[np.ndarray], np.ndarray],
) -> None:
    truth, trials = shape(np.array(0.99)), 1000
    draw = np.random.default_rng(3)
    exceeded = below = 0
    for _ in range(trials):
        values = shape(draw.uniform(size=299)).tolist()
        found = quantile(values, 0.99)
        assert found is not None and found.low is not None and found.high is None
        exceeded += bool(max(values) >= truth)
        below += bool(found.low <= truth)
    # By 0.05 % of all samples; three standard errors of 1000 trials are 2.1 %.
    assert 1 - 0.99**299 >= 0.95 > 1 - 0.99**298
    assert exceeded >= (0.95 - 0.021) * trials
    assert below >= 0.95 * trials


# --- would another call agree? ---


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000)]
)
def test_students_t_is_that_of_the_tables(freedom: int, t: float) -> None:
    assert t_95(freedom) == pytest.approx(t, abs=0.001)


def test_repeatability_is_the_half_width_of_the_mean_of_runs() -> None:
    # Logs of -0.01, 0, 0.01: s = 0.01, and 4.303 x 0.01 / sqrt(3) = 0.0248.
    runs = [math.exp(x) for x in (-0.01, 0.0, 0.01)]
    assert repeatability(runs) == pytest.approx(math.expm1(0.02484), rel=1e-3)
    assert repeatability([5.0] * 4) == 0.0


@pytest.mark.parametrize("runs", [[], [1.0], [1.0, 0.0], [1.0, -2.0]])
def test_one_run_says_nothing_about_the_next(runs: list[float]) -> None:
    assert repeatability(runs) is None


def test_the_repeatability_holds_between_calls() -> None:
    # Five runs each with 1 % between processes: the truth lies within it in 95 % of calls, and two
    # calls agree to within both.
    draw = random.Random(5)
    trials, held, agreed = 1000, 0, 0
    for _ in range(trials):
        calls = [[math.exp(draw.gauss(0, 0.01)) for _ in range(5)] for _ in range(2)]
        means = [sum(map(math.log, runs)) / 5 for runs in calls]
        widths = [math.log1p(repeatability(runs) or 0.0) for runs in calls]
        held += abs(means[0]) <= widths[0]
        agreed += abs(means[0] - means[1]) <= math.hypot(*widths)
    assert held / trials >= 0.95 - 0.021  # three standard errors
    assert agreed / trials >= 0.95
