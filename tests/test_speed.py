"""Speed: work, the laws of the formulas, and the choice of the method."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from changed_profiles import changed, spec_of

from edgegauge.device import Cluster, known_ids, load
from edgegauge.speed import (
    class_speed,
    cycles_per_s,
    machine_of,
    memory_rate,
    priors,
    read_again,
    streamed,
)
from edgegauge.speed_model import speed_model
from edgegauge.work import Work, work_of

# Work


def test_work_counts_what_a_token_reads():
    spec = spec_of("qwen2.5-0.5b")
    work = work_of(spec, "q4_k_m")
    # As llama-roofline 0.2.3 counts the bytes of this file that are read for a token: 373.7 MiB.
    assert work.weight_bytes / 2**20 == pytest.approx(373.7, abs=0.05)
    assert sum(work.weights.values()) - sum(work.body.values()) == spec.vocab * spec.hidden
    assert work.kv_bytes(100) == 100 * 24 * 2 * 2 * 64 * 2
    assert work_of(spec, "int4", "onnx").kv_bytes(100) == 2 * work.kv_bytes(100)


def test_a_window_bounds_what_is_read_of_the_cache():
    work = work_of(spec_of("gemma-3-1b-pt"), "q4_0")
    near = work.kv_bytes(work.window)
    far = work.kv_bytes(2 * work.window)
    assert near < far < 1.3 * near
    assert work.attention(2 * work.window) < 1.3 * work.attention(work.window)


def test_shared_layers_are_executed_as_often_as_they_are_used():
    shared, plain = spec_of("mobilellm-ls-125m"), spec_of("mobilellm-125m")
    assert shared.layer_repeats == 2
    ratio = sum(work_of(shared, "int4", "onnx").body.values()) / sum(
        work_of(plain, "int4", "onnx").body.values()
    )
    assert ratio == pytest.approx(2, rel=0.01)


def test_work_of_a_file_is_immutable_and_cached():
    spec = spec_of("smollm2-135m")
    assert work_of(spec, "q4_0") is work_of(spec, "q4_0")
    with pytest.raises(AttributeError):
        work_of(spec, "q4_0").layers = 3  # type: ignore[misc]
    assert isinstance(work_of(spec, "q4_0"), Work)


# Formulas


@pytest.mark.parametrize("runtime", ["llama.cpp", "onnxruntime", "litert"])
def test_more_work_takes_longer_on_every_device(runtime):
    form = {"llama.cpp": ("q4_0", "gguf"), "onnxruntime": ("int4", "onnx")}
    recipe, file_format = form.get(runtime, ("int4", "tflite"))
    small, large = (
        work_of(spec_of(m), recipe, file_format) for m in ("smollm2-360m", "llama-3.2-1b")
    )
    for device in known_ids():
        model = speed_model(load(device), runtime)
        for found in (model.decode(small, 128), model.prefill(small, 128)):
            assert 0 < found.low < found.seconds < found.high < 10 * found.seconds, device
        assert model.decode(small, 0).seconds < model.decode(small, 2000).seconds
        assert model.decode(small, 128).seconds < model.decode(large, 128).seconds
        assert model.prefill(small, 128).seconds < model.prefill(large, 128).seconds
        assert model.prefill(small, 128).seconds < model.prefill(small, 1024).seconds


def test_bandwidth_and_cores_help_where_they_are_what_is_short():
    pi, work = load("orange-pi-5-8gb"), work_of(spec_of("llama-3.2-3b"), "q8_0")
    pi = changed(pi, memory__llm_decode_gb_per_s=None)
    twice = {"value": 2 * pi.memory.bandwidth_gb_per_s.value, "source": "twice of it"}
    base = class_speed(machine_of(pi, 4))
    wider = class_speed(machine_of(changed(pi, memory__bandwidth_gb_per_s=twice), 4))
    assert wider.decode_s(work, 0) < 0.8 * base.decode_s(work, 0)
    small = work_of(spec_of("smollm2-360m"), "q8_0")
    assert wider.prefill_s(small, 512) > 0.95 * base.prefill_s(small, 512)
    alone = class_speed(machine_of(pi, 1))
    assert alone.prefill_s(small, 512) > 3 * base.prefill_s(small, 512)


def test_a_prompt_reads_large_matrices_again_where_the_cache_is_small():
    """Parts of 7 MB do not fit into 3 MB, so that bandwidth counts; into 32 MB they do."""
    board, work = load("orange-pi-5-8gb"), work_of(spec_of("llama-3.2-3b"), "q8_0")
    assert read_again(work, 4, 3 * 2**20) == pytest.approx(work.body_bytes / 4)
    assert read_again(work, 4, 3 * 2**20, parts=1) == pytest.approx(work.body_bytes / 4)
    assert read_again(work, 4, 32 * 2**20) < work.body_bytes / 100
    assert read_again(work, math.inf, 3 * 2**20) == 0
    machine = machine_of(board, 4)
    large = replace(machine, shared_cache_bytes=32 * 2**20)
    slow, fast = class_speed(machine), class_speed(large)
    assert slow.prefill_s(work, 512) > 1.2 * fast.prefill_s(work, 512)
    assert slow.decode_s(work, 0) == fast.decode_s(work, 0)
    other = [class_speed(m, "litert").prefill_s(work, 512) for m in (machine, large)]
    assert other[0] == other[1]


def test_fast_cores_wait_for_the_last_part_of_a_matrix():
    cpu = load("orange-pi-5-8gb").cpu.model_copy(update={"clusters": [fast(3, 3.0), fast(2, 1.0)]})
    assert cycles_per_s(cpu, 3) == pytest.approx(9e9)
    # 20 parts: after 5/3 s the fast cores have done 15, the slow ones 2; the last ends after 2 s.
    assert cycles_per_s(cpu, 5) == pytest.approx(20 / 2 * 1e9)


def fast(count: int, ghz: float) -> Cluster:
    return Cluster(core="Cortex-A76", count=count, ghz=ghz)


def test_without_a_dot_product_decode_is_bound_by_arithmetic():
    """The A72 gains little from half the bytes; a bandwidth model would nearly double its rate."""
    machine = class_speed(machine_of(load("raspberry-pi-4b-4gb"), 4))
    spec = spec_of("qwen2.5-0.5b")
    four, eight = (machine.decode_s(work_of(spec, r), 0) for r in ("q4_0", "q8_0"))
    assert eight < 1.5 * four


def test_small_models_stay_in_the_cache():
    assert streamed(100, 0) == 100
    assert streamed(100, 50) == 100
    assert streamed(100, 100) == pytest.approx(100 / 3)
    assert streamed(100, 1000) == 1


def test_an_unknown_bandwidth_widens_the_interval():
    profile = load("google-pixel-8-8gb")
    assert profile.memory.bandwidth_gb_per_s is None
    model = speed_model(profile, "llama.cpp")
    found = model.decode(work_of(spec_of("smollm2-135m"), "q4_0"), 0)
    low, high = priors()["class"][profile.cpu.core_class]["decode_interval"]
    assert "not known" in found.source
    assert found.high / found.seconds > 1.2 * high and found.low / found.seconds < low / 1.2


def test_other_runtimes_say_how_they_were_obtained():
    found = speed_model(load("google-pixel-9-12gb"), "onnxruntime")
    base = speed_model(load("google-pixel-9-12gb"), "llama.cpp")
    work = work_of(spec_of("smollm2-135m"), "int4", "onnx")
    assert "ratio to llama.cpp on one x86 machine" in found.decode(work, 0).source
    relative = [m.decode(work, 0).high / m.decode(work, 0).seconds for m in (found, base)]
    assert relative[0] > relative[1] * 1.2


# The choice


def test_published_rows_of_this_very_device_come_before_its_class():
    for device in ("raspberry-pi-5-4gb", "raspberry-pi-5-16gb", "raspberry-pi-cm5-4gb"):
        model = speed_model(load(device), "llama.cpp")
        found = model.decode(work_of(spec_of("llama-3.2-3b"), "q4_k_m"), 64)
        assert "published measurements of Raspberry Pi 5" in found.source
        # Five boards of the family were seen at 4.5 to 5.6 tok/s.
        assert 4.2 < 1 / found.seconds < 5.8
    plain = class_speed(machine_of(load("raspberry-pi-5-4gb"), 4))
    low, high = plain.decode_interval
    assert found.high / found.seconds < high and found.low / found.seconds > low


def test_an_m2_is_no_m2_max():
    m2 = changed(load("apple-macbook-air-m2-8gb"), memory__llm_decode_gb_per_s=None)
    work = work_of(spec_of("llama-3.2-1b"), "q4_0")
    assert "Mac with M2," not in speed_model(m2, "llama.cpp").decode(work, 0).source
    assert "of Mac with M2" in speed_model(m2, "llama.cpp").decode(work, 0).source
    other = changed(m2, cpu__soc="Apple M2 Ultra", memory__bandwidth_gb_per_s=None)
    assert "scaled" not in speed_model(other, "llama.cpp").decode(work, 0).source
    same_chip = {"value": 204.8, "source": "another memory"}
    wider = changed(m2, memory__bandwidth_gb_per_s=same_chip)
    assert "scaled" not in speed_model(wider, "llama.cpp").decode(work, 0).source


def test_a_machine_that_describes_itself_is_found_too():
    """`devices detect` cannot tell the theoretical bandwidth, and measures a read rate."""
    pi, work = load("raspberry-pi-5-16gb"), work_of(spec_of("llama-3.2-3b"), "q4_k_m")
    read = {"value": 11.0, "source": "measured"}
    itself = changed(pi, memory__bandwidth_gb_per_s=None, memory__read_gb_per_s=read)
    known, found = (speed_model(p, "llama.cpp").decode(work, 64) for p in (pi, itself))
    assert found.seconds == pytest.approx(known.seconds)
    pc = load("framework-laptop-13-ryzen-ai-5-340-16gb")
    assert "of Framework Laptop 13" in speed_model(pc, "llama.cpp").decode(work, 64).source
    slotted = speed_model(changed(pc, memory__read_gb_per_s=read), "llama.cpp").decode(work, 64)
    assert "measured read rate" in slotted.source and "of Framework" not in slotted.source


def test_memory_gives_few_threads_no_less_than_many():
    """A loop that reads less with one thread has met that thread's limit, not the memory's."""
    rates = {"1": 9.0, "2": 13.0, "4": 11.0}
    assert [memory_rate(11.5, rates, n) for n in (1, 2, 3, 4, 8)] == [13, 13, 12, 11, 11.5]
    assert memory_rate(11.5, {}, 2) == 11.5 and memory_rate(None, {}, 2) is None


def test_what_one_core_was_measured_to_read_counts_where_one_reads():
    board = changed(load("orange-pi-5-8gb"), memory__llm_decode_gb_per_s=None)
    work = work_of(spec_of("llama-3.2-1b"), "f16")
    slow = {"value": 6.0, "source": "a loop on one core"}
    other = changed(board, memory__read_1_thread_gb_per_s=slow)
    one, four = ([class_speed(machine_of(p, n)).decode_s(work, 0) for p in (board, other)]
                 for n in (1, 4))  # fmt: skip
    assert one[1] > 2 * one[0]
    assert four[1] < 1.3 * four[0]


def test_a_stated_decode_rate_sets_the_scale():
    profile = changed(load("orange-pi-5-8gb"), memory__llm_decode_gb_per_s=None)
    stated = {"value": 6.4, "source": "a run on this board"}
    plain = speed_model(profile, "llama.cpp")
    moved = speed_model(changed(profile, memory__llm_decode_gb_per_s=stated), "llama.cpp")
    work = work_of(spec_of("llama-3.2-3b"), "q4_k_m")
    # 2.0 GB read per token at 6.4 GB/s
    assert 1 / moved.decode(work, 0).seconds == pytest.approx(3.2, rel=0.1)
    small = work_of(spec_of("smollm2-135m"), "q4_k_m")
    assert moved.prefill(small, 128).seconds == pytest.approx(
        plain.prefill(small, 128).seconds, rel=0.05
    )


@pytest.mark.parametrize(
    ("device", "model", "recipe", "measured"),
    [
        # Decode rates of llama.cpp that people published and the fit does not use.
        ("raspberry-pi-4b-4gb", "gemma-3-1b-pt", "q4_k_m", 3.56),
        ("orange-pi-5-16gb", "qwen3-1.7b-base", "q4_0", 20.29),
        ("apple-macbook-air-m1-8gb", "llama-3.1-8b", "q4_0", 13.3),
    ],
)
def test_rates_that_were_not_fitted_lie_near_the_interval(device, model, recipe, measured):
    found = speed_model(load(device), "llama.cpp").decode(work_of(spec_of(model), recipe), 64)
    assert 0.8 / found.high < measured < 1.25 / found.low
