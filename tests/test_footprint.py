"""The predicted memory against llama.cpp's own buffers and the memory of a real process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgegauge import catalog
from edgegauge.convert import converter_for, prepare
from edgegauge.footprint import footprint, instruction_set, is_repacked
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.recipe import stored_tensors, tensor_bytes

DOTPROD = ["neon", "dotprod"]
AVX2 = ["avx2"]


def spec_of(model: str):
    return catalog.load()[model].spec


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


@pytest.mark.parametrize(
    ("model", "recipe", "mib"),
    [
        # MiB of the CPU_REPACK buffer on two phones with dotprod and i8mm: PocketPal's baselines.
        ("qwen2.5-1.5b", "q8_0", 1564.07),
        ("qwen2.5-1.5b", "q4_k_m", 934.14),
        ("smollm2-1.7b", "q8_0", 1734.0),
        ("smollm2-1.7b", "q4_k_m", 1004.62),
        ("gemma-3-1b-pt", "q8_0", 1013.03),
    ],
)
def test_repacked_bytes_of_phones(model, recipe, mib):
    found = footprint(
        spec_of(model), recipe, features=["i8mm", "dotprod"], context=2048, prompt_tokens=256
    )  # fmt: skip
    assert found.repacked_bytes / 2**20 == pytest.approx(mib, rel=0.002)


@pytest.mark.parametrize(
    ("model", "kv_mib", "compute_mib"),
    [
        ("qwen2.5-1.5b", 56, 302.75), ("qwen3-1.7b-base", 224, 304.75),
        ("smollm2-1.7b", 384, 104), ("gemma-3-1b-pt", 22, 516.5),
    ],
)  # fmt: skip
def test_cache_and_compute_buffers_of_phones(model, kv_mib, compute_mib):
    found = footprint(
        spec_of(model), "q8_0", features=["i8mm"], context=2048, prompt_tokens=256
    )  # fmt: skip
    assert found.compute_reserved_bytes / 2**20 == pytest.approx(compute_mib, rel=1e-3)
    # Gemma's local layers: the build on those phones kept fewer cells than today's.
    expected = kv_mib if model != "gemma-3-1b-pt" else 30
    assert found.kv_cache_bytes / 2**20 == pytest.approx(expected, rel=0.01)


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


def test_the_runtime_is_the_one_the_sources_were_read_of():
    pytest.importorskip("llama_cpp")
    assert LlamaCppRuntime().version().startswith("0.3.")
