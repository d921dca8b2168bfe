"""Recipes: the types and bytes that llama-quantize chooses, and what is said of wide files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from changed_profiles import spec_of
from hypothesis import given
from hypothesis import strategies as st

from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.model import ModelSpec
from edgegauge.recipe import (
    BLOCKS,
    GGUF_RECIPES,
    Recipe,
    StoredTensor,
    effective_bits,
    inventory,
    label_bits,
    resolve,
    shipped_names,
    stored_tensors,
    tensor_bytes,
    width_warning,
)
from edgegauge.recipe_file import RecipeFile

RECORDED = json.loads((Path(__file__).parent / "data" / "quantize_types.json").read_text())
"""Written by scripts/record_quantize_types."""

SMOLLM2: dict[str, Any] = {
    "id": "smollm2-135m", "family": "llama", "layers": 30, "hidden": 576, "intermediate": 1536,
    "heads": 9, "kv_heads": 3, "head_dim": 64, "vocab": 49152, "tied": True, "context": 8192,
    "norm_eps": 1e-5, "rope_theta": 1e5,
}  # fmt: skip
LLAMA_8B = SMOLLM2 | {
    "id": "llama-3.1-8b", "layers": 32, "hidden": 4096, "intermediate": 14336, "heads": 32,
    "kv_heads": 8, "head_dim": 128, "vocab": 128256, "tied": False,
    "rope_scaling": {"kind": "llama3", "factor": 8},
}  # fmt: skip

MIXTURE = RecipeFile(
    id="mine", format="gguf", matrix="Q4_K", layers={"1-2": {"ffn_down": "Q8_0", "attn_v": "Q5_0"}}
)


def expand(runs: str) -> list[str]:
    """The inverse of the script's `run_lengths`."""
    found = []
    for run in runs.split():
        name, _, count = run.partition("*")
        found += [name] * int(count or 1)
    return found


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: f"{c['spec']['family']}")
@pytest.mark.parametrize("recipe", ["f16", "q8_0", "q4_0", "q4_k_m"])
def test_types_are_those_of_llama_quantize(case: dict[str, Any], recipe: str) -> None:
    spec = ModelSpec(id="case", **case["spec"])
    by_role: dict[str, list[str]] = {}
    for stored in stored_tensors(spec, recipe):
        name = tensor_name(stored.tensor)
        role = name if stored.tensor.layer is None else name.split(".", 2)[2]
        by_role.setdefault(role, []).append(stored.type)
    expected = {role: expand(runs) for role, runs in case["types"][recipe].items()}
    assert by_role == expected


def test_record_covers_every_rule() -> None:
    specs = [case["spec"] for case in RECORDED]
    assert {s["family"] for s in specs} == {"llama", "qwen2", "qwen3", "gemma3"}
    used = {
        t
        for c in RECORDED
        for runs in c["types"].values()
        for r in runs.values()
        for t in expand(r)
    }
    assert used == {"F32", "F16", "Q8_0", "Q4_0", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"}


def test_blocks_are_those_of_the_format() -> None:
    for name in ("F32", "F16", "Q4_0", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
        assert BLOCKS[name] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]


def test_aliases() -> None:
    assert resolve("int8", "gguf") == "q8_0"
    assert resolve("INT4", "gguf") == "q4_k_m"
    assert [resolve(r, "gguf") for r in GGUF_RECIPES] == list(GGUF_RECIPES)


@pytest.mark.parametrize(("recipe", "file_format"), [("q9", "gguf"), ("", "gguf"), ("int8", "x")])
def test_unknown_names_say_what_there_is(recipe: str, file_format: str) -> None:
    with pytest.raises(InputError, match=r"there (are|is): (f32, f16, q8_0|gguf)"):
        resolve(recipe, file_format)


@pytest.mark.parametrize("recipe", ["f32", "int8", "int4", "int4_e8", "int4_128"])
@pytest.mark.parametrize("hidden", [64, 72, 256, 576])
def test_onnx_bytes_are_those_of_blocks_and_scales(recipe: str, hidden: int) -> None:
    spec = ModelSpec(**(SMOLLM2 | {"hidden": hidden}))
    stored = stored_tensors(spec, recipe, "onnx")
    assert [s.tensor for s in stored] == list(spec.tensors())
    for each in stored:
        if each.type == "F32":
            assert each.bytes == 4 * each.tensor.elements
            continue
        bits, block = int(each.type[3]), int(each.type[5:])
        blocks = -(-each.tensor.cols // block)
        assert each.bytes == each.tensor.rows * blocks * (block * bits // 8 + 4)
        assert each.tensor.cols % block == 0 or block == 32
    assert tensor_bytes(spec, recipe, "onnx") == sum(s.bytes for s in stored)


def test_onnx_recipes_say_what_they_store() -> None:
    spec = ModelSpec(**SMOLLM2)
    types = {s.tensor.role: s.type for s in stored_tensors(spec, "int4_e8", "onnx")}
    assert (types["token_embd"], types["ffn_down"]) == ("INT8/64", "INT4/32")
    assert types["attn_norm"] == "F32"
    types = {s.tensor.role: s.type for s in stored_tensors(spec, "INT4_128", "onnx")}
    assert (types["token_embd"], types["ffn_down"]) == ("INT4/64", "INT4/128")
    assert effective_bits(spec, "int4", "onnx") == pytest.approx(5.0, abs=0.02)
    assert effective_bits(spec, "f32", "onnx") == 32


@pytest.mark.parametrize("recipe", ["f16", "q4_k_m", ""])
def test_recipes_that_onnx_has_not_name_those_it_has(recipe: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(recipe, "onnx")
    said = f"{caught.value} {caught.value.hint}"
    assert "there are: f32, int8, int4, int4_e8, int4_128" in said
    assert ("half-precision" in said) == (recipe == "f16")


def test_published_width_of_llama_8b() -> None:
    """llama.cpp's quantize README gives 4.8944 bits per weight for Llama-3.1-8B in Q4_K_M."""
    spec = ModelSpec(**LLAMA_8B)
    assert effective_bits(spec, "q4_k_m") == pytest.approx(4.8944, abs=2e-4)
    assert effective_bits(spec, "q8_0") == pytest.approx(8.5008, abs=2e-4)
    assert width_warning(spec, "q4_k_m") is None


@given(
    hidden=st.integers(1, 40).map(lambda n: 8 * n),
    intermediate=st.integers(1, 700),
    layers=st.integers(1, 9),
    repeats=st.integers(1, 3),
    tied=st.booleans(),
    recipe=st.sampled_from(GGUF_RECIPES),
)
def test_bytes_add_up(
    hidden: int, intermediate: int, layers: int, repeats: int, tied: bool, recipe: str
) -> None:
    changed = {"hidden": hidden, "intermediate": intermediate, "layers": layers, "vocab": 50}
    shape = {"heads": 2, "kv_heads": 1, "head_dim": 8, "layer_repeats": repeats, "tied": tied}
    spec = ModelSpec(**(SMOLLM2 | changed | shape))
    stored = stored_tensors(spec, recipe)
    assert [s.tensor for s in stored] == list(spec.tensors(unrolled=True))
    for each in stored:
        elements, size = BLOCKS[each.type]
        assert each.tensor.cols % elements == 0
        assert each.bytes * elements == each.tensor.elements * size
        assert each.type == "F32" or not each.tensor.is_vector
    assert tensor_bytes(spec, recipe) == sum(each.bytes for each in stored)


@pytest.mark.parametrize("model", ["smollm2-135m", "mobilellm-ls-125m", "gemma-3-270m"])
@pytest.mark.parametrize(
    ("file_format", "recipe"),
    [*((f, r) for f in ("gguf", "onnx", "tflite") for r in shipped_names(f)), ("gguf", MIXTURE)],
    ids=str,
)
def test_the_inventory_counts_the_stored_tensors(
    model: str, file_format: str, recipe: Recipe
) -> None:
    spec = spec_of(model)
    kinds: dict[tuple[str, str], list[StoredTensor]] = {}
    for stored in stored_tensors(spec, recipe, file_format):
        kinds.setdefault((stored.tensor.role, stored.wanted), []).append(stored)
    found = inventory(spec, recipe, file_format)
    assert list(found) == [(alike[0], len(alike)) for alike in kinds.values()]


def test_position_factors_are_counted() -> None:
    plain = ModelSpec(**(LLAMA_8B | {"rope_scaling": None}))
    assert tensor_bytes(ModelSpec(**LLAMA_8B), "q4_0") - tensor_bytes(plain, "q4_0") == 64 * 4


def test_result_is_the_callers_own() -> None:
    spec = ModelSpec(**SMOLLM2)
    stored_tensors(spec, "q8_0").clear()
    assert len(stored_tensors(spec, "q8_0")) == 272


def test_wide_file_names_what_fell_back() -> None:
    warning = width_warning(ModelSpec(**SMOLLM2), "q4_k_m")
    assert warning is not None
    assert "6.17 bits per weight here, not 4.89" in warning
    assert "Q6_K became Q8_0 in token_embd, attn_v" in warning
    assert "Q4_K became Q5_0 in attn_q" in warning
    assert "576" in warning
    assert "ffn_down" not in warning  # its rows of 1536 suit k-quants


def test_wide_embedding_is_named_without_a_fallback() -> None:
    spec = ModelSpec(**(SMOLLM2 | {"hidden": 512, "head_dim": 64, "heads": 8, "kv_heads": 2,
                                   "layers": 2, "vocab": 250_000}))  # fmt: skip
    warning = width_warning(spec, "q4_0")
    assert warning is not None
    assert "token_embd, 95 % of the weights, is kept in Q6_K" in warning
    assert "became" not in warning


def test_sharing_is_always_mentioned() -> None:
    shared = ModelSpec(**(SMOLLM2 | {"layer_repeats": 2}))
    for recipe in GGUF_RECIPES:
        assert "each is written 2 times" in (width_warning(shared, recipe) or "")


@pytest.mark.parametrize("recipe", GGUF_RECIPES)
def test_labels_fit_a_model_of_even_widths(recipe: str) -> None:
    assert effective_bits(ModelSpec(**LLAMA_8B), recipe) == pytest.approx(
        label_bits(recipe), rel=0.04
    )
