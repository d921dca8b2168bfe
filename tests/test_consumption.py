"""Joules of a predicted token: their parts, their interval, and the published runs behind them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from changed_profiles import changed, spec_of
from loaded_script import loaded_script

from edgegauge.consumption import consumption
from edgegauge.device import Calibration, InferencePower, known_ids, load
from edgegauge.predict import predict
from edgegauge.speed import Estimate
from edgegauge.work import work_of

ROOT = Path(__file__).parents[1]
PI = load("raspberry-pi-5-8gb")
PARTS = InferencePower(
    covers="the board's input", idle_w=3.0, decode_w_per_thread=0.5, prefill_w_per_thread=2.0,
    decode_nj_per_byte=0.2, error=0.1, source="a test",
)  # fmt: skip
WORK = work_of(spec_of("smollm2-135m"), "q8_0")
SURE = Estimate(0.1, 0.1, 0.1, "a clock")


def pi(parts: InferencePower = PARTS, **more: Any) -> Any:
    return changed(PI, power__inference=parts.model_dump(), **more)


# Parts


def test_decoding_is_power_for_the_time_and_energy_for_the_bytes():
    draws = consumption(pi(), "llama.cpp", threads=4)
    found = draws.decode(WORK, 128, SURE)
    moved = 0.2e-9 * (WORK.weight_bytes + WORK.kv_bytes(128))
    assert found.value == pytest.approx((3 + 4 * 0.5) * 0.1 + moved)
    assert (found.unit, found.kind) == ("J/token", "predicted")
    assert "the board's input" in found.source and "a test" in found.source
    twice = draws.decode(WORK, 128, Estimate(0.2, 0.2, 0.2, "a clock"))
    assert twice.value - found.value == pytest.approx(5 * 0.1)  # the bytes cost what they cost
    net = draws.decode(WORK, 128, SURE, net=True)
    assert net.value == pytest.approx(4 * 0.5 * 0.1 + moved)


def test_a_prompt_draws_more_and_reads_its_weights_once_in_512_tokens():
    draws = consumption(pi(), "llama.cpp", threads=2)
    found = draws.prefill(WORK, 600, SURE)
    assert found.value * 600 == pytest.approx((3 + 2 * 2) * 0.1 + 2 * 0.2e-9 * WORK.weight_bytes)
    alike = PARTS.model_copy(update={"prefill_w_per_thread": None})
    same = consumption(pi(alike), "llama.cpp", threads=2)
    assert same.prefill_w == same.decode_w


def test_weights_in_the_last_cache_cost_no_bytes():
    large = consumption(pi(cpu__l3_cache_mb=1000.0), "llama.cpp", threads=4)
    small = consumption(pi(), "llama.cpp", threads=4)
    assert large.decode(WORK, 0, SURE).value < 0.52 < small.decode(WORK, 0, SURE).value


def test_the_interval_holds_that_of_the_time_and_that_of_the_parts():
    draws = consumption(pi(), "llama.cpp", threads=4)
    sure = draws.decode(WORK, 0, SURE)
    assert (sure.low, sure.high) == pytest.approx((sure.value / 1.1, sure.value * 1.1))
    exact = PARTS.model_copy(update={"error": 0.0})
    time = Estimate(0.1, 0.05, 0.2, "a guess")
    rough = consumption(pi(exact), "llama.cpp", threads=4).decode(WORK, 0, time)
    moved = 0.2e-9 * WORK.weight_bytes
    assert (rough.low, rough.high) == pytest.approx((5 * 0.05 + moved, 5 * 0.2 + moved))
    both = draws.decode(WORK, 0, time)
    expected = math.hypot(math.log(rough.high / rough.value), math.log(1.1))
    assert math.log(both.high / both.value) == pytest.approx(expected)


def test_net_energy_may_be_nothing():
    nothing = InferencePower(
        covers="rails", idle_w=3.0, decode_w_per_thread=0.0, error=0.1, source="a test"
    )
    found = consumption(pi(nothing), "llama.cpp", threads=4).decode(WORK, 0, SURE, net=True)
    assert (found.value, found.low, found.high) == (0, 0, 0)


# Which of them


def calibrated(power: InferencePower | None, threads: int = 4) -> Any:
    here = Calibration(
        runtime_version="1", threads=threads, cache_bytes=2e6, decode={}, prefill={},
        decode_residual=0, prefill_residual=0, power=power, source="a test",
    )  # fmt: skip
    return pi(calibration={"llama.cpp": here.model_dump()})


def test_a_calibration_with_a_meter_comes_first_for_its_threads():
    here = PARTS.model_copy(update={"idle_w": 7.0, "source": "a meter"})
    device = calibrated(here)
    assert "a meter" in consumption(device, "llama.cpp", 4).source
    assert "a test" in consumption(device, "llama.cpp", 2).source
    assert "a test" in consumption(device, "onnxruntime", 4).source
    assert "a test" in consumption(calibrated(None), "llama.cpp", 4).source


def test_without_parts_one_power_stands_for_all_of_it():
    watts = {"idle_w": 2.0, "load_w": 8.0, "sustained_w": 12.0}
    stated = {name: {"value": value, "source": name} for name, value in watts.items()}
    power = {"covers": "the socket", **stated}
    draws = consumption(changed(PI, power=power), "llama.cpp", 4)
    assert (draws.decode_w, draws.prefill_w, draws.j_per_byte) == (8, 8, 0)
    # Decoding takes between idle and the most that the device was seen to draw.
    assert draws.interval == (2 / 8, 12 / 8)
    seen = power | {"inference_w": {"value": 5.0, "source": "seen"}}
    draws = consumption(changed(PI, power=seen), "llama.cpp", 4)
    assert draws.decode_w == 5 and draws.interval == pytest.approx((1 / 1.3, 1.3))
    assert consumption(changed(PI, power=None), "llama.cpp", 4) is None
    idle = {"covers": "the socket", "idle_w": stated["idle_w"]}
    assert consumption(changed(PI, power=idle), "llama.cpp", 4) is None


def test_a_part_of_the_device_gives_joules_and_no_battery():
    charge = {"capacity_wh": {"value": 20.0, "source": "a label"}}
    spec = spec_of("smollm2-135m")
    whole = predict(pi(battery=charge), spec, "q4_0")
    assert whole.energy_j_per_token and whole.battery
    rails = PARTS.model_copy(update={"covers": "the processor's package", "whole_device": False})
    part = predict(pi(rails, battery=charge), spec, "q4_0")
    assert part.battery is None
    assert part.energy_j_per_token and "the processor's package" in part.energy_j_per_token.source


def test_the_battery_pays_more_for_reading_a_prompt_than_for_as_long_an_answer():
    charge = {"capacity_wh": {"value": 20.0, "source": "a label"}}
    alike = PARTS.model_copy(update={"prefill_w_per_thread": None})
    spec = spec_of("smollm2-135m")
    apart, same = (predict(pi(p, battery=charge), spec, "q4_0").battery for p in (PARTS, alike))
    assert apart and same
    name = "conversations_per_charge"
    assert apart[name].value < same[name].value
    assert apart["tokens_per_charge"].value == same["tokens_per_charge"].value


# The published runs

np = pytest.importorskip("numpy")


def script() -> ModuleType:
    return loaded_script("validate_energy")


@cache
def report() -> dict[str, Any]:
    return script().report()


def test_the_form_that_is_kept_is_the_best_of_those_that_were_not_fitted_to_the_run():
    forms = report()["forms"]
    kept, one = forms[script().fit.KEPT], forms["one wattage"]
    for held in ("model", "recipe", "threads"):
        median, p90 = kept[held]
        assert median < 5 and p90 < 10
        assert median < one[held][0] / 3 and p90 < one[held][1] / 3
    # Series differ by more than the models of one.
    assert kept["series"][0] < 5 and kept["series"][1] < one["series"][1] / 2
    for held, (median, _) in kept.items():
        assert all(median <= line[held][0] for line in forms.values())


def test_intervals_hold_what_they_say():
    found = report()
    assert found["coverage"] >= 0.8 and found["predicted"]["coverage"] >= 0.8


def test_profiles_and_documentation_hold_what_is_fitted_now():
    """`scripts/validate_energy --write` writes both."""
    wanted = script().inference(report())
    named = [device for device in known_ids() if (p := load(device).power) and p.inference]
    assert sorted(named) == sorted(script().PROFILES)
    for name in named:
        assert (ROOT / f"device_profiles/{name}.toml").read_text("utf-8").endswith(wanted)
    page = script().DOCS.read_text("utf-8")
    assert script().with_block(page, report()) == page
    assert script().with_inference(wanted, report()).strip() == wanted.strip()


def test_runs_that_do_not_fit_the_memory_are_left_out():
    runs = script().read_runs()
    too_large = {(r.model, r.recipe) for r in runs if not r.fits}
    assert len(runs) == 95 and len(too_large) == 6
    assert all(r.work.weight_bytes > 0.9e9 for r in runs if not r.fits)


def test_published_joules_of_a_token_lie_in_the_interval():
    """Mean power while two threads decoded and read prompts, over the speed of decoding."""
    published = [
        # recipe of qwen2.5-0.5b, J/token of the rails, tok/s: llama-roofline 0.2.3
        ("q4_0", 0.14151, 34.661), ("q4_k_m", 0.20596, 25.675), ("q8_0", 0.21625, 22.225),
    ]  # fmt: skip
    board = load("raspberry-pi-5-2gb")
    for recipe, joules, rate in published:
        found = predict(board, spec_of("qwen2.5-0.5b"), recipe, threads=2).energy_j_per_token
        assert found is not None and found.low is not None and found.high is not None
        assert found.low < 1.1451 * joules + 0.5879 / rate < found.high
