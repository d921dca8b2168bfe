"""Predictions: their laws, and their honesty about what is not known."""

from __future__ import annotations

from itertools import pairwise

import pytest
from changed_profiles import changed, spec_of

from edgegauge.device import known_ids, load
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.fit import DEFAULT_RECIPES
from edgegauge.predict import RUNTIME_NAMES, predict
from edgegauge.recipe import tensor_bytes

WAYS = [(f, recipe) for f, recipes in DEFAULT_RECIPES.items() for recipe in recipes]


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


@pytest.mark.parametrize(("file_format", "recipe"), WAYS)
def test_every_shipped_profile_gets_speeds_with_intervals_in_every_format(file_format, recipe):
    spec = spec_of("stories42m")
    for device in known_ids():
        found = predict(load(device), spec, recipe, file_format=file_format)
        assert found.outcome == "fits", device
        assert found.file_bytes == tensor_bytes(spec, recipe, file_format)
        assert RUNTIME_NAMES[file_format] in found.peak_memory_bytes.source
        for figure in (found.decode_tok_per_s, found.prefill_tok_per_s, found.ttft_s):
            assert figure is not None and figure.kind == "predicted"
            assert figure.low < figure.value < figure.high
            assert "prior of" in figure.source and "thread" in figure.source


def test_bigger_models_are_slower_and_larger():
    pi = load("raspberry-pi-5-8gb")
    found = [
        predict(pi, spec_of(m), "q4_0")
        for m in ("smollm2-135m", "smollm2-360m", "qwen2.5-1.5b", "llama-3.2-3b", "llama-3.1-8b")
    ]
    for smaller, bigger in pairwise(found):
        assert value(smaller.decode_tok_per_s) > value(bigger.decode_tok_per_s)
        assert value(smaller.ttft_s) < value(bigger.ttft_s)
        assert smaller.peak_memory_bytes.value < bigger.peak_memory_bytes.value


def test_what_does_not_fit_has_no_speed():
    zero = load("raspberry-pi-zero-2-w")
    found = predict(zero, spec_of("llama-3.1-8b"), "q8_0")
    assert found.outcome in ("thrashes", "out of memory")
    assert found.decode_tok_per_s is found.prefill_tok_per_s is found.ttft_s is None
    assert found.energy_j_per_token is found.battery is None
    assert found.needed_memory_bytes.value > zero.app_memory_bytes


def test_thrashing_runs_at_the_speed_of_storage_where_that_is_known():
    pi4 = load("raspberry-pi-4b-4gb")
    storage = {"value": 40.0, "source": "SD card"}
    slow = predict(changed(pi4, storage_read_mb_per_s=storage), spec_of("llama-3.1-8b"), "q4_k_m")
    assert slow.outcome == "thrashes"
    # 4.6 GB from a card at 40 MB/s for every token
    assert value(slow.decode_tok_per_s) == pytest.approx(1 / 115, rel=0.1)
    assert "storage" in slow.decode_tok_per_s.source


def test_energy_is_power_times_time_and_says_of_what():
    found = predict(load("google-pixel-8-8gb"), spec_of("smollm2-135m"), "q4_0")
    assert found.energy_j_per_token is not None and found.battery is not None
    assert value(found.energy_j_per_token) == pytest.approx(6.2 / value(found.decode_tok_per_s))
    assert "CPU cores only" in found.energy_j_per_token.source
    assert value(found.battery["continuous_h"]) == pytest.approx(17.6 * 0.93 / 6.2, rel=0.01)


def test_no_power_figures_no_energy():
    found = predict(load("samsung-galaxy-s23-8gb"), spec_of("smollm2-135m"), "q4_0")
    assert found.decode_tok_per_s is not None
    assert found.energy_j_per_token is None and found.battery is None


def test_no_battery_no_hours():
    found = predict(load("raspberry-pi-5-8gb"), spec_of("smollm2-135m"), "q4_0")
    assert found.energy_j_per_token is not None and found.battery is None


def test_threads_and_context():
    pi = load("raspberry-pi-5-8gb")
    one, four = (predict(pi, spec_of("smollm2-135m"), "q4_0", threads=t) for t in (1, 4))
    assert four.threads == 4
    assert value(four.prefill_tok_per_s) > 3 * value(one.prefill_tok_per_s)
    assert predict(pi, spec_of("stories15m"), "q4_0").context == 256
    with pytest.raises(InputError, match="made for 256 tokens"):
        predict(pi, spec_of("stories15m"), "q4_0", context=512)
    with pytest.raises(InputError, match="does not fit in a context"):
        predict(pi, spec_of("stories15m"), "q4_0", context=64, prompt_tokens=128)
    with pytest.raises(InputError, match="unknown recipe"):
        predict(pi, spec_of("stories15m"), "q3_k")
    with pytest.raises(InputError, match="onnx has no recipe"):
        predict(pi, spec_of("stories15m"), "q4_0", file_format="onnx")


def test_a_smaller_micro_batch_takes_less_memory():
    pi = load("raspberry-pi-5-8gb")
    small, usual = (
        predict(pi, spec_of("smollm2-135m"), "q4_0", prompt_tokens=512, ubatch=n) for n in (64, 512)
    )
    assert small.needed_memory_bytes.value < usual.needed_memory_bytes.value


def test_int4_is_the_recipe_it_means():
    pi = load("raspberry-pi-5-8gb")
    assert predict(pi, spec_of("smollm2-135m"), "int4").recipe == "q4_k_m"
