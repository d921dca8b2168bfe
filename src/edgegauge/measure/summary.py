"""The figures of a result, computed from its samples and nothing else.

    prefill_tok_per_s   parallel x prompt_tokens / prefill_s of a round; median over rounds
    decode_tok_per_s    parallel x (generated_tokens - 1) / sum of inter_token_s of a round; median
                        over rounds
    ttft_s              prefill and choosing the first token; one value per round
    inter_token_s       every gap after the first token, pooled over all rounds
    tpot_s              sum of inter_token_s / (generated_tokens - 1); one value per round
    load_s              opening the artifact, its file in the page cache; median over runs

With several sequences side by side, a prefill and a gap are of all of them together: the rates
count the tokens of all, and the times are what each of them waits.

The unit of evidence is the round: gaps of one round resemble each other, so the interval of the
median gap comes from the medians of the rounds. The 90th and 99th percentiles of gaps are taken
over the pool, as if gaps were independent, which makes their intervals somewhat too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from statistics import median

from edgegauge.figure import Figure, Unit
from edgegauge.measure.statistics import Centre, Quantile, centre, quantile, stall_share
from edgegauge.result import ChildRun, MemorySummary, Percentiles, Round, Run, Summary, Workload

ENERGY_REASON = "energy was not asked for"
MEMORY_SOURCE = "/proc/self/smaps_rollup of the child at the end of a phase"
PEAK_SOURCE = "VmHWM in /proc/self/status of the child"
RESIDENT_SOURCE = "psutil in the child at the end of a phase"


def summarise(runs: Sequence[Run], workload: Workload, source: str) -> Summary:
    """The summary of at least one run; `source` names the runtime."""
    rates = rates_of(runs, workload)
    rounds = [r for run in runs for r in run.rounds]
    gaps = [r.inter_token_s for r in rounds]
    stalled = stall_share(list(chain.from_iterable(gaps)))
    return Summary(
        prefill_tok_per_s=figure_of(rates["prefill"], "tok/s", source),
        decode_tok_per_s=figure_of(rates["decode"], "tok/s", source),
        ttft_s=percentiles_of([r.ttft_s for r in rounds], source),
        inter_token_s=_of_gaps(gaps, source),
        tpot_s=percentiles_of([math.fsum(g) / len(g) for g in gaps], source),
        stall_share=None if stalled is None else Figure(stalled, "1", "measured", source),
        load_s=_load(runs, source),
        memory=memory_of(runs),
        energy_reason=ENERGY_REASON,
    )


def rates_of(runs: Sequence[Run], workload: Workload) -> dict[str, Centre]:
    """Median `prefill` and `decode` rates in tokens per second, over all rounds of all runs."""
    rounds = [r for run in runs for r in run.rounds]
    prompts = workload.parallel * workload.prompt_tokens
    return {
        "prefill": centre([prompts / r.prefill_s for r in rounds]),
        "decode": centre([workload.parallel * _steps_per_s(r) for r in rounds]),
    }


def _steps_per_s(timed: Round) -> float:
    return len(timed.inter_token_s) / math.fsum(timed.inter_token_s)


def _load(runs: Sequence[Run], source: str) -> Figure | None:
    timed = [run.load_s for run in runs if run.load_s is not None]
    return figure_of(centre(timed), "s", source) if timed else None


def figure_of(found: Centre, unit: Unit, source: str) -> Figure:
    """A median as a measured figure with its interval."""
    return Figure(found.value, unit, "measured", source, found.low, found.high)


def _tail(found: Quantile | None, source: str) -> Figure | None:
    if found is None:
        return None
    return Figure(found.value, "s", "measured", source, found.low, found.high)


def percentiles_of(values: Sequence[float], source: str) -> Percentiles:
    """Order statistics of seconds that are independent of one another."""
    return Percentiles(
        p50=figure_of(centre(values), "s", source),
        p90=_tail(quantile(values, 0.9), source),
        p99=_tail(quantile(values, 0.99), source),
        max=Figure(max(values), "s", "measured", source),
        samples=len(values),
    )


def _of_gaps(gaps: list[list[float]], source: str) -> Percentiles:
    pooled = list(chain.from_iterable(gaps))
    middle, rounds = median(pooled), centre([median(g) for g in gaps])
    return Percentiles(
        # The pooled median may fall outside an interval of medians when rounds differ.
        p50=Figure(
            middle, "s", "measured", source, min(middle, rounds.low), max(middle, rounds.high)
        ),
        p90=_tail(quantile(pooled, 0.9), source),
        p99=_tail(quantile(pooled, 0.99), source),
        max=Figure(max(pooled), "s", "measured", source),
        samples=len(pooled),
    )


def memory_of(runs: Sequence[ChildRun]) -> MemorySummary:
    """Peaks over all runs; the phases are those of the run with the largest peak."""
    phases = [phase for run in runs for phase in run.phases.values()]
    largest = max(runs, key=lambda run: run.peak_rss_bytes or 0)
    exact = any(phase.anonymous_bytes is not None for phase in phases)
    return MemorySummary(
        peak_rss_bytes=_bytes(
            [run.peak_rss_bytes for run in runs], PEAK_SOURCE if exact else RESIDENT_SOURCE
        ),
        peak_anonymous_bytes=_bytes([p.anonymous_bytes for p in phases], MEMORY_SOURCE),
        peak_file_bytes=_bytes([p.file_bytes for p in phases], MEMORY_SOURCE),
        phases=largest.phases,
    )


def _bytes(values: Sequence[int | None], source: str) -> Figure | None:
    """The largest value that is known."""
    known = [value for value in values if value is not None]
    return Figure(max(known), "bytes", "measured", source) if known else None
