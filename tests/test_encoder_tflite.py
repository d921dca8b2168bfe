"""Encoders as TFLite files against the NumPy reference, at any length, padded and not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from make_encoders import KINDS, make_encoder, plain_encoder_weights
from test_encoder_onnx import _temporary, cosine

from edgegauge.artifact import open_artifact
from edgegauge.convert_encoder import encoder_job
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.model import Tensor
from edgegauge_converters.encoder_recipe import stored_tensors, tensor_bytes
from edgegauge_converters.encoder_reference import EncoderReference
from edgegauge_converters.encoder_tflite import TfliteEncoderConverter
from edgegauge_converters.tflite_quantize import decode, encode, row_scales

RECIPES = ("f32", "int8", "int4", "int4_row")
IDS = np.random.RandomState(4).randint(0, 512, 96).astype(np.int32)
TYPES = (np.arange(96) > 4).astype(np.int32)
CASES = ((30, 30), (17, 30), (1, 1), (5, 96), (96, 96))
"""Tokens of the text, and the length that it is padded to."""
SEED = 5


@functools.cache
def artifact_of(kind: str, recipe: str) -> tuple[Path, EncoderSpec]:
    folder = _temporary() / f"{kind}-tflite"
    spec = make_encoder(folder, kind, seed=SEED)
    job = encoder_job(str(folder), recipe, _temporary() / "tflite-out")
    return TfliteEncoderConverter().convert(job, lambda done, what: None).path, spec


def run(path: Path, tokens: int, length: int, ids: np.ndarray = IDS) -> dict[str, np.ndarray]:
    """Outputs for the first tokens of IDS, padded to a length."""
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    feed = {
        "input_ids": ids[None, :length],
        "attention_mask": (np.arange(length) < tokens).astype(np.int32)[None],
        "token_type_ids": TYPES[None, :length],
    }
    inputs = interpreter.get_input_details()
    for each in inputs:
        interpreter.resize_tensor_input(each["index"], [1, length])
    interpreter.allocate_tensors()
    for each in inputs:
        interpreter.set_tensor(each["index"], feed[each["name"]])
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return {each["name"]: interpreter.get_tensor(each["index"]) for each in outputs}


def quantised(spec: EncoderSpec, recipe: str) -> Callable[[Tensor], np.ndarray]:
    """The checkpoint's weights as the recipe stores them, quantised here."""
    plain = plain_encoder_weights(spec, SEED)
    types = {s.tensor: s.type for s in stored_tensors(spec, recipe, "tflite")}

    def weight(tensor: Tensor) -> np.ndarray:
        values, kind = plain(tensor), types[tensor]
        if kind == "F32":
            return values
        scales = row_scales(values, kind)
        return decode(encode(values, scales, kind), scales, kind)

    return weight


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_computes_what_the_reference_does(kind: str, recipe: str) -> None:
    path, spec = artifact_of(kind, recipe)
    reference = EncoderReference(spec, quantised(spec, recipe))
    for tokens, length in CASES:
        made = run(path, tokens, length)
        types = TYPES[:tokens].tolist() if spec.token_types else None
        wanted = reference.encode(IDS[:tokens].tolist(), types)
        embedding, hidden = made["sentence_embedding"][0], made["last_hidden_state"][0, :tokens]
        assert hidden.shape == wanted.hidden.shape
        if recipe == "f32":
            assert np.abs(embedding - wanted.embedding).max() < 1e-4
            assert np.abs(hidden - wanted.hidden).max() < 1e-4
        assert cosine(embedding, wanted.embedding) > (0.9999 if recipe == "f32" else 0.999)
        assert cosine(hidden[0], wanted.hidden[0]) > 0.999


@pytest.mark.parametrize("recipe", ["f32", "int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, recipe: str) -> None:
    path, _ = artifact_of(kind, recipe)
    alone, padded = (run(path, 20, n)["sentence_embedding"] for n in (20, 75))
    other = run(path, 20, 75, np.where(np.arange(96) < 20, IDS, 7).astype(np.int32))
    assert np.abs(alone - padded).max() < 1e-5
    assert np.abs(alone - other["sentence_embedding"]).max() < 1e-5


def test_a_text_that_is_too_long_is_refused() -> None:
    path, spec = artifact_of("minilm", "f32")
    ids = np.ones(spec.positions + 1, np.int32)
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    for each in interpreter.get_input_details():
        interpreter.resize_tensor_input(each["index"], [1, len(ids)])
    interpreter.allocate_tensors()
    for each in interpreter.get_input_details():
        interpreter.set_tensor(each["index"], ids[None])
    with pytest.raises(RuntimeError, match="EMBEDDING_LOOKUP"):
        interpreter.invoke()


def test_manifest_and_files() -> None:
    path, spec = artifact_of("minilm", "int8")
    manifest = open_artifact(path.parent).manifest
    assert manifest is not None and manifest.encoder is not None
    assert manifest.tensor_bytes == tensor_bytes(stored_tensors(spec, "int8", "tflite"))
    assert {f.name for f in manifest.files} == {path.name, "tokenizer.json"}
    assert manifest.tensor_bytes < path.stat().st_size < manifest.tensor_bytes * 1.3 + 60_000


def test_synthetic_weights_run(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    job = encoder_job(str(tmp_path / "m" / "config.json"), "int8", tmp_path, synthetic=True)
    path = TfliteEncoderConverter().convert(job, lambda done, what: None).path
    assert np.isfinite(run(path, 9, 20)["sentence_embedding"]).all()


def test_refused_recipes_say_why(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    job = encoder_job(str(tmp_path / "m"), "f16", tmp_path)
    with pytest.raises(InputError, match="half precision"):
        TfliteEncoderConverter().convert(job, lambda done, what: None)
