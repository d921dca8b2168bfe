"""Encoders as GGUF: llama.cpp against the NumPy reference, and the types of `llama-quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_encoders import KINDS, make_encoder, make_encoder_spec, plain_encoder_weights, wordpiece
from test_encoder_onnx import cosine
from tokenizers import Tokenizer

from edgegauge.artifact import open_artifact
from edgegauge.convert_encoder import encoder_job
from edgegauge.gguf_reader import read_header
from edgegauge.measure.runtimes import amx
from edgegauge_converters.encoder_gguf import (
    GgufEncoderConverter,
    gguf_tokens,
    synthetic_vocabulary,
)
from edgegauge_converters.encoder_recipe import stored_tensors, tensor_bytes
from edgegauge_converters.encoder_reference import EncoderReference
from edgegauge_converters.encoder_verify_gguf import GgufEncoderWeights
from edgegauge_converters.wordpiece import WordPiece

RECIPES = ("f32", "f16", "q8_0", "q4_0", "q4_k_m")
TEXT = "The quick brown fox measured 21.5 degrees; Café zebra's lamp, naïve CAMEL 中文!"
WIDE: dict[str, Any] = {"hidden": 256, "intermediate": 512, "heads": 8}
"""Rows that k-quants fit."""
TABLE_BOUND = 0.003
"""Of values near 1, from llama.cpp's table of half floats for GELU; found is 0.0011."""


def convert(folder: Path, recipe: str, output: Path, *, synthetic: bool = False) -> Path:
    job = encoder_job(str(folder), recipe, output, synthetic=synthetic)
    return GgufEncoderConverter().convert(job, lambda done, what: None).path


def opened(path: Path) -> Any:
    amx.settle(llama_cpp.llama_cpp._lib)
    return llama_cpp.Llama(
        str(path), embedding=True, verbose=False, n_ctx=96, n_batch=96, n_ubatch=96, n_threads=1,
        n_threads_batch=1,
    )  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_computes_what_the_reference_does(kind: str, recipe: str, tmp_path: Path) -> None:
    spec = make_encoder(tmp_path / "m", kind, seed=1, layers=2, **WIDE)
    path = convert(tmp_path / "m", recipe, tmp_path)
    tokens = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json")).encode(TEXT).ids
    assert len(tokens) > 20
    model = opened(path)
    assert model.tokenize(TEXT.encode(), add_bos=True) == tokens
    embedding = np.array(model.embed(TEXT, normalize=False))
    theirs = spec.model_copy(update={"activation": "gelu_tanh", "normalise": False})
    wanted = EncoderReference(theirs, GgufEncoderWeights(path)).encode(tokens).embedding
    assert cosine(embedding, wanted) > (0.9999 if recipe in ("f32", "f16") else 0.9995)
    if recipe == "f32":
        assert np.abs(embedding - wanted).max() < TABLE_BOUND
        exact = EncoderReference(spec, plain_encoder_weights(spec, 1)).encode(tokens).embedding
        assert cosine(embedding, exact) > 0.9999


def test_a_text_in_a_batch_is_as_alone(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm", seed=2)
    model = opened(convert(tmp_path / "m", "f32", tmp_path))
    texts = ["a small model", TEXT, "the light"]
    together = np.array(model.embed(texts, normalize=True))
    for text, embedding in zip(texts, together, strict=True):
        assert np.abs(np.array(model.embed(text, normalize=True)) - embedding).max() < 1e-3


@pytest.mark.parametrize("recipe", ["q8_0", "q4_0", "q4_k_m"])
@pytest.mark.parametrize("widths", [WIDE, {}])
def test_types_are_those_of_llama_quantize(
    recipe: str, widths: dict[str, Any], tmp_path: Path
) -> None:
    spec = make_encoder(tmp_path / "m", "minilm", layers=9, **widths)
    source = convert(tmp_path / "m", "f32", tmp_path)
    ours = read_header(convert(tmp_path / "m", recipe, tmp_path))
    theirs = tmp_path / "theirs.gguf"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15}[recipe]
    parameters.nthread = 1
    assert not llama_cpp.llama_model_quantize(
        str(source).encode(), str(theirs).encode(), parameters
    )
    expected = {name: t.type for name, t in read_header(theirs).tensors.items()}
    assert {name: t.type for name, t in ours.tensors.items()} == expected
    held = sum(t.bytes for t in ours.tensors.values())
    assert held == tensor_bytes(stored_tensors(spec, recipe, "gguf"))


def test_cased_vocabulary_keeps_its_case(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "distilbert")
    (tmp_path / "m" / "tokenizer.json").write_text(wordpiece(512, lowercase=False), "utf-8")
    model = opened(convert(tmp_path / "m", "f32", tmp_path))
    text = "The quick brown Fox, Please remind Alice"
    wanted = Tokenizer.from_str(wordpiece(512, lowercase=False)).encode(text).ids
    assert model.tokenize(text.encode(), add_bos=True) == wanted


def test_manifest_says_what_llama_cpp_does_otherwise(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    manifest = open_artifact(convert(tmp_path / "m", "q8_0", tmp_path)).manifest
    assert manifest is not None and manifest.encoder is not None
    assert any("tanh" in w for w in manifest.warnings)
    assert any("length 1" in w for w in manifest.warnings)


def test_synthetic_weights_run(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    path = convert(tmp_path / "m" / "config.json", "q4_0", tmp_path, synthetic=True)
    model = opened(path)
    assert len(model.tokenize(b"ab c", add_bos=True)) == 5
    assert np.isfinite(model.embed("ab c")).all()


TOKENS = st.lists(st.none() | st.sampled_from(["a", "##a", "▁a", "##▁a", "[PAD1]", "##"])
                  | st.text(min_size=1, max_size=4), min_size=1, max_size=30)  # fmt: skip


@given(TOKENS, st.frozensets(st.integers(0, 29)))
def test_no_text_appears_twice(tokens: list[str | None], added: frozenset[int]) -> None:
    """llama.cpp refuses such a vocabulary."""
    texts, types = gguf_tokens(WordPiece(tokens, {}, added, True, True))
    assert len(texts) == len(types) == len(tokens) == len(set(texts))
    assert all(texts)


@pytest.mark.parametrize("size", [1, 4, 60, 500])
def test_synthetic_vocabulary_has_a_token_for_every_row(size: int) -> None:
    assert len(gguf_tokens(synthetic_vocabulary(size))[0]) == size
    assert make_encoder_spec("minilm", vocab=size).vocab == size
