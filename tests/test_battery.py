"""Golden figures and laws of the battery arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.battery import (
    Usage,
    available_j,
    battery_figures,
    continuous_h,
    drain_percent_per_hour,
    tokens_per_charge,
)
from edgegauge.device import Battery
from edgegauge.figure import Figure

positive = st.floats(1e-3, 1e6)


@pytest.mark.parametrize(("j_per_token", "hours"), [(0.7, 1.98), (0.035, 39.7)])
def test_golden(j_per_token, hours):
    """50 kJ at 10 tok/s: a 7B model at 8 bits and a 350M model."""
    assert continuous_h(50_000, j_per_token * 10) == pytest.approx(hours, abs=0.05)


def test_health_and_cut_off_reduce_the_charge():
    assert available_j(14 * 3600, health=0.8, usable=0.9) == pytest.approx(36288)


@settings(deadline=None)
@given(energy=positive, j=positive, rate=positive)
def test_hours_and_tokens_agree(energy, j, rate):
    """Tokens of a charge are the hours times the rate."""
    tokens = tokens_per_charge(energy, j)
    assert tokens == pytest.approx(continuous_h(energy, j * rate) * 3600 * rate)


@settings(deadline=None)
@given(energy=positive, j=positive, tokens=positive)
def test_drain_empties_the_charge(energy, j, tokens):
    hours = 100 / drain_percent_per_hour(energy, j, Usage(tokens))
    assert hours * tokens == pytest.approx(tokens_per_charge(energy, j))


def figures(idle_w=0.0):
    battery = Battery(
        capacity_wh={"value": 10, "source": "label"}, health=0.9, usable=0.9
    )  # fmt: skip
    energy = Figure(0.5, "J/token", "predicted", "power x time", 0.25, 1.0)
    power = Figure(5, "W", "stated", "board", 4, 6)
    return battery_figures(battery, energy, power, idle_w=idle_w)


def test_figures_carry_interval_kind_and_source():
    found = figures()
    assert found["continuous_h"].value == pytest.approx(10 * 0.81 / 5)
    assert found["continuous_h"].low == pytest.approx(10 * 0.81 / 6)
    tokens = found["tokens_per_charge"]
    assert (tokens.low, tokens.value, tokens.high) == pytest.approx((29160, 58320, 116640))
    assert {f.kind for f in found.values()} == {"predicted"}
    assert "power x time" in tokens.source and "board" in found["continuous_h"].source


def test_added_drain_leaves_out_what_the_device_draws_anyway():
    full = figures()["added_drain_percent_per_hour"]
    part = figures(idle_w=1.0)["added_drain_percent_per_hour"]
    assert full.unit == "%"
    assert full.value == pytest.approx(100 * 3000 * 0.5 / 29160)
    assert part.value == pytest.approx(0.8 * full.value)
