"""What could have spoiled a measurement: findings from the host's states and from the runs.

A finding that `spoils` makes the result not trustworthy (exit status 4); others are worth knowing
and no more. Each names the one command or action that mends it.

    spoils                                           is only said
    the processor throttled (not in sustained mode)  other programs used more than 10 % of the CPUs
    the system or the model's process swapped        the governor is not `performance`
    weights were re-read from storage                running on battery, a saving profile
    the charger was connected or disconnected        prefill scatters
    the machine slept                                fewer than 6 rounds
    others took over a quarter of a full machine
    decode does not repeat: see `REPEATABLE`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from edgegauge.measure import memory_outcome
from edgegauge.measure.disturbance import (
    load_findings,
    power_findings,
    swap_findings,
    time_findings,
)
from edgegauge.measure.finding import Finding
from edgegauge.measure.statistics import Centre, repeatability
from edgegauge.measure.throttling import throttle_findings
from edgegauge.result import Run

REPEATABLE = 0.014
"""Largest half width of the interval of the median, as a share of it and judged by how the runs
differ from one another. Two calls of this half width differ by less than sqrt(2) as much, 2 %."""
LEAST_RUNS = 3
"""Runs from which their differences tell anything."""
MOST_SPREAD = 0.10
"""Widest interval of a rate's median over rounds, as a share of it, where runs cannot judge it."""
MOST_RUNS = 1000
FEW_ROUNDS = 6


def of_host(
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    cores: int,
    own_cpu_s: float,
    during: Sequence[dict[str, Any]] = (),
    sustained: bool = False,
) -> Iterator[Finding]:
    """Findings from states of `host.state`, and of a `Monitor` in between.

    `own_cpu_s` is the CPU time of the children. With `sustained`, throttling spoils nothing: it is
    what such a measurement looks for.
    """
    yield from throttle_findings(before, after, during, sustained=sustained)
    yield from load_findings(before, after, during, cores=cores, own_cpu_s=own_cpu_s)
    yield from swap_findings(before, after)
    yield from power_findings(before, after, during)
    yield from time_findings(before, after)


def of_runs(
    runs: Sequence[Run], rates: dict[str, Centre], *, refaulted_pages: int | None = None
) -> Iterator[Finding]:
    """Findings from the runs themselves; `rates` are the medians over rounds, by their name."""
    yield from _memory(runs, refaulted_pages)
    if "decode" in rates:
        yield from _decode(runs, rates["decode"])
    if "prefill" in rates and rates["prefill"].spread > MOST_SPREAD:
        yield _scatter("prefill", rates["prefill"], spoils=False)
    rounds = sum(len(run.rounds) for run in runs)
    if rounds < FEW_ROUNDS:
        text = f"only {rounds} rounds: intervals are ranges, not confidence intervals"
        yield Finding(text, mend="--runs 3 --repetitions 3 gives nine")


def half_width(runs: Sequence[Run]) -> float | None:
    """How well the decode medians of the runs agree: half an interval, as a share of the median.

    None for fewer than `LEAST_RUNS` runs with rounds that decode.
    """
    medians = [m for run in runs if (m := _median_rate(run)) is not None]
    return repeatability(medians) if len(medians) >= LEAST_RUNS else None


def _decode(runs: Sequence[Run], rate: Centre) -> Iterator[Finding]:
    """One rule: by the runs where there are enough of them, else by the rounds."""
    half = half_width(runs)
    if half is None:
        if rate.spread > MOST_SPREAD:
            yield _scatter("decode", rate, spoils=True)
    elif half > REPEATABLE:
        # The half width shrinks with the root of the number of runs.
        more = min(MOST_RUNS, math.ceil(len(runs) * (half / REPEATABLE) ** 2))
        text = f"decode is known to ±{100 * half:.1f} % only: two calls may differ by more than 2 %"
        yield Finding(text, True, f"stop other programs, or measure longer with --runs {more}")


def _scatter(name: str, rate: Centre, *, spoils: bool) -> Finding:
    text = f"{name} scatters by {100 * rate.spread:.0f} % over {rate.samples} rounds"
    return Finding(text, spoils, "stop other programs, or measure longer with --repetitions")


def _memory(runs: Sequence[Run], refaulted_pages: int | None) -> Iterator[Finding]:
    mend = "free memory, or use a smaller artifact: `edgegauge fit` names those that fit"
    if swap := max((memory_outcome.swapped_bytes(r) or 0 for r in runs), default=0):
        yield Finding(f"{swap} bytes of the model's process were swapped out", True, mend)
    faults = max((r.major_faults or 0 for r in runs if memory_outcome.refaulting(r)), default=0)
    if faults:
        text = f"{faults} pages were re-read from storage in the timed rounds of one run"
        yield Finding(text, True, mend)
    elif memory_outcome.reread(runs, refaulted_pages):
        text = f"the system re-read {refaulted_pages} pages of files that it had dropped"
        yield Finding(text, True, mend)


def _median_rate(run: Run) -> float | None:
    """Median over the rounds of steps per second; None without steps."""
    spent_s = [(len(r.inter_token_s), math.fsum(r.inter_token_s)) for r in run.rounds]
    rates = [steps / seconds for steps, seconds in spent_s if seconds]
    return median(rates) if rates else None
