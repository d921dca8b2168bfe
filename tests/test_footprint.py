"""The predicted memory against llama.cpp's own buffers and the memory of real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from changed_profiles import spec_of

from edgegauge.convert import converter_for, prepare
from edgegauge.errors import InputError
from edgegauge.footprint import footprint
from edgegauge.measure.child import start
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.measure.worker import job
from edgegauge.memory_litert import GROWN
from edgegauge.memory_llama_cpp import instruction_set, is_repacked
from edgegauge.recipe import stored_tensors, tensor_bytes
from edgegauge.result import Workload

DOTPROD = ["neon", "dotprod"]
AVX2 = ["avx2"]


def test_weights_are_the_recipes_bytes():
    for model in ("smollm2-135m", "qwen2.5-7b", "mobilellm-ls-125m", "gemma-3-1b-pt"):
        found = footprint(
            spec_of(model), "q4_k_m", features=AVX2, context=256, prompt_tokens=64
        )  # fmt: skip
        assert found.weights_bytes == tensor_bytes(spec_of(model), "q4_k_m")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (["avx2", "avx_vnni"], "avx2"), (["AVX512F"], "avx2"), (["i8mm", "dotprod"], "i8mm"),
        (["asimddp"], "dotprod"), (["neon"], "plain"), ([], "plain"),
    ],
)  # fmt: skip
def test_instruction_set(features, expected):
    assert instruction_set(features) == expected


def test_nothing_is_repacked_without_kernels_for_it():
    found = footprint(spec_of("qwen2.5-0.5b"), "q4_0", features=[], context=256, prompt_tokens=64)
    assert found.repacked_bytes == 0
    assert found.weights_in_use_bytes == found.weights_bytes  # tied: the embedding is the head


def test_rows_decide_whether_a_matrix_is_repacked():
    stored = {s.tensor.role: s for s in stored_tensors(spec_of("stories260k"), "q4_0")}
    assert is_repacked(stored["ffn_up"], "dotprod")  # 172 rows: a multiple of 4
    assert not is_repacked(stored["ffn_up"], "avx2")  # but not of 8


def test_outcomes_follow_the_kind_of_memory():
    found = footprint(spec_of("qwen2.5-0.5b"), "q8_0", features=[], context=2048, prompt_tokens=128)
    assert found.peak_bytes == found.anonymous_bytes + found.file_bytes
    assert found.outcome(found.needed_bytes) == "fits"
    assert found.outcome(found.needed_bytes - 1) == "thrashes"
    assert found.outcome(found.anonymous_bytes) == "thrashes"
    assert found.outcome(found.anonymous_bytes - 1) == "out of memory"


def test_pages_read_only_for_repacking_are_not_needed():
    found = footprint(
        spec_of("smollm2-1.7b"), "q8_0", features=DOTPROD, context=512, prompt_tokens=64
    )  # fmt: skip
    assert found.weights_in_use_bytes < 0.01 * found.weights_bytes
    assert found.peak_bytes > 1.8 * found.weights_bytes  # mapped and repacked
    assert found.needed_bytes < 1.4 * found.weights_bytes


def test_memory_grows_with_context_and_prompt():
    spec = spec_of("qwen3-0.6b")
    sizes = [
        footprint(spec, "q4_0", features=AVX2, context=c, prompt_tokens=p)
        for c, p in ((512, 64), (4096, 64), (4096, 512))
    ]
    assert sizes[0].kv_cache_bytes * 8 == sizes[1].kv_cache_bytes
    assert sizes[1].peak_bytes < sizes[2].peak_bytes


CHILD = """
import json, sys
from pathlib import Path
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime

session = LlamaCppRuntime().open(Path(sys.argv[1]), threads=1, context=256)
session.prefill([5] * 200)
session.step(6)
status = dict(l.split(":", 1) for l in open("/proc/self/status") if l.startswith("Rss"))
kb = {k: int(v.split()[0]) * 1024 for k, v in status.items()}
print(json.dumps({"facts": session.facts(), "rss": kb}))
"""


@pytest.mark.parametrize("recipe", ["q4_0", "q8_0", "f16"])
def test_against_llama_cpp_here(tmp_path, recipe):
    """Buffers within 2 % (the compute buffer 6 %), resident memory within 12 %: this model is
    small, so the worker itself is a third of it."""
    pytest.importorskip("llama_cpp")
    job = prepare("stories15m", recipe, "gguf", synthetic=True).into(tmp_path)
    artifact = converter_for("gguf").convert(job, lambda done, note: None)
    command = [sys.executable, "-c", CHILD, str(artifact.path)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    found = json.loads(answer.splitlines()[-1])
    features = {"MATMUL_INT8": "i8mm", "DOTPROD": "dotprod", "AVX2": "avx2"}
    named = [features[f] for f in found["facts"]["features"] if f in features]
    needs = footprint(
        spec_of("stories15m"), recipe, features=named, context=256, prompt_tokens=200
    )  # fmt: skip
    buffers = found["facts"]["buffers_bytes"]
    repacked = sum(v for k, v in buffers.items() if "REPACK" in k)
    assert repacked == pytest.approx(needs.repacked_bytes, rel=0.02)
    assert buffers["KV/CPU"] == pytest.approx(needs.kv_cache_bytes, rel=0.02)
    assert buffers["compute/CPU"] == pytest.approx(needs.compute_reserved_bytes, rel=0.06)
    if Path("/proc/self/status").exists():
        resident = found["rss"]["RssAnon"] + found["rss"]["RssFile"]
        assert resident == pytest.approx(needs.peak_bytes, rel=0.12)


@pytest.mark.parametrize(
    ("file_format", "recipe"),
    [("gguf", "q4_0"), ("onnx", "int4"), ("onnx", "f32"), ("tflite", "int4"), ("tflite", "int8")],
)
def test_anonymous_memory_of_a_process_here(tmp_path, file_format, recipe):
    """Within 10 MB: the model is small, so this checks the runtime's part and the cache."""
    module = {"gguf": "llama_cpp", "onnx": "onnxruntime", "tflite": "ai_edge_litert"}[file_format]
    pytest.importorskip(module)
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell anonymous memory")
    asked = prepare("stories15m", recipe, file_format, synthetic=True).into(tmp_path)
    artifact = converter_for(file_format).convert(asked, lambda done, note: None)
    load = Workload(prompt_tokens=200, generated_tokens=4, threads=1, runs=1, repetitions=1)
    asked = job(runtime_for(file_format), artifact.path, load.model_dump())
    with start("edgegauge.measure.worker", asked) as messages:
        (run,) = [message["run"] for message in messages if "run" in message]
    measured = max(phase["anonymous_bytes"] for phase in run["phases"].values())
    needs = footprint(
        spec_of("stories15m"), recipe, file_format=file_format, features=AVX2,
        context=load.context, prompt_tokens=200,
    )  # fmt: skip
    if file_format != "gguf":
        needs = replace(needs, tokenizer_bytes=0)  # random tokens ask for none
    assert measured == pytest.approx(needs.anonymous_bytes, abs=10e6)


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_parts_in_the_graph_runtimes(file_format):
    spec = spec_of("qwen2.5-0.5b")
    small, large = (
        footprint(spec, "int4", file_format=file_format, features=[], context=c, prompt_tokens=128)
        for c in (2048, 4096)
    )
    assert small.weights_bytes == tensor_bytes(spec, "int4", file_format)
    per_token = 2 * 4 * spec.kv_heads * spec.head_dim * spec.layers
    assert small.kv_cache_bytes == 2048 * per_token  # f32
    assert large.kv_cache_bytes == 2 * small.kv_cache_bytes
    assert small.weights_in_use_bytes == 0 and small.repacked_bytes > 0.9 * small.weights_bytes
    assert small.peak_bytes == small.anonymous_bytes + small.file_bytes


def test_loading_is_the_peak_of_a_small_onnx_model_with_a_long_context():
    spec = spec_of("gemma-3-270m")
    short = spec.model_copy(update={"id": "short", "context": 2048})
    needs = {
        s.id: footprint(
            s, "int4", file_format="onnx", features=[], context=64, prompt_tokens=32
        ) for s in (spec, short)
    }  # fmt: skip
    rotary = 32768 * 128 * 8
    long = replace(needs["gemma-3-270m"], tokenizer_bytes=0)
    assert long.anonymous_bytes == long.loading_bytes
    assert long.loading_bytes - long.runtime_anonymous_bytes == 7 * rotary
    assert replace(needs["short"], tokenizer_bytes=0).loading_bytes < 0.5 * long.loading_bytes


def test_a_tflite_file_has_its_usual_cache_however_little_is_asked_for():
    spec = spec_of("qwen2.5-0.5b")
    found = footprint(
        spec, "int8", file_format="tflite", features=[], context=64, prompt_tokens=16
    )  # fmt: skip
    assert found.kv_cache_bytes == 1280 * 2 * 4 * spec.kv_heads * spec.head_dim * spec.layers


def test_masks_of_a_tflite_file_are_as_long_as_the_spans_that_a_prompt_needs():
    spec = spec_of("smollm2-135m")
    grown = []
    for prompt in (100, 256, 257, 512, 513, 1280):
        found = footprint(
            spec, "int8", file_format="tflite", features=[], context=1280, prompt_tokens=prompt
        )  # fmt: skip
        grown.append(found.compute_bytes)
    # Of 128 tokens: two masks of the cache, rotations, and a span's masks for 3 heads of queries.
    second, third = (128 * 4 * (2 * 1280 + 4 * 64 + 3 * span) for span in (512, 1280))
    steps = [b - a for a, b in pairwise(grown)]
    assert steps == [0, GROWN * second, 0, GROWN * (third - second), 0]


def test_the_workspace_of_a_tflite_file_is_that_of_its_longest_span():
    """Scores of 9 heads, keys and queries for 128 tokens: 7,176,992 bytes were allocated."""
    spec = spec_of("smollm2-135m")
    sizes = [
        footprint(
            spec, "int8", file_format="tflite", features=[], context=cells, prompt_tokens=1
        ).compute_bytes
        for cells in (1280, 2560)
    ]  # fmt: skip
    scores_and_keys, runtime, zeros = 128 * 4 * 9 + 4 * 192, 2 * 128 * 4, 4 * 192
    of_first_span = 2 * 128 * 4
    assert sizes[1] - sizes[0] == 1280 * (scores_and_keys + runtime + zeros + of_first_span)


def test_a_smaller_micro_batch_takes_less():
    spec = spec_of("gemma-3-1b-pt")
    for file_format, recipe in (("gguf", "q4_0"), ("onnx", "int4")):
        sizes = [
            footprint(
                spec, recipe, file_format=file_format, features=AVX2, context=2048,
                prompt_tokens=1024, ubatch=ubatch,
            ).compute_reserved_bytes
            for ubatch in (64, 512)
        ]  # fmt: skip
        assert 6 * sizes[0] < sizes[1]


def test_a_recipe_of_another_format_has_no_footprint():
    with pytest.raises(InputError, match="no recipe"):
        footprint(
            spec_of("smollm2-135m"), "q4_0", file_format="onnx", features=[], context=64,
            prompt_tokens=8,
        )  # fmt: skip


def test_the_runtime_is_the_one_the_sources_were_read_of():
    pytest.importorskip("llama_cpp")
    assert LlamaCppRuntime().version().startswith("0.3.")
