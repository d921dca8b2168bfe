"""Golden figures, worked examples and traps of the battery arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_results import energy_of

from edgegauge.battery import Costs, available_j, battery_figures, battery_of
from edgegauge.device import Battery
from edgegauge.figure import Figure
from edgegauge.units import JOULES_PER_WH
from edgegauge.usage import Usage

USAGE = Usage(turns=4, prompt_tokens=200, generated_tokens=150, reading_s=60.0, per_hour=3.0)
positive = st.floats(1e-3, 1e3)


def battery(joules: float = 50_000, health: float = 1.0, usable: float = 1.0) -> Battery:
    capacity: Any = {"value": joules / JOULES_PER_WH, "source": "the label"}
    return Battery(capacity_wh=capacity, health=health, usable=usable)


def exact(value: float, unit: Any) -> Figure:
    return Figure(value, unit, "predicted", "given")


def decoding(j_per_token: float, tok_per_s: float, joules: float = 50_000) -> dict[str, float]:
    costs = Costs(
        decode_j=exact(j_per_token, "J/token"),
        decode_w=exact(j_per_token * tok_per_s, "W"),
        decode_tok_per_s=exact(tok_per_s, "tok/s"),
    )
    return {k: f.value for k, f in battery_figures(battery(joules), costs, USAGE).items()}


@pytest.mark.parametrize(("j_per_token", "hours"), [(0.7, 1.98), (0.035, 39.7)])
def test_golden(j_per_token: float, hours: float) -> None:
    """50 kJ at 10 tok/s: a 7B model at 8 bits and a 350M model (arXiv:2402.14905)."""
    assert decoding(j_per_token, 10)["continuous_h"] == pytest.approx(hours, abs=0.05)


def test_64_tokens_of_that_7b_model_are_009_percent_and_not_02() -> None:
    """The paper says 0.2 %, which would be 1.56 J/token; its own 0.7 J/token makes 0.09 %."""
    assert 100 * 64 / decoding(0.7, 10)["tokens_per_charge"] == pytest.approx(0.0896, abs=1e-4)


def test_a_faster_small_model_writes_more_and_has_fewer_hours() -> None:
    """iPhone 17 Pro, 16.5 Wh x 0.95 x 0.93; a 3B and a 0.6B model at 4 bits."""
    charge = available_j(battery(16.5 * 3600, health=0.95, usable=0.93))
    assert charge == pytest.approx(52_500, rel=1e-3)
    large, small = decoding(0.224, 21, charge), decoding(0.066, 99, charge)
    assert large["tokens_per_charge"] == pytest.approx(234_000, rel=0.01)
    assert small["tokens_per_charge"] == pytest.approx(795_000, rel=0.01)
    assert large["continuous_h"] == pytest.approx(3.1, abs=0.05)
    assert small["continuous_h"] == pytest.approx(2.2, abs=0.05)
    assert (large["decode_tok_per_s"], small["decode_tok_per_s"]) == (21, 99)


def measured(**changes: Any) -> dict[str, Figure]:
    """A device of 2 W idle that decodes at 10 tok/s with 7 W and reads prompts at 50 with 8 W."""
    outcome = battery_of(
        energy_of(**changes), battery=battery(), usage=USAGE,
        decode_tok_per_s=Figure(10, "tok/s", "measured", "llama.cpp"),
        prefill_tok_per_s=Figure(50, "tok/s", "measured", "llama.cpp"),
    )  # fmt: skip
    assert outcome.figures is not None
    return outcome.figures


def test_idle_is_counted_once() -> None:
    """Total energy with idle for reading alone, and net energy with idle for all of the time, are
    the same conversation; total energy with idle for all of the time would count it twice."""
    found = measured()["conversations_per_charge"].value
    talking_s = 200 / 50 + 150 / 10
    net = 4 * (200 * (8 - 2) / 50 + 150 * (7 - 2) / 10 + 2 * (talking_s + 60))
    twice = 4 * (200 * 8 / 50 + 150 * 7 / 10 + 2 * (talking_s + 60))
    assert found == pytest.approx(50_000 / net)
    assert found > 50_000 / twice * 1.05


def test_added_drain_is_net_and_measured() -> None:
    found = measured()
    added = 3 * 4 * (200 * (8 - 2) / 50 + 150 * (7 - 2) / 10)
    assert found["added_drain_percent_per_hour"].value == pytest.approx(100 * added / 50_000)
    assert {f.kind for f in found.values()} == {"measured"}
    for name, figure in found.items():
        if name != "decode_tok_per_s":
            assert "the label" in figure.source and "grade C" in figure.source
    assert "3 conversations an hour" in found["added_drain_percent_per_hour"].source
    assert "10 tok/s" in found["continuous_h"].source


def test_intervals_are_those_of_the_energies() -> None:
    found = measured(spread=0.1)
    for name in ("tokens_per_charge", "continuous_h", "conversations_per_charge"):
        figure = found[name]
        assert figure.low == pytest.approx(figure.value / 1.1), name
        assert figure.high == pytest.approx(figure.value / 0.9), name
    drain = found["added_drain_percent_per_hour"]
    assert (drain.low, drain.high) == pytest.approx((drain.value * 0.9, drain.value * 1.1))


def test_an_energy_that_may_be_nothing_has_no_upper_end() -> None:
    found = measured(spread=1.2)
    tokens = found["tokens_per_charge"]
    assert tokens.high is None and tokens.low == pytest.approx(tokens.value / 2.2)
    assert found["added_drain_percent_per_hour"].least < 0


def test_a_source_of_a_part_of_the_device_gives_no_battery_figures() -> None:
    outcome = battery_of(
        energy_of(whole_device=False, covers=["package"], excludes=["memory", "screen"]),
        battery=battery(), usage=USAGE, decode_tok_per_s=exact(10, "tok/s"),
        prefill_tok_per_s=None,
    )  # fmt: skip
    assert outcome.figures is None
    assert outcome.reason is not None and "package, not memory, screen" in outcome.reason


def test_without_energy_the_reason_is_that_of_the_energy() -> None:
    energy = energy_of().model_copy(
        update={"decode_j_per_token": None, "reason": "the window is too short"}
    )
    outcome = battery_of(
        energy, battery=battery(), usage=USAGE, decode_tok_per_s=exact(10, "tok/s"),
        prefill_tok_per_s=None,
    )  # fmt: skip
    assert (outcome.figures, outcome.reason) == (None, "the window is too short")


def test_what_lacks_an_input_is_left_out_and_told() -> None:
    bare = energy_of().model_copy(
        update={"prefill_j_per_token": None, "net_prefill_j_per_token": None}
    )
    outcome = battery_of(
        bare, battery=battery(), usage=USAGE, decode_tok_per_s=exact(10, "tok/s"),
        prefill_tok_per_s=None,
    )  # fmt: skip
    assert outcome.figures is not None
    assert set(outcome.figures) == {"continuous_h", "decode_tok_per_s", "tokens_per_charge"}
    assert outcome.reason is not None and "no conversations" in outcome.reason


def test_waiting_power_of_the_user_replaces_idle() -> None:
    usage = USAGE.model_copy(update={"waiting_w": 4.0})
    outcome = battery_of(
        energy_of(), battery=battery(), usage=usage,
        decode_tok_per_s=exact(10, "tok/s"), prefill_tok_per_s=exact(50, "tok/s"),
    )  # fmt: skip
    assert outcome.figures is not None
    each = 4 * (200 * 8 / 50 + 150 * 7 / 10 + 60 * 4)
    assert outcome.figures["conversations_per_charge"].value == pytest.approx(50_000 / each)


def test_a_slow_device_is_not_charged_for_conversations_it_cannot_finish() -> None:
    outcome = battery_of(
        energy_of(), battery=battery(), usage=USAGE,
        decode_tok_per_s=exact(0.5, "tok/s"), prefill_tok_per_s=exact(1, "tok/s"),
    )  # fmt: skip
    assert outcome.figures is not None
    drain = outcome.figures["added_drain_percent_per_hour"]
    possible = 3600 / (4 * (200 / 1 + 150 / 0.5 + 60))
    each = 4 * (200 * (8 - 2) / 50 + 150 * (7 - 2) / 10)
    assert possible < 3
    assert drain.value == pytest.approx(100 * possible * each / 50_000)
    assert "only 1.61 an hour" in drain.source


@settings(deadline=None)
@given(energy=positive, j=positive, rate=positive)
def test_hours_and_tokens_agree(energy: float, j: float, rate: float) -> None:
    """Tokens of a charge are the hours times the rate."""
    found = decoding(j, rate, energy)
    hours_of_tokens = found["continuous_h"] * 3600 * rate
    assert found["tokens_per_charge"] == pytest.approx(hours_of_tokens)


@settings(deadline=None)
@given(low=positive, high=positive, share=st.floats(0, 1))
def test_a_figure_lies_in_its_interval(low: float, high: float, share: float) -> None:
    low, high = sorted((low, high))
    value = low + share * (high - low)
    value = min(max(value, low), high)
    costs = Costs(
        decode_j=Figure(value, "J/token", "predicted", "x", low, high),
        decode_tok_per_s=exact(10, "tok/s"),
        prefill_j=Figure(value, "J/token", "predicted", "x", low, high),
        net_decode_j=Figure(value, "J/token", "predicted", "x", low, high),
        net_prefill_j=Figure(value, "J/token", "predicted", "x", low, high),
    )
    for name, figure in battery_figures(battery(), costs, USAGE).items():
        assert figure.least <= figure.value * (1 + 1e-9), name
        assert figure.most >= figure.value * (1 - 1e-9), name
