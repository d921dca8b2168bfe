"""From timings of synthetic models to a calibration: coefficients with their errors.

    found = fitted("llama.cpp", timings, cache_bytes=32e6)
    found.decode["layer"]                # Coefficient(value=1.1e-05, error=2e-07)

Times are positive sums of positive costs, so the fit is least squares without negative coefficients
(Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23), on relative errors: a model
of a millisecond per token counts as much as one of a hundred. The errors of coefficients are those
of refits to simulated times, which scatter as the runs or the residuals do: unlike the covariance
of a free fit they know that nothing is negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from edgegauge.calibration import (
    HABITS,
    PAST,
    Costs,
    Terms,
    bits_of,
    decode_work,
    last_step,
    nearest,
    prefill_work,
)
from edgegauge.device import Calibration, Coefficient
from edgegauge.errors import MeasurementError
from edgegauge.work import Work

LEAST_NOISE = 0.01
"""No timing is taken to be better than this."""

DRAWS = 200
"""Refits to times that scatter as these do, whose spread is the error of a coefficient."""

LEAST_WEIGHTS = 0.01
"""A type with a smaller share of every model's weights has no coefficient."""

CLEAR_WEIGHTS, CLEAR_COUNT = 0.1, 2e6
"""What reading a type adds is told by models of which it is this share, and so many weights."""

LEAST_SHARE = 0.1
"""Of a prompt's time: at least so much is its own, whatever its last step is taken to need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model under one workload."""

    work: Work
    prompt_tokens: int
    depth: int
    """Tokens in the cache in the middle of decoding."""
    decode_s: float
    """Per token."""
    prefill_s: float
    noise: float
    """Standard deviation of repeated runs, as a share."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients of one kind of time, and the standard deviation of measured / fitted."""

    coefficients: dict[str, Coefficient]
    residual: float
    correlations: list[list[float]]
    """Of the errors of each with those before it."""


@dataclass(frozen=True, slots=True)
class _Row:
    """Work that took `seconds`; `known` of them are explained already."""

    terms: Terms
    seconds: float
    known: float = 0.0


def calibration_of(
    runtime: str,
    timings: Sequence[Timing],
    *,
    runtime_version: str,
    threads: int,
    cache_bytes: float,
    source: str,
    trustworthy: bool = True,
) -> Calibration:
    """The calibration that these timings give; MeasurementError where they allow none."""
    decode, prefill = fitted(runtime, timings, cache_bytes)
    return Calibration(
        runtime_version=runtime_version, threads=threads, cache_bytes=cache_bytes,
        decode=decode.coefficients, prefill=prefill.coefficients,
        decode_residual=decode.residual, prefill_residual=prefill.residual,
        decode_correlations=decode.correlations, prefill_correlations=prefill.correlations,
        trustworthy=trustworthy, source=source,
    )  # fmt: skip


def fitted(runtime: str, timings: Sequence[Timing], cache_bytes: float) -> tuple[Fit, Fit]:
    """The fits of decoding and of prompts; MeasurementError where the times allow none."""
    habits = HABITS[runtime]
    # The noise of one workload is known from two runs only, too few to weigh it by.
    noise = max(median(t.noise for t in timings), LEAST_NOISE)
    decode = _fit(
        [_Row(decode_work(t.work, t.depth, cache_bytes, habits), t.decode_s) for t in timings],
        noise,
    )
    costs = Costs(decode.coefficients)
    rows = []
    for t in timings:
        last, _ = costs.seconds(last_step(t.work, t.prompt_tokens, cache_bytes, habits))
        known = min(last, (1 - LEAST_SHARE) * t.prefill_s)
        terms = prefill_work(t.work, t.prompt_tokens, habits)
        rows.append(_Row(terms, t.prefill_s, known))
    return decode, _fit(rows, noise)


def _fit(rows: Sequence[_Row], noise: float) -> Fit:
    import numpy as np

    if not all(row.seconds > 0 for row in rows):
        raise MeasurementError("a run took no time at all: nothing can be fitted to it")
    names, rows = _told(rows)
    shares = np.array([[r.terms.get(n, 0.0) / r.seconds for n in names] for r in rows])
    wanted = np.array([1 - r.known / r.seconds for r in rows])
    scale = shares.max(axis=0)
    matrix = shares / scale
    found = non_negative(matrix, wanted)
    away = matrix @ found - wanted
    freedom = max(1, len(rows) - int((found > 0).sum()))
    residual = math.sqrt((away**2).sum() / freedom)
    draws = np.random.default_rng(0).standard_normal((DRAWS, len(rows))) * max(residual, noise)
    refits = np.array([non_negative(matrix, matrix @ found + draw) for draw in draws])
    errors = np.std(refits, axis=0)
    coefficients = {
        name: Coefficient(value=_rounded(value), error=_rounded(error))
        for name, value, error in zip(names, found / scale, errors / scale, strict=True)
    }
    return Fit(coefficients, round(residual, 4), _correlations(refits))


def _correlations(refits: Any) -> list[list[float]]:
    """Of each column with those before it; none with one that is always the same."""
    import numpy as np

    away = refits - np.mean(refits, axis=0)
    size = np.sqrt((away**2).sum(axis=0))
    away = away / np.where(size > 0, size, 1.0)
    matrix = np.clip(away.T @ away, -1, 1)
    return [[round(float(r), 3) for r in row[:i]] for i, row in enumerate(matrix)]


def _told(rows: Sequence[_Row]) -> tuple[list[str], list[_Row]]:
    """The work that these rows tell the cost of, and the rows with all work in terms of it.

    A type that only vectors have is too little to see. What reading a type adds is told by models
    inside the cache and past it; elsewhere it counts as that of the type that stands in for it.
    """
    names = {name for row in rows for name, amount in row.terms.items() if amount}
    told = [name for name in names if not bits_of(name)]
    for kind in (name for name in names if bits_of(name) and not name.endswith(PAST)):
        shares = [_share(kind, row) for row in rows]
        if max(shares) < LEAST_WEIGHTS:
            continue
        told.append(kind)
        clear = [
            row.terms[kind + PAST] / row.terms[kind]
            for row, share in zip(rows, shares, strict=True)
            if share >= CLEAR_WEIGHTS and row.terms[kind] >= CLEAR_COUNT and kind + PAST in names
        ]
        if clear and min(clear) < 0.5 < max(clear):
            told.append(kind + PAST)
    return sorted(told), [_in_terms_of(told, row) for row in rows]


def _in_terms_of(told: Sequence[str], row: _Row) -> _Row:
    """The row with the reading of other types added to that of those which stand in for them."""
    terms: Terms = {}
    for name, amount in row.terms.items():
        found = nearest(name, told) if name.endswith(PAST) and name not in told else None
        other, times = found or (name, 1.0)
        terms[other] = terms.get(other, 0.0) + times * amount
    return replace(row, terms=terms)


def _share(kind: str, row: _Row) -> float:
    """Of the row's weights."""
    weights = (n for name, n in row.terms.items() if bits_of(name) and not name.endswith(PAST))
    return row.terms.get(kind, 0.0) / sum(weights)


def non_negative(matrix: Any, wanted: Any) -> Any:
    """The x >= 0 that minimises |matrix x - wanted|: arrays (rows, columns) and (rows,)."""
    import numpy as np

    columns = matrix.shape[1]
    free = np.zeros(columns, bool)
    found = np.zeros(columns)
    for _ in range(10 * columns):
        gain = matrix.T @ (wanted - matrix @ found)
        gain[free] = 0
        if gain.max() <= 1e-10:
            break
        free[gain.argmax()] = True
        while True:
            best = np.zeros(columns)
            best[free] = np.linalg.lstsq(matrix[:, free], wanted, rcond=None)[0]
            below = free & (best <= 0)
            if not below.any():
                break
            # Go as far towards the best as nothing becomes negative, and hold what became zero.
            step = (found[below] / (found[below] - best[below])).min()
            found += step * (best - found)
            free &= found > 1e-14
            found[~free] = 0
        found = best
    return found


def _rounded(value: float) -> float:
    """Four significant digits: more mean nothing, and a reader has to pass them over."""
    return float(f"{value:.4g}")
