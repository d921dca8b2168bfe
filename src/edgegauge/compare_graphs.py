"""Comparing two results of graphs that are not generative language models.

    comparison = compare_graphs(a, b)   # InputError where the two are not comparable

`ratio.py` says how sure a ratio is, `comparable.py` what has to agree.
"""

from __future__ import annotations

from statistics import median

from edgegauge.comparable import graph_differences, notes
from edgegauge.compare import Comparison, refuse
from edgegauge.graph_result import GraphResult
from edgegauge.ratio import (
    AMOUNT,
    DEFAULT_THRESHOLD,
    RATE,
    TIME,
    Row,
    from_runs,
    of_energy,
    tails,
)


def compare_graphs(
    a: GraphResult, b: GraphResult, *, threshold: float = DEFAULT_THRESHOLD, force: bool = False
) -> Comparison:
    """B against A; `threshold` is a share of at least 0.

    Raises InputError that names every difference of conditions, unless `force` is set.
    """
    found = graph_differences(a, b)
    if found and not force:
        raise refuse(found)
    ours, theirs = a.summary, b.summary
    latency, tail, rate, peak, energy = (
        Row(name=name, noun=noun, a=x, b=y)
        for name, noun, x, y in (
            ("latency_p50_s", "latency, p50", ours.latency_s.p50, theirs.latency_s.p50),
            ("latency_p99_s", "latency, p99", ours.latency_s.p99, theirs.latency_s.p99),
            ("inferences_per_s", "inferences", ours.inferences_per_s, theirs.inferences_per_s),
            ("peak_memory_bytes", "peak memory", ours.memory.peak_rss_bytes,
             theirs.memory.peak_rss_bytes),
            ("j_per_inference", "energy per inference", ours.j_per_inference,
             theirs.j_per_inference),
        )
    )  # fmt: skip
    times = [_times(result) for result in (a, b)]
    slowest = [tails([run.latencies_s for run in r.samples]) for r in (a, b)]
    peaks = [[float(run.peak_rss_bytes or 0) for run in r.samples] for r in (a, b)]
    rows = [
        from_runs(latency, TIME, times, threshold),
        from_runs(tail, TIME, slowest, threshold),
        from_runs(rate, RATE, [[1 / t for t in values] for values in times], threshold),
        from_runs(peak, AMOUNT, peaks, threshold),
        of_energy(energy, a.energy, b.energy, lambda e: e.j_per_inference, threshold),
    ]
    return Comparison(rows, found, notes(a, b))


def _times(result: GraphResult) -> list[float]:
    """The median latency of each run, above nothing."""
    found = (median(run.latencies_s) for run in result.samples)
    return [time for time in found if time > 0]
