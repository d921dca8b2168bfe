"""Recipes of one's own: what a file may say, the types and bytes that follow, and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_models import make_spec

from edgegauge.errors import InputError
from edgegauge.model import Tensor
from edgegauge.recipe import effective_bits, resolve, stored_tensors, tensor_bytes, width_warning
from edgegauge.recipe_file import SHIPPED_FORMATS, TYPES, RecipeFile, read_recipe, shipped

MINE = """
id = "mine"
format = "gguf"
about = "wide where it hurts"
matrix = "Q4_0"
roles = { token_embd = "Q8_0", attn_v = "Q5_0" }

[layers]
0-1 = { ffn_down = "Q8_0", attn_v = "F16" }
2 = { ffn_down = "Q5_1" }
"""


def recipe_in(folder: Path, text: str) -> RecipeFile:
    (folder / "mine.toml").write_text(text)
    return read_recipe(folder / "mine.toml")


def test_the_most_exact_entry_holds(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, MINE)
    types = {
        (s.tensor.role, s.tensor.layer): s.type for s in stored_tensors(make_spec("llama"), recipe)
    }
    assert types["token_embd", None] == "Q8_0"
    assert [types["ffn_down", n] for n in range(3)] == ["Q8_0", "Q8_0", "Q5_1"]
    assert [types["attn_v", n] for n in range(3)] == ["F16", "F16", "Q5_0"]
    assert types["ffn_up", 0] == "Q4_0" and types["attn_norm", 0] == "F32"


def test_it_reads_back_what_it_writes(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, MINE)
    again = recipe_in(tmp_path, recipe.to_toml())
    assert again == recipe and hash(again) == hash(recipe)
    assert str(recipe) == "mine"


def test_shared_blocks_have_the_type_of_the_stored_one(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, MINE.replace("0-1 =", "0 =").replace("\n2 =", "\n1 ="))
    stored = stored_tensors(make_spec("mobilellm"), recipe)
    downs = [s.type for s in stored if s.tensor.role == "ffn_down"]
    assert downs == ["Q8_0", "Q8_0", "Q5_1", "Q5_1"]


def test_bytes_are_those_of_the_types(tmp_path: Path) -> None:
    spec = make_spec("llama")
    recipe = recipe_in(tmp_path, MINE)
    stored = stored_tensors(spec, recipe)
    assert tensor_bytes(spec, recipe) == sum(s.bytes for s in stored)
    assert effective_bits(spec, recipe) == 8 * tensor_bytes(spec, recipe) / spec.parameters
    assert tensor_bytes(spec, "q4_0") != tensor_bytes(spec, recipe)
    plain = recipe_in(tmp_path, 'id = "all8"\nformat = "gguf"\nmatrix = "Q8_0"')
    assert tensor_bytes(spec, plain) == tensor_bytes(spec, "q8_0")


def test_recipes_of_one_name_are_not_confused(tmp_path: Path) -> None:
    spec = make_spec("llama")
    sizes = set()
    for type in ("Q4_0", "Q5_0"):
        text = f'id = "same"\nformat = "gguf"\nmatrix = "Q8_0"\nroles = {{ ffn_up = "{type}" }}'
        sizes.add(tensor_bytes(spec, recipe_in(tmp_path, text)))
    assert len(sizes) == 2


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    text = 'id = "wide"\nformat = "gguf"\nmatrix = "Q4_K"'
    warning = width_warning(make_spec("llama"), recipe_in(tmp_path, text))
    assert warning is not None and warning.startswith("wide takes 5.5")
    assert "Q4_K became Q5_0 in token_embd" in warning
    assert width_warning(make_spec("llama"), recipe_in(tmp_path, MINE)) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Q5_1"', '"INT8"', "'INT8' is no type of gguf; there are: F32, F16"),
        ("ffn_down = ", "ffn_dawn = ", "layers.0-1.ffn_dawn"),
        ("2 =", "2-1 =", 'layers "2-1" are none'),
        ("2 =", "1-2 =", 'ffn_down of layers "1-2" has a type already'),
        ("2 =", '"1,2" =', "layers.1,2"),
        ('matrix = "Q4_0"', "", "matrix: required, but missing"),
        ('"mine"', '"Mine/../x"', "id: "),
        ('"gguf"', '"ggml"', "format: "),
        ("about =", "abuot =", "abuot: unknown key"),
    ],
)
def test_wrong_files(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_in(tmp_path, MINE.replace(old, new, 1))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "file_format", "said"),
    [
        ({"layers": {"3": {"ffn_up": "F16"}}}, "gguf", "names layer 3, but tiny-llama has 3"),
        ({"id": "q4_0"}, "gguf", "shipped recipe"),
        ({"id": "int8"}, "gguf", "shipped recipe"),
        ({}, "onnx", "is for gguf, not for onnx"),
    ],
)
def test_recipes_that_do_not_suit(change: dict[str, Any], file_format: str, said: str) -> None:
    recipe = RecipeFile(**({"id": "mine", "format": "gguf", "matrix": "Q8_0"} | change))
    with pytest.raises(InputError, match=said):
        stored_tensors(make_spec("llama"), recipe, file_format)


def test_tflite_multiplies_projections_of_one_input_as_one() -> None:
    fields = {"id": "mine", "format": "tflite", "matrix": "INT8", "roles": {"attn_v": "INT4"}}
    with pytest.raises(InputError, match="attn_q INT8, attn_k INT8, attn_v INT4"):
        stored_tensors(make_spec("llama"), RecipeFile(**fields), "tflite")


def test_litert_looks_up_no_blocks() -> None:
    recipe = RecipeFile(id="mine", format="tflite", matrix="INT4/32")
    with pytest.raises(InputError, match="the embedding in INT4/32") as caught:
        stored_tensors(make_spec("llama"), recipe, "tflite")
    assert caught.value.hint == "give token_embd F32, INT8 or INT4"


@pytest.mark.parametrize("file_format", SHIPPED_FORMATS)
def test_shipped_recipes_are_of_the_same_form(file_format: str) -> None:
    for rules in shipped(file_format).values():
        rules.check_types(file_format)
    assert resolve("INT8", file_format) == "int8"


@given(
    st.lists(st.sampled_from(TYPES["gguf"]), min_size=21, max_size=21),
    st.sampled_from(["Q8_0", "Q4_0"]),
)
def test_any_assignment_survives_its_file(types: list[str], matrix: str) -> None:
    roles = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    layers = {str(layer): dict(zip(roles, types[7 * layer :], strict=False)) for layer in range(3)}
    made = RecipeFile(id="x", format="gguf", matrix=matrix, layers=layers)
    again = read_text(made.to_toml())
    for layer in range(3):
        for index, role in enumerate(roles):
            tensor = Tensor(role, layer, 1, 256)  # type: ignore[arg-type]
            assert again.type_of(tensor) == types[7 * layer + index]


def read_text(text: str) -> RecipeFile:
    import tomllib

    return RecipeFile(**tomllib.loads(text))
