"""Order statistics: sample sizes, ranks and coverage against known values."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.measure.statistics import centre, least_samples, quantile, ranks, stall_share

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
