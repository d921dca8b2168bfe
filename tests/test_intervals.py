"""Intervals against published values, and the properties that make them honest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.evaluate.intervals import (
    binomial_at_most,
    clopper_pearson,
    mcnemar_exact,
    paired_interval,
    ratio_half_width,
    student_t,
    wilson,
)

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_against_the_values_of_newcombe_1998() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    for successes, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_clopper_pearson_against_the_values_of_newcombe_1998() -> None:
    # The same table, method 5.
    for successes, total, low, high in (
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
    ):
        assert clopper_pearson(successes, total) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS)
def test_an_interval_of_a_share_holds_the_share_and_mirrors(counts: tuple[int, int]) -> None:
    successes, total = counts
    for interval in (wilson, clopper_pearson):
        low, high = interval(successes, total)
        assert 0 <= low <= successes / total <= high <= 1 and low < high
        assert interval(total - successes, total) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_student_t_against_tables() -> None:
    table = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 10: 2.2281, 30: 2.0423, 120: 1.9799}
    for freedom, point in table.items():
        assert student_t(freedom) == pytest.approx(point, rel=0.002)


def test_binomial_sums_against_exact_integers() -> None:
    for total, successes, share in ((20, 3, 0.25), (200, 120, 0.5), (1000, 10, 0.004)):
        exact = sum(
            math.comb(total, k) * share**k * (1 - share) ** (total - k)
            for k in range(successes + 1)
        )
        assert binomial_at_most(successes, total, share) == pytest.approx(exact, rel=1e-10)
    assert binomial_at_most(100, 100_000, 0.5) == 0.0  # far below what a float can hold


def test_mcnemar_is_a_coin_toss() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == 1.0
    assert mcnemar_exact(0, 6) == pytest.approx(2 / 64)
    assert mcnemar_exact(1, 9) == pytest.approx(2 * 11 / 1024)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 500))
def test_a_paired_interval_agrees_with_the_exact_test(
    only_a: int, only_b: int, agreeing: int
) -> None:
    total = only_a + only_b + agreeing
    low, high = paired_interval(only_a, only_b, total)
    assert -1 <= low <= (only_b - only_a) / total <= high <= 1 and low < high
    assert (low > 0 or high < 0) == (mcnemar_exact(only_a, only_b) < 0.05)
    assert paired_interval(only_b, only_a, total) == pytest.approx((-high, -low), abs=1e-9)


def test_a_ratio_of_equal_groups_has_the_interval_of_a_mean() -> None:
    values = [3.0, 5.0, 4.0, 8.0]
    mean = sum(values) / 4
    error = math.sqrt(sum((v - mean) ** 2 for v in values) / 3 / 4)
    # Groups of two units each: the ratio is the mean over two.
    half = ratio_half_width(values, [2, 2, 2, 2])
    assert half == pytest.approx(student_t(3) * error / 2)
    assert ratio_half_width([3.0], [2]) is None
