"""Alignment: a known offset and drift are recovered within the uncertainty that is stated."""

from __future__ import annotations

import random
from array import array

import pytest
from recordings import IDLE_W, Run, sample

from edgegauge.measure.align import NotAligned, by_clock, by_edges
from edgegauge.measure.trace import Thinner, Trace

RUN = Run()


def trace_of(run: Run, period_s: float, **how: float) -> Trace:
    thinner = Thinner()
    for t_s, watts in sample(run, period_s, lambda n, t, w, j: (t, w), **how):  # type: ignore
        thinner.add(t_s, watts)
    return thinner.trace()


def test_offset_and_drift_are_within_the_stated_uncertainty() -> None:
    chance = random.Random(1)
    inside = 0
    cases = 30
    for seed in range(cases):
        offset_s, ppm = chance.uniform(-30, 8), chance.uniform(-2000, 2000)
        period_s = chance.choice([0.01, 0.02, 0.1])
        noise_w = chance.choice([0.0, 0.3, 1.0])
        trace = trace_of(RUN, period_s, offset_s=offset_s, ppm=ppm, noise_w=noise_w, seed=seed)
        placed = by_edges(trace, RUN.edges, period_s)
        for run_s in (RUN.windows[0][1], RUN.windows[-1][2]):
            own_s = (run_s - RUN.start_s - offset_s) * (1 + ppm * 1e-6)
            error_s = abs(placed.run_s(own_s) - run_s)
            assert error_s < 0.2
            inside += error_s <= 2 * placed.uncertainty_s
    assert inside >= 0.95 * 2 * cases


def test_uncertainty_is_small_where_the_trace_is_clean() -> None:
    placed = by_edges(trace_of(RUN, 0.01, offset_s=-3.3, ppm=150), RUN.edges, 0.01)
    assert placed.uncertainty_s < 0.01
    assert placed.quality > 0.95
    assert placed.rate == pytest.approx(1 / (1 + 150e-6), abs=2e-5)


def test_half_second_statistics_still_align() -> None:
    placed = by_edges(trace_of(RUN, 0.5, offset_s=-7.7), RUN.edges, 0.5)
    assert abs(placed.run_s(0.0) - (RUN.start_s - 7.7)) <= 2 * placed.uncertainty_s + 0.25


def test_recording_without_the_pattern_is_refused() -> None:
    chance = random.Random(2)
    times = array("d", (k * 0.05 for k in range(8000)))
    noise = array("d", (IDLE_W + chance.gauss(0, 0.5) for _ in times))
    flat = array("d", (IDLE_W for _ in times))
    for values in (noise, flat):
        with pytest.raises(NotAligned, match="not in the recording"):
            by_edges(Trace(times, values, array("d", [0.0] * len(times))), RUN.edges, 0.05)


def test_late_recording_is_refused_not_guessed() -> None:
    with pytest.raises(NotAligned):
        by_edges(trace_of(RUN, 0.05, offset_s=40.0), RUN.edges, 0.05)


def test_two_runs_in_one_recording_are_ambiguous() -> None:
    first = trace_of(RUN, 0.05)
    times = array("d", [*first.t_s, *(t + first.t_s[-1] + 5 for t in first.t_s)])
    both = Trace(times, first.value * 2, first.span_s * 2)
    with pytest.raises(NotAligned, match="more than one place"):
        by_edges(both, RUN.edges, 0.05)


def test_rare_rows_and_missing_edges_are_refused() -> None:
    trace = trace_of(RUN, 0.1)
    with pytest.raises(NotAligned, match="too rare"):
        by_edges(trace, RUN.edges, 1.0)
    with pytest.raises(NotAligned, match="no load edges"):
        by_edges(trace, [], 0.1)
    with pytest.raises(NotAligned, match="do not belong together"):
        moved = [*RUN.edges[:2], *((a + 40, b + 40) for a, b in RUN.edges[2:])]
        by_edges(trace, moved, 0.1)


def test_by_clock_needs_both_clocks() -> None:
    placed = by_clock(1.8e9, 1.8e9 - 5000.0)
    assert placed.run_s(2.0) == pytest.approx(5002.0)
    assert placed.uncertainty_s >= 0.5
    with pytest.raises(NotAligned, match="not absolute"):
        by_clock(None, 1.0)
    with pytest.raises(NotAligned, match="clock of the run"):
        by_clock(1.8e9, None)
