"""Intervals and tests for counts and log-likelihoods, in plain Python. All are two-sided 95 %."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Z = 1.959963984540054
"""97.5 % point of the normal distribution."""

TAIL = 0.025


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Score interval of a proportion (Wilson, J. Am. Stat. Assoc. 22, 1927).

    It stays inside 0..1 and is not empty at 0 or `total` successes, unlike the normal one.
    """
    share = successes / total
    scale = 1 + Z * Z / total
    centre = share + Z * Z / (2 * total)
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total))
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == total else (centre + half) / scale
    return max(0.0, low), min(1.0, high)


def binomial_at_most(successes: int, total: int, share: float) -> float:
    """P(X <= successes) for X ~ Binomial(total, share), by the tail that lies off the mean."""
    if successes >= total or share <= 0:
        return 1.0
    if successes < 0 or share >= 1:
        return 0.0
    if successes <= total * share:
        return _tail(successes, total, share)
    return 1 - _tail(total - successes - 1, total, 1 - share)


def _tail(successes: int, total: int, share: float) -> float:
    """P(X <= successes) below the mean, where every term is smaller than the one after it."""
    ways = math.lgamma(total + 1) - math.lgamma(successes + 1) - math.lgamma(total - successes + 1)
    term = math.exp(ways + successes * math.log(share) + (total - successes) * math.log1p(-share))
    odds = (1 - share) / share
    terms = [term]
    for k in range(successes, 0, -1):
        term *= odds * k / (total - k + 1)
        terms.append(term)
        if term < terms[0] * 1e-18:
            break
    return min(1.0, math.fsum(terms))


def clopper_pearson(successes: int, total: int) -> tuple[float, float]:
    """Exact interval of a proportion: the shares that neither one-sided 2.5 % test refuses."""
    if total == 0:
        return 0.0, 1.0
    low = 0.0
    if successes > 0:
        low = _bisect(lambda p: 1 - binomial_at_most(successes - 1, total, p) >= TAIL)
    high = 1.0
    if successes < total:
        high = _bisect(lambda p: binomial_at_most(successes, total, p) < TAIL)
    return low, high


def _bisect(reached: Callable[[float], bool]) -> float:
    """The share in 0..1 from which on `reached` holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return (low + high) / 2


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided p-value that A and B are equally good, from the items only one of them got right.

    Under that hypothesis each such item is a fair coin (McNemar, Psychometrika 12, 1947).
    """
    discordant = only_a + only_b
    return min(1.0, 2 * binomial_at_most(min(only_a, only_b), discordant, 0.5))


def paired_interval(only_a: int, only_b: int, total: int) -> tuple[float, float]:
    """Interval of share(B) - share(A) over `total` items that both answered.

    The difference is q (2p - 1) with q the share of items on which they disagree and p the share of
    those that B got right; exact intervals of both are combined. It excludes 0 exactly when
    `mcnemar_exact` is below 5 %, and it has a width when they never disagree.
    """
    disagree_low, disagree_high = clopper_pearson(only_a + only_b, total)
    low, high = (2 * p - 1 for p in clopper_pearson(only_b, only_a + only_b))
    return (
        low * (disagree_low if low > 0 else disagree_high),
        high * (disagree_high if high > 0 else disagree_low),
    )


def student_t(freedom: int) -> float:
    """97.5 % point of Student's t; Cornish-Fisher expansion, within 0.3 % for 3 and more.

    (Abramowitz and Stegun, 26.7.5; the cases 1 and 2 have closed forms.)
    """
    if freedom == 1:
        return math.tan(math.pi * (0.5 - TAIL))
    if freedom == 2:
        share = 1 - 2 * TAIL
        return share * math.sqrt(2 / (1 - share * share))
    terms = (
        Z,
        (Z**3 + Z) / 4,
        (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
        (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / 92160,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))


def ratio_half_width(numerators: Sequence[float], denominators: Sequence[int]) -> float | None:
    """Half width of the interval of sum(numerators) / sum(denominators) over independent groups.

    Delta method with Student's t for the number of groups; None for fewer than two groups.
    """
    groups = len(numerators)
    if groups < 2:
        return None
    total = sum(denominators)
    ratio = math.fsum(numerators) / total
    residual = math.fsum(
        (n - ratio * d) ** 2 for n, d in zip(numerators, denominators, strict=True)
    )
    error = math.sqrt(residual * groups / (groups - 1)) / total
    return student_t(groups - 1) * error
