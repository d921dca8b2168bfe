"""Predictions: their laws, their honesty about what is not known, and the priors' derivation."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

from edgegauge import catalog
from edgegauge.device import DeviceProfile, known_ids, load
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.predict import predict
from edgegauge.speed import machine_of, prior_name, prior_of

ROOT = Path(__file__).parents[1]


def spec_of(model: str):
    return catalog.load()[model].spec


def changed(profile: DeviceProfile, **parts) -> DeviceProfile:
    value = profile.model_dump()
    for path, new in parts.items():
        *above, last = path.split("__")
        inner = value
        for key in above:
            inner = inner[key]
        inner[last] = new
    return DeviceProfile.model_validate(value)


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def test_every_shipped_profile_gets_speeds_with_intervals():
    for device in known_ids():
        found = predict(load(device), spec_of("smollm2-135m"), "q4_0")
        assert found.outcome == "fits", device
        for figure in (found.decode_tok_per_s, found.prefill_tok_per_s, found.ttft_s):
            assert figure is not None and figure.kind == "predicted"
            assert figure.low < figure.value < figure.high
            assert "prior of" in figure.source


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


@pytest.mark.parametrize(
    ("device", "model", "recipe", "measured"),
    [
        # Decode rates of llama.cpp that people published; see scripts/priors/measurements.csv.
        ("raspberry-pi-4b-4gb", "gemma-3-1b-pt", "q4_0", 3.67),
        ("raspberry-pi-4b-4gb", "llama-3.2-3b", "q4_k_m", 1.60),
        ("raspberry-pi-5-8gb", "qwen2.5-0.5b", "q4_0", 29.9),
        ("raspberry-pi-5-8gb", "llama-3.1-8b", "q4_k_m", 2.05),
        ("raspberry-pi-zero-2-w", "smollm-360m", "q4_k_m", 2.6),
        ("apple-macbook-air-m2-8gb", "llama-3.2-1b", "q4_0", 70.7),
    ],
)
def test_published_rates_lie_in_the_interval(device, model, recipe, measured):
    profile = load(device)
    roomy = changed(profile, memory__ram_gb__value=64.0, memory__app_gb__value=60.0)
    found = predict(roomy, spec_of(model), recipe).decode_tok_per_s
    assert found is not None and found.low < measured < found.high


def test_without_a_dot_product_decode_is_bound_by_arithmetic():
    """The A72 gains little from half the bytes; a bandwidth model would nearly double its rate."""
    pi4 = changed(load("raspberry-pi-4b-4gb"), memory__llm_decode_gb_per_s=None)
    four, eight = (predict(pi4, spec_of("qwen2.5-0.5b"), r) for r in ("q4_0", "q8_0"))
    assert value(four.decode_tok_per_s) < 1.5 * value(eight.decode_tok_per_s)


def test_a_stated_decode_rate_sets_the_scale():
    profile = changed(load("raspberry-pi-4b-4gb"), memory__llm_decode_gb_per_s=None)
    plain = predict(profile, spec_of("llama-3.2-3b"), "q4_k_m")
    stated = {"value": 6.4, "source": "a run on this board"}
    faster = predict(
        changed(profile, memory__llm_decode_gb_per_s=stated), spec_of("llama-3.2-3b"), "q4_k_m"
    )  # fmt: skip
    # 2.0 GB read per token at 6.4 GB/s
    assert value(faster.decode_tok_per_s) == pytest.approx(3.2, rel=0.1)
    assert value(faster.prefill_tok_per_s) == value(plain.prefill_tok_per_s)


def test_a_measured_read_rate_comes_before_the_theoretical_one():
    profile = changed(load("raspberry-pi-5-8gb"), memory__llm_decode_gb_per_s=None)
    machine = machine_of(profile, 4)
    assert machine.bandwidth_bytes_per_s == pytest.approx(0.85 * 11.59e9)
    assert machine_of(profile, 2).bandwidth_bytes_per_s == pytest.approx(0.85 * 13.23e9)


def test_an_unknown_bandwidth_widens_the_interval():
    profile = load("google-pixel-8-8gb")
    assert profile.memory.bandwidth_gb_per_s is None
    prior = prior_of(profile.cpu)
    found = predict(profile, spec_of("smollm2-135m"), "q4_0").decode_tok_per_s
    assert found is not None and "not known" in found.source
    assert found.high / found.value > 1.1 * prior.decode_interval[1]


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


def test_int4_is_the_recipe_it_means():
    pi = load("raspberry-pi-5-8gb")
    assert predict(pi, spec_of("smollm2-135m"), "int4").recipe == "q4_k_m"


def test_in_order_cores_without_dot_product_are_apart():
    assert prior_name("arm-in-order", "plain") == "arm-in-order-plain"
    assert prior_name("arm-in-order", "dotprod") == "arm-in-order"
    assert prior_name("arm-a72", "plain") == "arm-a72"


def derivation() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "check_priors", str(ROOT / "scripts/check_priors")
    )
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def test_the_priors_are_what_the_measurements_give():
    """The constants; scripts/check_priors repeats the held-out intervals too, which takes long."""
    module = derivation()
    rows = module.read_rows()
    assert all(row.decode or row.prefill for row in rows)
    committed = tomllib.loads((ROOT / "src/edgegauge/priors.toml").read_text())
    classes, decode, prefill = module.fit(rows)
    assert set(classes) == set(committed["class"])
    for name, constants in classes.items():
        entry = committed["class"][name]
        assert entry["bandwidth_share"] == pytest.approx(constants["share"], abs=6e-4)
        assert entry["decode_per_cycle"] == pytest.approx(constants["decode"], abs=6e-3)
        assert entry["prefill_per_cycle"] == pytest.approx(constants["prefill"], abs=6e-3)
        assert entry["decode_interval"][0] < 1 < entry["decode_interval"][1]
    for kernels, table in decode.items():
        assert committed["cost"][kernels]["decode"] == pytest.approx(table, abs=6e-3)
        assert committed["cost"][kernels]["prefill"] == pytest.approx(prefill[kernels], abs=6e-3)
