"""Speed by calibration: how work is counted, what is fitted to it, and what that predicts."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.calibration import (
    HABITS,
    PAST,
    CalibratedSpeed,
    Costs,
    Habits,
    bits_of,
    decode_work,
    last_step,
    prefill_work,
)
from edgegauge.calibration_fit import Timing, fitted, non_negative
from edgegauge.calibration_shapes import SHAPES, plan
from edgegauge.device import Calibration, Coefficient, DeviceProfile, as_document, load
from edgegauge.document import parse
from edgegauge.errors import InputError, MeasurementError
from edgegauge.find_model import resolve_model
from edgegauge.model import ModelSpec
from edgegauge.speed import SpeedModel
from edgegauge.work import Work, work_of

CACHE = 24e6
FORMATS = {"llama.cpp": "gguf", "onnxruntime": "onnx", "litert": "tflite"}

DECODE = {
    "layer": 2e-5, "token": 5e-5, "attention": 1e-10, "keys": 3e-11, "keys past": 4e-11,
    "keys cut": 2e-11, "activations": 4e-9,
    "Q8_0": 1.5e-11, "Q4_0": 1e-11, "Q4_K": 1.2e-11, "Q5_0": 2.5e-11, "Q6_K": 2e-11, "F16": 3e-11,
    "INT8/128": 1.2e-11, "INT8/64": 1.3e-11, "INT4/32": 1.4e-11, "INT4/128": 1e-11, "F32": 2e-11,
    "INT8": 1.1e-11, "INT4": 0.9e-11,
}  # fmt: skip
DECODE |= {kind + PAST: 3e-12 * bits_of(kind) for kind in DECODE if bits_of(kind)}
PREFILL = {
    "pass": 1e-4, "call": 3e-4, "activations": 1e-9, "attention": 5e-11, "keys": 6e-11,
    "Q8_0": 8e-12, "Q4_0": 7e-12, "Q4_K": 9e-12, "Q5_0": 2e-11, "Q6_K": 2.5e-11, "F16": 1.5e-11,
    "INT8/128": 5e-12, "INT8/64": 6e-12, "INT4/32": 8e-12, "INT4/128": 7e-12, "F32": 2e-11,
    "INT8": 4e-12, "INT4": 5e-12,
}  # fmt: skip
"""A machine, in seconds per unit of work."""


def coefficients(values: dict[str, float], error: float = 0.0) -> dict[str, Coefficient]:
    return {k: Coefficient(value=v, error=error * v) for k, v in values.items()}


def calibration(**changes: Any) -> Calibration:
    made = Calibration(
        runtime_version="1.0", threads=4, cache_bytes=CACHE, decode=coefficients(DECODE),
        prefill=coefficients(PREFILL), decode_residual=0.01, prefill_residual=0.02,
        source="made up for a test",
    )  # fmt: skip
    return made.model_copy(update=changes)


def timings(runtime: str, decode: Costs, prefill: Costs, scatter: float = 0.0) -> Iterator[Timing]:
    """What the planned models take on a machine of these costs."""
    file_format, habits = FORMATS[runtime], HABITS[runtime]
    draw = random.Random(7)
    for shape, recipe, prompts in plan(file_format):
        work = work_of(SHAPES[shape].spec(shape, recipe, file_format, CACHE), recipe, file_format)
        for tokens in prompts:
            step = decode.seconds(decode_work(work, tokens + 12, CACHE, habits))[0]
            last = decode.seconds(last_step(work, tokens, CACHE, habits))[0]
            whole = prefill.seconds(prefill_work(work, tokens, habits))[0] + last
            yield Timing(
                work=work, prompt_tokens=tokens, depth=tokens + 12,
                decode_s=step * (1 + draw.gauss(0, scatter)),
                prefill_s=whole * (1 + draw.gauss(0, scatter)), noise=scatter,
            )  # fmt: skip


@pytest.fixture(scope="module")
def models() -> list[ModelSpec]:
    names = ("stories42m", "smollm2-135m", "gemma-3-270m", "qwen3-0.6b", "mobilellm-1b")
    return [resolve_model(name).spec for name in names]


@pytest.mark.parametrize("runtime", FORMATS)
def test_the_fit_recovers_the_machine_that_the_times_came_from(
    runtime: str, models: list[ModelSpec]
) -> None:
    decode, prefill = Costs(coefficients(DECODE)), Costs(coefficients(PREFILL))
    found = fitted(runtime, list(timings(runtime, decode, prefill)), CACHE)
    assert found[0].residual < 5e-3 and found[1].residual < 5e-3
    speed = CalibratedSpeed(
        runtime, calibration(decode=found[0].coefficients, prefill=found[1].coefficients)
    )
    truth = CalibratedSpeed(runtime, calibration())
    for spec in models:
        for recipe in ("int8", "int4"):
            work = work_of(spec, recipe, FORMATS[runtime])
            for tokens in (16, 128, 900):
                assert speed.decode(work, tokens).seconds == pytest.approx(
                    truth.decode(work, tokens).seconds, rel=0.03
                )
                assert speed.prefill(work, tokens).seconds == pytest.approx(
                    truth.prefill(work, tokens).seconds, rel=0.05
                )


TOLD = ("keys past", "Q8_0 past", "Q4_0 past", "Q4_K past", "Q6_K past")
"""What llama.cpp's models tell of reading."""


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0.3, 3.0), min_size=60, max_size=60))
def test_coefficients_of_any_machine_are_within_their_errors(factors: list[float]) -> None:
    names = [*DECODE, *PREFILL]
    factor = dict(zip(range(len(names)), factors, strict=False))
    decode = {k: v * factor[i] for i, (k, v) in enumerate(DECODE.items())}
    prefill = {k: v * factor[i + len(DECODE)] for i, (k, v) in enumerate(PREFILL.items())}
    # Reading a type that the models do not tell of costs what the fit takes for it, by its bits.
    for name in [name for name in decode if name.endswith(PAST) and name not in TOLD]:
        del decode[name]
    made = timings("llama.cpp", Costs(coefficients(decode)), Costs(coefficients(prefill)))
    for fit, true in zip(fitted("llama.cpp", list(made), CACHE), (decode, prefill), strict=True):
        for name, found in fit.coefficients.items():
            assert abs(found.value - true[name]) <= 4 * found.error + 0.01 * true[name], name


def test_two_calibrations_agree_within_their_errors() -> None:
    decode, prefill = Costs(coefficients(DECODE)), Costs(coefficients(PREFILL))
    rows = list(timings("llama.cpp", decode, prefill))
    fits = []
    for seed in range(2):
        draw = random.Random(seed)
        noisy = [
            replace(
                row, noise=0.02,
                decode_s=row.decode_s * (1 + draw.gauss(0, 0.02)),
                prefill_s=row.prefill_s * (1 + draw.gauss(0, 0.02)),
            )
            for row in rows
        ]  # fmt: skip
        fits.append(fitted("llama.cpp", noisy, CACHE))
    for one, other in zip(*fits, strict=True):
        for name, coefficient in one.coefficients.items():
            there = other.coefficients[name]
            bound = 3 * (coefficient.error**2 + there.error**2) ** 0.5
            assert abs(coefficient.value - there.value) <= bound, name


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_non_negative_least_squares(data: st.DataObject) -> None:
    import numpy as np

    draw = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    matrix, wanted = draw.normal(size=(9, 5)), draw.normal(size=9)
    found = non_negative(matrix, wanted)
    slope = matrix.T @ (matrix @ found - wanted)
    assert (found >= 0).all()
    assert (slope >= -1e-6).all()  # no coefficient wants to grow
    assert abs(slope[found > 0]).max(initial=0) < 1e-6  # and those that are there to change


def test_no_time_at_all_is_refused() -> None:
    decode, prefill = Costs(coefficients(DECODE)), Costs(coefficients(PREFILL))
    rows = [replace(row, decode_s=0.0) for row in timings("llama.cpp", decode, prefill)]
    with pytest.raises(MeasurementError, match="no time"):
        fitted("llama.cpp", rows, CACHE)


def smollm(recipe: str = "q4_0", file_format: str = "gguf") -> Work:
    return work_of(resolve_model("smollm2-135m").spec, recipe, file_format)


def test_a_calibration_is_a_speed_model() -> None:
    speed: SpeedModel = CalibratedSpeed("llama.cpp", calibration())
    decode, prefill = speed.decode(smollm(), 128), speed.prefill(smollm(), 128)
    assert speed.threads == 4
    assert 0 < decode.low < decode.seconds < decode.high
    assert 0 < prefill.low < prefill.seconds < prefill.high
    assert "llama.cpp 1.0" in decode.source and "calibration" in decode.source


def test_decoding_is_the_sum_of_its_work() -> None:
    work = smollm()
    speed = CalibratedSpeed("llama.cpp", calibration(cache_bytes=1.0))
    expected = (
        sum(n * (DECODE[t] + DECODE[t + PAST]) for t, n in work.weights.items())
        + 30 * DECODE["layer"] + DECODE["token"]
        + (30 * sum(work.body.values())) ** 0.5 * DECODE["activations"]
        + work.attention(101) * DECODE["attention"]
        + work.kv_bytes(101) * (DECODE["keys"] + DECODE["keys past"])
    )  # fmt: skip
    assert speed.decode(work, 100).seconds == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("runtime", FORMATS)
def test_more_work_takes_longer(runtime: str) -> None:
    speed = CalibratedSpeed(runtime, calibration())
    work = smollm("int8", FORMATS[runtime])
    larger = work_of(resolve_model("smollm2-360m").spec, "int8", FORMATS[runtime])
    depths = [speed.decode(work, d).seconds for d in (0, 100, 600, 1200)]
    prompts = [speed.prefill(work, n).seconds for n in (1, 8, 100, 300, 1000)]
    assert depths == sorted(depths) and prompts == sorted(prompts)
    assert speed.decode(larger, 100).seconds > speed.decode(work, 100).seconds
    assert speed.prefill(larger, 100).seconds > speed.prefill(work, 100).seconds


def test_weights_inside_the_cache_cost_no_bandwidth() -> None:
    work = smollm()
    count = work.weights["Q4_0"]
    past = decode_work(work, 0, work.weight_bytes / 10, HABITS["llama.cpp"])["Q4_0 past"]
    inside = decode_work(work, 0, work.weight_bytes * 10, HABITS["llama.cpp"])["Q4_0 past"]
    assert past > 0.99 * count and inside < 0.01 * count


def test_litert_attends_to_spans_and_reads_prompts_in_pieces() -> None:
    work, habits = smollm("int8", "tflite"), HABITS["litert"]
    near, full, far = (
        decode_work(work, d, CACHE, habits)["attention"] / work.attention_per_token
        for d in (10, 255, 256)
    )
    assert (near, full, far) == (256, 256, 512)
    cut, whole = (decode_work(work, d, CACHE, habits) for d in (511, 512))
    assert cut["keys cut"] == cut["keys"] == 512 * work.kv_bytes_per_token
    assert whole["keys cut"] == 0  # the last span is all of the cache: nothing is copied out
    assert last_step(work, 10, CACHE, habits)["layer"] == work.layers  # 9 tokens are one piece
    assert last_step(work, 8, CACHE, habits)["layer"] == 8 * work.layers  # 7 are read in steps
    assert prefill_work(work, 300, habits)["pass"] == 3 * work.layers
    assert prefill_work(work, 258, habits)["pass"] == 2 * work.layers


def test_the_habits_are_those_of_runtimes_and_files() -> None:
    from edgegauge.measure.runtimes import llama_cpp, onnxruntime

    assert HABITS["llama.cpp"].batch == llama_cpp.UBATCH
    assert HABITS["onnxruntime"].batch == onnxruntime.CHUNK
    assert HABITS["litert"] == Habits(128, (256, 512, 1280))  # of a file as it is made unasked


def test_a_type_that_was_not_run_takes_the_nearest_and_is_less_sure() -> None:
    costs = Costs(coefficients({"Q4_0": 1e-11, "Q8_0": 2e-11, "layer": 1e-5}, error=0.1))
    assert costs["Q5_0"][0] == costs["Q4_K"][0] == 1e-11
    assert costs["F16"][0] == 2e-11
    assert costs["Q5_0"][1] > 2 * costs["Q4_0"][1]
    blocks = Costs(coefficients({"INT4/32": 3e-11, "INT4/128": 2e-11, "INT8/128": 4e-11}))
    assert blocks["INT4/64"][0] == 3e-11  # as near to both: with more scales
    assert blocks["INT4/256"][0] == 2e-11 and blocks["INT8/32"][0] == 4e-11
    odd = Costs(coefficients({"INT4/0": 3e-11, "INT4/99999999999": 2e-11}))
    assert odd["INT4/32"][0] == 3e-11  # a profile may name such types
    reading = Costs(coefficients({"Q8_0": 2e-11, "Q8_0 past": 1e-11}))
    assert reading["F32 past"][0] == 4e-11 and reading["Q4_0 past"][0] == 0.5e-11  # by their bits
    assert costs["keys"] == (0.0, 0.0)  # other work that was not fitted costs nothing


def test_errors_widen_the_interval() -> None:
    sure = CalibratedSpeed("llama.cpp", calibration())
    unsure = CalibratedSpeed("llama.cpp", calibration(decode=coefficients(DECODE, 0.2)))
    noisy = CalibratedSpeed("llama.cpp", calibration(decode_residual=0.2))
    widths = [
        (e.high - e.low) / e.seconds for s in (sure, unsure, noisy) for e in [s.decode(smollm(), 8)]
    ]
    assert widths[0] < min(widths[1:])
    assert 0.12 < widths[0] < 0.14  # 2 x 1.28 x 5.1 %


def test_errors_that_are_opposite_cancel() -> None:
    values = coefficients({"Q4_0": 1e-11, "layer": 1e-3}, error=0.1)
    terms = {"Q4_0": 1e8, "layer": 1.0}  # a millisecond each, with an error of a tenth
    for correlation, expected in ((-1.0, 0.0), (0.0, 2e-8), (1.0, 4e-8)):
        seconds, variance = Costs(values, [[], [correlation]]).seconds(terms)
        assert seconds == pytest.approx(2e-3)
        assert variance == pytest.approx(expected, abs=1e-20)


@pytest.mark.parametrize("runtime", FORMATS)
def test_what_was_run_is_known_as_well_as_its_runs(runtime: str) -> None:
    scatter = 0.02
    decode, prefill = Costs(coefficients(DECODE)), Costs(coefficients(PREFILL))
    rows = list(timings(runtime, decode, prefill, scatter))
    found, _ = fitted(runtime, rows, CACHE)
    costs = Costs(found.coefficients, found.correlations)
    sure = 0
    for row in rows:
        terms = decode_work(row.work, row.depth, CACHE, HABITS[runtime])
        seconds, variance = costs.seconds(terms)
        others = {name: n for name, n in terms.items() if name not in found.coefficients}
        if costs.seconds(others)[0] < 0.01 * seconds:  # else another type stands in, less sure
            assert variance**0.5 / seconds < 1.5 * scatter
            sure += 1
    assert sure > len(rows) / 2


def test_an_estimate_is_quick() -> None:
    """Loose: 36,000 of them are to take less than a second, together with all else."""
    speed, work = CalibratedSpeed("llama.cpp", calibration()), smollm()
    started = time.process_time()
    for _ in range(2000):
        speed.decode(work, 128)
    assert (time.process_time() - started) / 2000 < 100e-6


# --- in the profile


@pytest.fixture
def profile() -> dict[str, Any]:
    device = load("raspberry-pi-5-8gb").model_copy(
        update={"calibration": {"llama.cpp": calibration(), "litert": calibration(threads=2)}}
    )
    return as_document(device)


def test_a_profile_holds_calibrations_by_runtime(profile: dict[str, Any]) -> None:
    device = parse(profile, DeviceProfile, "a test")
    assert device.calibration is not None
    assert device.calibration["litert"].threads == 2
    assert device.calibration["llama.cpp"] == calibration()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 0}, "threads: must be > 0"),
        ({"cache_bytes": -1.0}, "cache_bytes: must be > 0"),
        ({"decode": {"layer": {"value": 1.0}}}, "decode.layer.error: required"),
        ({"decode": {"layer": {"value": -1.0, "error": 0.0}}}, "decode.layer.value: must be >= 0"),
        ({"prefill": {"layer": {"value": 1.0, "error": "0"}}}, "prefill.layer.error"),
        ({"speed": 3}, "speed: unknown key"),
        ({"decode": {"bytes": {"value": 1.0, "error": 0.0}}}, "decode.bytes"),
        ({"decode_residual": float("inf")}, "decode_residual"),
        ({"source": ""}, "source"),
        ({"prefill_correlations": [[2.0]]}, "prefill_correlations.0.0: must be <= 1"),
    ],
)
def test_what_is_no_calibration_is_said(
    change: dict[str, Any], said: str, profile: dict[str, Any]
) -> None:
    profile["calibration"]["llama.cpp"] |= change
    with pytest.raises(InputError) as caught:
        parse(profile, DeviceProfile, "a test")
    assert f"calibration.llama.cpp.{said}" in str(caught.value)


def test_correlations_are_one_row_for_each_kind_of_work(profile: dict[str, Any]) -> None:
    profile["calibration"]["llama.cpp"]["decode_correlations"] = [[], [0.5]]
    with pytest.raises(InputError, match=f"of {len(DECODE)} kinds of work are rows of 0, 1"):
        parse(profile, DeviceProfile, "a test")
