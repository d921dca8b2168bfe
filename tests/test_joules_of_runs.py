"""What the windows of a whole run add up to: phases, idle, lost meters, any readings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_readings import counted, every, facts, half, steady, value, window
from pydantic import ValidationError

from edgegauge.energy import Energy, MeterFacts, PhaseName, Window
from edgegauge.measure.joules import energy_of
from edgegauge.measure.meters import Flag, Reading
from edgegauge.measure.recorder import Recorded


def run(
    meter: MeterFacts, *, idle_after_w: float = 3.0, lost: str | None = None, until: float = 999.0
) -> Energy:
    """Idle 3 W, P 9 W, D 6 W, D, P, idle; 60 s each, 10 s apart."""
    order: list[tuple[PhaseName, float]] = [
        ("idle_before", 3.0),
        ("prefill", 9.0),
        ("decode", 6.0),
        ("decode", 6.0),
        ("prefill", 9.0),
        ("idle_after", idle_after_w),
    ]
    level = [watts for _, watts in order]

    def joules(t: float) -> float:
        whole, rest = divmod(t, 70)
        done = 70 * sum(level[: int(whole)])
        return done + rest * (level[int(whole)] if whole < len(level) else 0.0)

    readings = counted([t for t in every(1.0, 420) if t <= until], joules)
    windows = [
        window(phase, i * 70 + 5, i * 70 + 65, 600 if phase == "prefill" else 120)
        for i, (phase, _) in enumerate(order)
    ]
    return energy_of(Recorded(meter, readings, [], lost), windows)


def test_phases_are_total_and_net_per_token() -> None:
    energy = run(facts(counter=True))
    assert value(energy.prefill_j_per_token) == pytest.approx(9 * 120 / 1200)
    assert value(energy.decode_j_per_token) == pytest.approx(6 * 120 / 240)
    assert value(energy.net_prefill_j_per_token) == pytest.approx(6 * 120 / 1200)
    assert value(energy.net_decode_j_per_token) == pytest.approx(3 * 120 / 240)
    assert value(energy.idle_before_w) == value(energy.idle_after_w) == pytest.approx(3.0)
    assert energy.decode_j_per_token is not None and energy.decode_j_per_token.kind == "measured"
    assert energy.decode_j_per_token.source == "fake:0: package, dram"
    assert energy.inference_w is energy.j_per_inference is None
    assert energy.flags == [] and len(energy.readings) == 421


def test_the_error_of_net_energy_is_larger_than_that_of_either() -> None:
    # Idle at half the power of the run and 3 % on each: sqrt(3^2 + 1.5^2) / 0.5 = 6.7 % on the net.
    energy = run(facts(counter=True, calibration=0.03))
    total, net = energy.decode_j_per_token, energy.net_decode_j_per_token
    assert half(total) / value(total) == pytest.approx(2 * 0.03, rel=0.01)
    assert half(net) / value(net) == pytest.approx(2 * 0.0671, rel=0.01)
    assert energy.terms["calibration"] == pytest.approx(0.03)
    assert energy.terms["baseline"] == pytest.approx(0.015, rel=0.01)


def test_the_terms_are_what_the_interval_is_made_of() -> None:
    energy = run(facts(counter=True, calibration=0.01, quantum=1.0), idle_after_w=3.3)
    parts = {name: u for name, u in energy.terms.items() if name != "baseline"}
    assert set(parts) == {"calibration", "quantum", "alignment", "sampling", "repeat"}
    total, net = energy.decode_j_per_token, energy.net_decode_j_per_token
    assert half(total) == pytest.approx(2 * value(total) * math.hypot(*parts.values()))
    assert half(net) == pytest.approx(2 * value(total) * math.hypot(*energy.terms.values()))


def test_idle_that_changed_makes_the_net_energy_less_sure() -> None:
    same, warmer = run(facts(counter=True)), run(facts(counter=True), idle_after_w=4.0)
    assert value(warmer.net_decode_j_per_token) == pytest.approx((6 - 3.5) / 2)
    # Half the difference of 1 W, for half a second per token.
    assert half(warmer.net_decode_j_per_token) == pytest.approx(2 * 0.5 * 0.5, rel=0.01)
    assert half(same.net_decode_j_per_token) < 0.01


def test_blocks_that_differ_make_a_phase_less_sure() -> None:
    readings = counted(every(1.0, 140), lambda t: 6 * t + max(0.0, t - 65))
    windows = [window("decode", 2, 62, 60), window("decode", 70, 130, 60)]
    energy = energy_of(Recorded(facts(counter=True), readings, []), windows)
    assert value(energy.decode_j_per_token) == pytest.approx(6.5)
    assert energy.terms["repeat"] == pytest.approx(0.5 / 6.5, rel=1e-3)


def test_a_graph_has_joules_per_inference() -> None:
    readings = counted(every(1.0, 110), lambda t: 7 * t)
    windows = [window("idle_before", 1, 31, 0), window("inference", 40, 105, 1000)]
    energy = energy_of(Recorded(facts(counter=True), readings, []), windows)
    assert energy.j_per_inference is not None and energy.j_per_inference.unit == "J/inference"
    assert value(energy.j_per_inference) == pytest.approx(7 * 65 / 1000)
    assert energy.net_j_per_inference is None and energy.reason is None
    assert "calibration" in energy.terms


def test_no_idle_no_net_energy() -> None:
    energy = steady(facts(counter=True), counted(every(1.0, 110), lambda t: 7 * t))
    assert energy.decode_j_per_token is not None and energy.net_decode_j_per_token is None
    assert "no idle power was measured, so there is no net energy" in energy.flags
    assert "baseline" not in energy.terms


def test_one_idle_window_is_enough_and_said() -> None:
    energy = run(facts(counter=True), until=348.0, lost="unplugged")
    assert value(energy.net_decode_j_per_token) == pytest.approx(1.5)
    assert energy.idle_after_w is None and energy.reason is None
    assert "idle power was measured at one end of the run only" in energy.flags


def test_a_meter_lost_half_way_keeps_what_came_before() -> None:
    energy = run(facts(counter=True), until=240.0, lost="its file vanished")
    known = [w.phase for w in energy.windows if w.joules is not None]
    assert known == ["idle_before", "prefill", "decode"]
    assert {w.reason for w in energy.windows[3:]} == {"the meter was lost: its file vanished"}
    assert "the meter was lost: its file vanished" in energy.flags
    # One decode block of 60 s is all the source needs; it is lost at 240 s for the second.
    assert value(energy.decode_j_per_token) == pytest.approx(3.0)


def test_a_meter_lost_too_early_gives_no_figure_of_what_it_saw_half_of() -> None:
    readings = counted(every(1.0, 50), lambda t: 5 * t)
    windows = [window("decode", 2, 34), window("decode", 40, 72)]
    energy = energy_of(Recorded(facts(counter=True), readings, [], "gone"), windows)
    assert energy.windows[0].joules == pytest.approx(160)
    assert energy.decode_j_per_token is None and energy.decode_w is None
    assert energy.reason == "the meter was lost: gone"


def test_a_flag_that_spoils_withdraws_everything() -> None:
    flags = [Flag("two readings disagree"), Flag("the charger was connected", spoils=True)]
    energy = steady(facts(counter=True), counted(every(1.0, 110), lambda t: 7 * t), flags=flags)
    assert energy.reason == "the charger was connected"
    assert energy.windows[0].joules is None and energy.decode_w is None and not energy.terms
    assert energy.flags[:2] == ["two readings disagree", "the charger was connected"]


def test_without_tokens_there_is_power_and_no_energy_per_token() -> None:
    readings = counted(every(1.0, 110), lambda t: 7 * t)
    energy = energy_of(
        Recorded(facts(counter=True), readings, []), [window("decode", 10, 100, tokens=0)]
    )
    assert value(energy.decode_w) == pytest.approx(7)
    assert energy.decode_j_per_token is None and energy.reason == "no tokens were counted"


def test_no_window_is_a_reason() -> None:
    energy = energy_of(Recorded(facts(counter=True), [], []), [])
    assert energy.reason == "nothing ran while the meter was read"


def test_doubled_and_disordered_readings_do_no_harm() -> None:
    readings = counted([*every(1.0, 110), *every(1.0, 110)[::-1]], lambda t: 7 * t)
    assert steady(facts(counter=True), readings).windows[0].joules == pytest.approx(630)


READINGS = st.lists(
    st.builds(
        Reading,
        st.floats(0, 200),
        st.floats(0, 1e9),
        st.floats(0, 10),
        st.sampled_from([0.0, 0.0, 0.5, 300.0]),
    ),
    max_size=80,
)


@given(READINGS, st.booleans(), st.booleans())
def test_any_readings_give_joules_or_a_reason(
    readings: list[Reading], counter: bool, monotone: bool
) -> None:
    if monotone:
        values = sorted(r.value for r in readings)
        ordered = sorted(readings, key=lambda r: r.t_s)
        readings = [
            Reading(r.t_s, v, r.took_s, r.span_s) for r, v in zip(ordered, values, strict=True)
        ]
    windows = [
        window("idle_before", 0, 60),
        window("decode", 60, 130),
        window("decode", 130, 200),
    ]
    energy = energy_of(Recorded(facts(counter=counter), readings, []), windows)
    for found in energy.windows:
        assert (found.joules is None) == (found.reason is not None)
        assert found.joules is None or float(found.uncertainty_j or 0) >= 0
    assert (energy.decode_j_per_token is None) == (energy.reason is not None)


def test_a_meter_that_was_lost_before_anything_ran_is_the_reason() -> None:
    found = energy_of(Recorded(facts(counter=True), [], [], "its file vanished"), [])
    assert found.reason == "the meter was lost: its file vanished"


def test_a_result_keeps_some_of_very_many_readings_and_counts_them_all() -> None:
    readings = counted(every(0.001, 65.0), lambda t: 5 * t)
    found = energy_of(
        Recorded(facts(counter=True, update_s=0.001), readings, []), [window("decode", 1.0, 62.0)]
    )
    assert found.readings_seen == len(readings) == 65_001
    assert 15_000 < len(found.readings) <= 20_001
    assert (found.readings[0][0], found.readings[-1][0]) == (0.0, 65.0)
    assert found.windows[0].samples > 60_000, "the joules come from all of them"


@pytest.mark.parametrize(
    "changes", [{"end_s": 1.0}, {"end_s": 0.5}, {"end_s": 1e300}, {"tokens": 10**400}]
)
def test_a_window_that_cannot_be_is_refused_where_a_file_is_read(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Window.model_validate({"phase": "decode", "start_s": 1.0, "end_s": 2.0, **changes})
