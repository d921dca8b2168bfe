"""What readings add up to in one window, known by hand; each known trap is one test."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from known_readings import counted, every, facts, steady, value, window

from edgegauge.energy import Energy, MeterFacts
from edgegauge.measure.joules import energy_of, required_s
from edgegauge.measure.meters import Reading
from edgegauge.measure.recorder import Recorded

# --- what a source needs ---


@pytest.mark.parametrize(
    ("meter", "power_w", "seconds"),
    [
        (facts(counter=True, update_s=0.001, quantum=61e-6), 15.0, 60.0),
        (facts(counter=True, update_s=1.0, quantum=36.0), 15.0, 240.0),
        (facts(counter=True, update_s=1.0, quantum=36.0), None, 100.0),
        (facts(counter=False, update_s=5.0), 15.0, 500.0),
        (facts(counter=False, update_s=0.1, quantum=0.1), 0.001, 60.0),
        (facts(counter=True, update_s=1.0, quantum=594.0, grade="D"), 4.7, 10 * 594 / 4.7),
        (facts(counter=True, update_s=60.0, quantum=594.0, grade="D"), 100.0, 600.0),
    ],
)
def test_the_length_follows_from_the_source(
    meter: MeterFacts, power_w: float | None, seconds: float
) -> None:
    assert required_s(meter, power_w) == pytest.approx(seconds)


def test_a_short_run_says_how_long_it_would_have_to_be() -> None:
    energy = steady(facts(counter=True), counted(every(1.0, 30), lambda t: 5 * t), end_s=22.0)
    assert energy.windows[0].joules is None and energy.decode_j_per_token is None
    assert energy.reason == "12 s are too short for this source: it needs 60 s"


def test_the_blocks_of_a_phase_are_long_enough_together() -> None:
    readings = counted(every(1.0, 80), lambda t: 5 * t)
    windows = [window("decode", 2, 34), window("decode", 40, 72)]
    energy = energy_of(Recorded(facts(counter=True), readings, []), windows)
    assert value(energy.decode_j_per_token) == pytest.approx(5 * 64 / 200)
    assert energy.reason is None and [w.joules for w in energy.windows] == [160.0, 160.0]


def test_what_the_readings_show_counts_more_than_what_the_meter_states() -> None:
    # A battery that states 1 s and 1 J, but moves by 90 J each 6 s.
    readings = counted(every(0.5, 300), lambda t: math.floor(t / 6) * 90.0)
    energy = steady(facts(counter=True, update_s=1.0, quantum=1.0), readings, end_s=290.0)
    assert energy.reason is not None and "it needs 600 s" in energy.reason


def test_a_source_that_hardly_moved_says_what_it_needs_at_this_power() -> None:
    readings = counted(every(0.5, 130), lambda t: math.floor(t / 100) * 3600.0)
    energy = steady(facts(counter=True, update_s=1.0, quantum=3600.0), readings, end_s=125.0)
    power_w = 3600 / 130
    assert energy.reason is not None and "changed once" in energy.reason
    assert f"it needs {math.ceil(100 * 3600 / power_w)} s" in energy.reason


# --- counters ---


def test_a_counter_is_differenced_between_the_readings_around_each_edge() -> None:
    # No reading falls on an edge, and their rhythm is uneven.
    times = [t + 0.3 * math.sin(t) for t in every(1.0, 110)]
    energy = steady(facts(counter=True), counted(times, lambda t: 7.0 * t), end_s=90.5)
    assert energy.windows[0].joules == pytest.approx(7 * 80.5)
    assert value(energy.decode_w) == pytest.approx(7.0)


def test_a_gap_inside_is_no_loss_to_a_counter_but_one_at_an_edge_is() -> None:
    def without(start_s: float, end_s: float) -> Energy:
        times = [t for t in every(1.0, 110) if not start_s < t < end_s]
        return steady(facts(counter=True), counted(times, lambda t: 7 * t))

    assert without(40, 70).windows[0].joules == pytest.approx(630)
    assert "gap of 30 s" in str(without(80, 110).windows[0].reason)


def test_a_counter_that_falls_is_no_counter() -> None:
    readings = counted(every(1.0, 110), lambda t: 7 * t if t < 50 else t)
    assert "fell" in str(steady(facts(counter=True), readings).reason)


def test_readings_must_reach_over_both_ends() -> None:
    readings = counted(every(1.0, 99), lambda t: 7 * t)
    assert "both ends" in str(steady(facts(counter=True), readings).reason)
    assert "no readings" in str(steady(facts(counter=True), []).reason)


def test_a_slow_reading_widens_the_uncertainty() -> None:
    def took(seconds: float) -> float:
        readings = [Reading(t, 7 * t, took_s=seconds) for t in every(1.0, 110)]
        return float(steady(facts(counter=True), readings).windows[0].uncertainty_j or 0.0)

    # Each end is off by up to half the time its reading took: 7 W x 0.5 s / sqrt(12), twice.
    assert took(0.5) == pytest.approx(7 * 0.5 / math.sqrt(6), rel=0.01)
    assert took(0.001) < 0.1


def test_a_load_that_changes_between_two_readings_widens_the_uncertainty() -> None:
    def joules(t: float) -> float:
        return 10 * min(t, 100) + 2 * max(0.0, t - 100)

    sparse = steady(facts(counter=True), counted(every(1.0, 110, 0.5), joules))
    marked = sorted([*every(1.0, 110, 0.5), 10.001, 100.001])
    close = steady(facts(counter=True), counted(marked, joules))
    # The chord over the step misses 8 W x 0.25 s.
    off = abs(float(sparse.windows[0].joules or 0) - 900)
    assert off == pytest.approx(2.0)
    assert off < 2 * float(sparse.windows[0].uncertainty_j or 0) < 5
    assert abs(float(close.windows[0].joules or 0) - 900) < 0.02
    assert float(close.windows[0].uncertainty_j or 0) < 0.1


# --- stepped counters ---


def test_a_unit_of_one_joule_is_timed_from_edge_to_edge() -> None:
    # 0.37 W: a step each 2.7 s; two readings would be off by up to 1 J of 111.
    readings = counted(every(0.1, 330), lambda t: float(math.floor(0.37 * t)))
    meter = facts(counter=True, update_s=0.001, quantum=1.0)
    energy = steady(meter, readings, end_s=310.0)
    assert energy.windows[0].joules == pytest.approx(0.37 * 300, rel=0.001)
    assert 2 * float(energy.windows[0].uncertainty_j or 0) < 0.5


def test_percent_steps_are_timed_from_edge_to_edge() -> None:
    # Naive: 10 or 11 whole percent between the ends, 594 J too many or too few.
    readings = counted(every(5.0, 1400), lambda t: 594.0 * math.floor(4.7 * t / 594))
    meter = facts(counter=True, update_s=1.0, quantum=594.0, grade="D")
    energy = steady(meter, readings, end_s=1300.0)
    joules = float(energy.windows[0].joules or 0)
    assert joules / 594 != pytest.approx(round(joules / 594), abs=1e-3)
    assert joules == pytest.approx(4.7 * 1290, rel=0.01)
    assert 0 < 2 * float(energy.windows[0].uncertainty_j or 0) < 0.05 * joules


def test_a_gauge_that_stands_still_is_not_extrapolated() -> None:
    def stuck(t: float) -> float:
        return 36.0 * math.floor(15 * min(t, 200) / 36)

    meter = facts(counter=True, update_s=1.0, quantum=36.0)
    energy = steady(meter, counted(every(0.5, 320), stuck), end_s=310.0)
    assert "gap of 1" in str(energy.reason)


# --- power ---


@pytest.mark.parametrize("phase_s", [0.0, 0.25, 0.5, 0.75, 0.99])
def test_steps_at_the_edges_do_not_leak_into_a_window(phase_s: float) -> None:
    # Idle 3 W, 9 W within the window. Right rectangles take up to a second of idle for load.
    def power(t: float) -> float:
        return 9.0 if 10 <= t < 130 else 3.0

    times = every(1.0, 140, phase_s)
    energy = steady(facts(counter=False, update_s=1.0), counted(times, power), end_s=130.0)
    assert energy.windows[0].joules == pytest.approx(9 * 120, rel=1e-9)


def test_power_is_integrated_by_trapezoid_on_the_real_times() -> None:
    # A ramp, read twice as often in its first half: the mean of the readings is low, and right
    # rectangles are high.
    times = [*every(0.5, 69.5), *every(1.0, 140, 70)]
    energy = steady(facts(counter=False, update_s=1.0), counted(times, lambda t: t), end_s=130.0)
    within = [t for t in times if 10 <= t <= 130]
    exact = (130**2 - 10**2) / 2
    assert sum(within) / len(within) * 120 < 0.9 * exact
    assert sum(b * (b - a) for a, b in pairwise(within)) > 1.004 * exact
    assert energy.windows[0].joules == pytest.approx(exact, rel=1e-4)


def test_a_gap_in_power_drops_the_window() -> None:
    times = [t for t in every(0.1, 110) if not 50 < t < 50.45]
    energy = steady(facts(counter=False, update_s=0.1), counted(times, lambda t: 5.0))
    assert energy.windows[0].joules is None and energy.decode_w is None
    assert "a gap of 0.5 s, where a reading comes every 0.1 s" in str(energy.reason)


def test_a_burst_is_too_short_for_a_slow_source() -> None:
    energy = steady(
        facts(counter=False, update_s=1.0), counted(every(1.0, 30), lambda t: 5.0), end_s=12.0
    )
    assert "it needs 100 s" in str(energy.reason)


def test_a_stated_average_counts_for_the_time_it_covers() -> None:
    # Averages over 0.9 s and 1.1 s in turn; nominal intervals of 1 s would be 0.5 % low.
    spans = [0.9 if i % 2 else 1.1 for i in range(150)]
    ends = [sum(spans[: i + 1]) for i in range(150)]
    readings = [
        Reading(t, 10.0 if span == 1.1 else 9.0, span_s=span)
        for t, span in zip(ends, spans, strict=True)
    ]
    energy = steady(facts(counter=False, update_s=1.0), readings, end_s=140.0)
    assert value(energy.decode_w) == pytest.approx((10 * 1.1 + 9 * 0.9) / 2, rel=1e-3)


def test_an_average_that_began_before_the_window_is_left_out() -> None:
    readings = [Reading(t, 50.0 if t < 10.9 else 5.0, span_s=1.0) for t in every(1.0, 130, 0.5)]
    energy = steady(facts(counter=False, update_s=1.0), readings, end_s=125.0)
    assert value(energy.decode_w) == pytest.approx(5.0)


def test_readings_that_resemble_their_neighbours_count_for_less() -> None:
    meter = facts(counter=False, update_s=0.1)
    # The same values: alternating in blocks of 1 and of 40.
    alone = [Reading(t, 5 + (-1) ** i) for i, t in enumerate(every(0.1, 110))]
    blocks = [Reading(t, 5 + (-1) ** (i // 40)) for i, t in enumerate(every(0.1, 110))]
    few = float(steady(meter, blocks).windows[0].uncertainty_j or 0)
    many = float(steady(meter, alone).windows[0].uncertainty_j or 0)
    assert few > 4 * many > 0


def test_a_coarse_step_of_power_does_not_average_out() -> None:
    energy = steady(
        facts(counter=False, update_s=0.1, quantum=0.1), counted(every(0.1, 110), lambda t: 5.0)
    )
    assert energy.windows[0].uncertainty_j == pytest.approx(90 * 0.1 / math.sqrt(12))


def test_a_coarse_step_averages_out_of_values_that_move() -> None:
    draw = random.Random(2)
    readings = [Reading(t, 5 + 0.1 * round(draw.gauss(0, 3))) for t in every(0.1, 110)]
    energy = steady(facts(counter=False, update_s=0.1, quantum=0.1), readings)
    assert energy.terms["quantum"] * 450 < 0.1 * 90 * 0.1 / math.sqrt(12)


def test_a_reading_as_old_as_its_update_may_tell_of_the_load_before() -> None:
    def power(t: float) -> float:
        return 9.0 if t - 1 >= 10 else 3.0  # a second late

    energy = steady(facts(counter=False, update_s=1.0), counted(every(0.5, 140), power), 130.0)
    off = abs(float(energy.windows[0].joules or 0) - 9 * 120)
    assert 3 < off < 2 * energy.terms["alignment"] * 9 * 120 < 4 * off
