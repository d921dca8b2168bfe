"""Advice: every change is checked by predicting with it, and no smaller one would do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegauge import catalog
from edgegauge.advice import Advice, Case, advise, largest
from edgegauge.budget import Budget
from edgegauge.device import DeviceProfile, load
from edgegauge.fit import DEFAULT_RECIPES, within_device

PI = load("raspberry-pi-5-4gb")
RECIPES = DEFAULT_RECIPES["gguf"]


def case(model: str, recipe: str, device: DeviceProfile = PI, **changes: object) -> Case:
    spec = catalog.load()[model].spec
    return replace(Case(device=device, spec=spec, recipe=recipe, context=2048), **changes)  # type: ignore[arg-type]


def by_kind(found: list[Advice]) -> dict[str, Advice]:
    return {advice.kind: advice for advice in found}


def limits_of(device: DeviceProfile, **limits: object) -> Budget:
    return within_device(Budget.model_validate(limits), device)


def test_a_case_that_passes_needs_no_advice() -> None:
    fine = case("smollm2-135m", "q4_0")
    limits = limits_of(PI, decode_tok_per_s=1)
    assert fine.verdict(limits).passes and advise(fine, limits, RECIPES) == []


def test_the_largest_context_that_fits() -> None:
    failing = case("qwen2.5-3b", "q4_0", context=32768)
    limits = limits_of(PI, memory="2.2GB")
    found = by_kind(advise(failing, limits, RECIPES))
    advice = found["context"]
    assert isinstance(advice.value, int) and advice.mends == ["memory"] and advice.verdict.passes
    assert replace(failing, context=advice.value).verdict(limits) == advice.verdict
    assert not replace(failing, context=advice.value + 1).verdict(limits).passes


def test_the_widest_recipe_that_passes() -> None:
    failing = case("qwen2.5-1.5b", "q8_0")
    rates = {
        recipe: replace(failing, recipe=recipe).predict().decode_tok_per_s for recipe in RECIPES
    }
    slow, fast = (rates[recipe] for recipe in ("q8_0", "q4_k_m"))
    assert slow and fast and slow.value < fast.value
    limits = limits_of(PI, decode_tok_per_s=fast.value * 0.99)
    assert by_kind(advise(failing, limits, RECIPES))["recipe"].value == "q4_k_m"
    assert "recipe" not in by_kind(advise(failing, limits, ["q8_0"]))


def test_the_bandwidth_that_a_device_would_need() -> None:
    failing = case("qwen2.5-3b", "q4_0")
    limits = limits_of(PI, decode_tok_per_s=7)
    advice = by_kind(advise(failing, limits, RECIPES))["bandwidth"]
    stated = PI.memory.bandwidth_gb_per_s
    assert stated and isinstance(advice.value, float)
    factor = advice.value / stated.value
    assert factor > 1 and advice.verdict.passes
    assert replace(failing, memory_speed=factor).verdict(limits) == advice.verdict
    assert not replace(failing, memory_speed=factor - 0.02).verdict(limits).passes
    impossible = limits_of(PI, decode_tok_per_s=1e6)
    assert "bandwidth" not in by_kind(advise(failing, impossible, RECIPES))


def test_the_longest_prompt_in_time() -> None:
    failing = case("qwen2.5-1.5b", "q4_0", prompt_tokens=1024)
    limits = limits_of(PI, ttft_p99_s=5)
    advice = by_kind(advise(failing, limits, RECIPES))["prompt"]
    assert isinstance(advice.value, int) and advice.mends == ["ttft_p99_s"]
    longer = replace(failing, prompt_tokens=advice.value + 1).predict().ttft_s
    assert longer and longer.value > 5


def test_a_smaller_micro_batch_where_the_buffers_do_not_fit() -> None:
    wide = case("gemma-3-270m", "q4_0", prompt_tokens=512)
    need = wide.predict().needed_memory_bytes.value
    half = replace(wide, ubatch=256).predict().needed_memory_bytes.value
    assert half < need
    limits = limits_of(PI, memory=int((need + half) / 2))
    advice = by_kind(advise(wide, limits, ["q4_0"]))["micro_batch"]
    assert advice.value == 256 and advice.verdict.passes
    assert "micro_batch" not in by_kind(advise(wide, limits_of(PI, memory=1000), ["q4_0"]))


def test_threads() -> None:
    failing = case("qwen2.5-0.5b", "q4_0", threads=1)
    rates = {n: replace(failing, threads=n).predict().prefill_tok_per_s for n in (1, 2)}
    assert rates[1] and rates[2]
    limits = limits_of(PI, prefill_tok_per_s=rates[2].value * 0.99)
    assert by_kind(advise(failing, limits, ["q4_0"]))["threads"].value == 2


def test_changes_after_which_it_passes_come_first() -> None:
    failing = case("qwen2.5-3b", "q8_0", context=32768)
    found = advise(failing, limits_of(PI, decode_tok_per_s=4), RECIPES)
    passes = [advice.verdict.passes for advice in found]
    assert passes == sorted(passes, reverse=True) and len(passes) >= 2


@pytest.mark.parametrize(
    "device", ["raspberry-pi-zero-2-w", "apple-iphone-13", "google-pixel-8-8gb"]
)
@pytest.mark.parametrize("model", ["smollm2-360m", "gemma-3-1b-it", "llama-3.2-3b"])
def test_advice_holds_when_predicted_again(device: str, model: str) -> None:
    profile = load(device)
    failing = case(model, "q8_0", profile, context=4096 if model != "smollm2-360m" else 2048)
    limits = limits_of(profile, decode_tok_per_s=9, ttft_p99_s=2)
    before = {broken.limit for broken in failing.verdict(limits).broken}
    for advice in advise(failing, limits, RECIPES):
        after = {broken.limit for broken in advice.verdict.broken}
        assert after < before and set(advice.mends) == before - after
        again = {
            "recipe": lambda v: replace(failing, recipe=v),
            "context": lambda v: replace(failing, context=v),
            "prompt": lambda v: replace(failing, prompt_tokens=v),
            "micro_batch": lambda v: replace(failing, ubatch=v),
            "threads": lambda v: replace(failing, threads=v),
        }
        if advice.kind in again:
            assert again[advice.kind](advice.value).verdict(limits) == advice.verdict


@given(threshold=st.integers(-5, 40), low=st.integers(0, 20), high=st.integers(0, 30))
def test_largest_is_what_trying_all_finds(threshold: int, low: int, high: int) -> None:
    tried = [n for n in range(low, high + 1) if n <= threshold]
    assert largest(lambda n: n <= threshold, low, high) == (max(tried) if tried else None)
