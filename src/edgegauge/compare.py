"""Comparing two results of language models, quantity by quantity.

    comparison = compare(a, b)          # InputError where the two are not comparable
    comparison.rows[0].verdict          # "faster"

`ratio.py` says how sure a ratio is, `comparable.py` what has to agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

from edgegauge.comparable import decode_depth, differences, notes
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.ratio import (
    AMOUNT,
    DEFAULT_THRESHOLD,
    RATE,
    TIME,
    Row,
    Words,
    from_runs,
    of_energy,
    tails,
)
from edgegauge.result import Percentiles, Repetitions, Result, Round


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two results, quantity by quantity; `differences` is empty unless it was forced."""

    rows: list[Row]
    differences: list[str]
    notes: list[str]


def refuse(found: list[str]) -> InputError:
    """The error for results of different conditions."""
    return InputError(
        "the results were not measured under the same conditions", found,
        hint="--force compares them anyway",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Metric:
    """A quantity: its figure in a summary, and its value in each run."""

    name: str
    noun: str
    words: Words
    figure: Callable[[Result], Figure | None]
    per_run: Callable[[Result], list[float]]
    of_decoding: bool = False


def compare(
    a: Result, b: Result, *, threshold: float = DEFAULT_THRESHOLD, force: bool = False
) -> Comparison:
    """B against A; `threshold` is a share of at least 0.

    Raises InputError that names every difference of conditions, unless `force` is set.
    """
    found = differences(a, b)
    if found and not force:
        raise refuse(found)
    rows = [_row(metric, a, b, threshold, force) for metric in _METRICS]
    energy = Row(
        name="energy_j_per_token", noun="energy per token",
        a=a.summary.energy_j_per_token, b=b.summary.energy_j_per_token,
    )  # fmt: skip
    rows.append(of_energy(energy, a.energy, b.energy, lambda e: e.decode_j_per_token, threshold))
    return Comparison(rows, found, notes(a, b))


def _row(metric: _Metric, a: Result, b: Result, threshold: float, force: bool) -> Row:
    row = Row(name=metric.name, noun=metric.noun, a=metric.figure(a), b=metric.figure(b))
    depths = (decode_depth(a), decode_depth(b))
    if metric.of_decoding and depths[0] != depths[1] and not force:
        return replace(row, reason=f"decoding began at {depths[0]} and at {depths[1]} tokens")
    return from_runs(row, metric.words, [metric.per_run(r) for r in (a, b)], threshold)


def _medians(result: Result, of_round: Callable[[Round], list[float]]) -> list[float]:
    """The median of each run, over what its rounds give; runs without a positive one are left out.

    A file may hold anything, and a time of nothing is not a time.
    """
    pooled = [[v for r in run.rounds for v in of_round(r) if v > 0] for run in result.samples]
    return [median(values) for values in pooled if values]


def _tests(result: Result, test: str) -> list[float]:
    """Median rate of each execution of another tool's test."""

    def rate(found: Repetitions) -> float:
        return found.tokens / median(s for s in found.seconds if s > 0)

    return [rate(t) for t in result.imported if t.test == test and max(t.seconds) > 0]


def _prefill(result: Result) -> list[float]:
    times = _medians(result, lambda r: [r.prefill_s])
    return [result.workload.prompt_tokens / s for s in times] or _tests(result, "prefill")


def _decode(result: Result) -> list[float]:
    def rate(found: Round) -> list[float]:
        total = math.fsum(found.inter_token_s)
        return [len(found.inter_token_s) / total] if total > 0 else []

    return _medians(result, rate) or _tests(result, "decode")


def _peaks(result: Result) -> list[float]:
    return [float(run.peak_rss_bytes) for run in result.samples if run.peak_rss_bytes]


def _tails(result: Result) -> list[float]:
    """The 99th percentile of the gaps of each run; nothing where a run has too few for one."""
    gaps = [[gap for r in run.rounds for gap in r.inter_token_s] for run in result.samples]
    return tails(gaps)


def _p50(found: Percentiles | None) -> Figure | None:
    return found.p50 if found else None


def _p99(found: Percentiles | None) -> Figure | None:
    return found.p99 if found else None


_METRICS = (
    _Metric(
        "prefill_tok_per_s", "prefill", RATE,
        lambda r: r.summary.prefill_tok_per_s, _prefill,
    ),
    _Metric(
        "decode_tok_per_s", "decode", RATE,
        lambda r: r.summary.decode_tok_per_s, _decode, of_decoding=True,
    ),
    _Metric(
        "ttft_s", "time to first token", TIME,
        lambda r: _p50(r.summary.ttft_s), lambda r: _medians(r, lambda x: [x.ttft_s]),
    ),
    _Metric(
        "inter_token_p50_s", "between tokens, p50", TIME,
        lambda r: _p50(r.summary.inter_token_s),
        lambda r: _medians(r, lambda x: x.inter_token_s), of_decoding=True,
    ),
    _Metric(
        "inter_token_p99_s", "between tokens, p99", TIME,
        lambda r: _p99(r.summary.inter_token_s), _tails, of_decoding=True,
    ),
    _Metric(
        "peak_memory_bytes", "peak memory", AMOUNT,
        lambda r: r.summary.memory.peak_rss_bytes, _peaks,
    ),
)  # fmt: skip
