"""Verification of encoders: good artifacts pass, broken ones are refused and the place is named.

A fault of a converter is made by converting another model, which differs in one thing, and
verifying what came of it against the right one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import check, quiet
from make_encoders import KINDS, encoder_weights, make_encoder, name_of
from make_models import write_safetensors

from edgegauge.artifact import Artifact, open_artifact
from edgegauge.cli import main
from edgegauge.convert_encoder import encoder_converter_for, encoder_job
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import ConversionError
from edgegauge.verify import verified
from edgegauge_converters.encoder_blueprint import encoder_blueprint

RECIPES = {
    "gguf": ("f32", "f16", "q8_0", "q4_k_m", "q4_0"),
    "onnx": ("f32", "int8", "int4"),
    "tflite": ("f32", "int8", "int4_row", "int4"),
}
SEED = 11
WIDE: dict[str, Any] = {"hidden": 256, "intermediate": 512, "heads": 8, "layers": 2}
"""Rows that k-quants fit."""
Weights = dict[tuple[str, int | None], np.ndarray]


def make(path: Path, kind: str, file_format: str, **overrides: Any) -> EncoderSpec:
    return make_encoder(path, kind, seed=SEED, **({**WIDE} if file_format == "gguf" else {}),
                        **overrides)  # fmt: skip


def convert(folder: Path, file_format: str, recipe: str, output: Path) -> Artifact:
    job = encoder_job(str(folder), recipe, output, threads=1)
    return encoder_converter_for(file_format).convert(job, quiet)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file_format", RECIPES)
def test_good_artifacts_pass(file_format: str, kind: str, tmp_path: Path) -> None:
    spec = make(tmp_path / "m", kind, file_format)
    for recipe in RECIPES[file_format]:
        found = check(convert(tmp_path / "m", file_format, recipe, tmp_path), spec, tmp_path / "m")
        assert found.texts > 5 and found.on == "built-in text" and not found.not_checked
        assert found.parts.parts == 2 * spec.layers + 2  # the embedding, halves of blocks, pooling
        assert found.original is not None and found.weights is not None
        assert found.weights.tensors == len(list(spec.tensors()))
        assert found.tokenizer is not None and not found.tokenizer.other_tokens
        exact = recipe in ("f32", "f16")
        assert found.own_weights.least_cosine.value > (0.99999 if exact else 0.999)
        assert found.original.least_cosine.value > (0.9999 if exact else 0.9)
        if file_format != "gguf":
            # Quantised or not: from its own values, and rounding as it does, to float sums.
            assert found.parts.error.value < 0.1 * found.parts.rounding.value + 1e-6
        if not exact:
            assert found.original.rms_error.value > found.own_weights.rms_error.value


def test_random_weights_have_only_themselves(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm", seed=SEED)
    job = encoder_job(str(tmp_path / "m" / "config.json"), "int8", tmp_path, synthetic=True)
    for file_format in RECIPES:
        artifact = encoder_converter_for(file_format).convert(job, quiet)
        found = check(artifact, job.spec, None)
        assert found.original is None and found.weights is None and found.tokenizer is None
        assert found.on == "random tokens" and "synthetic" in found.not_checked[0]


def _swap(weights: Weights) -> None:
    weights["attn_q", 1], weights["attn_k", 1] = weights["attn_k", 1], weights["attn_q", 1]


def _set(
    role: str, block: int | None, made: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights[role, block] = made(weights[role, block])

    return change


FAULTS = {
    "queries and keys swapped": ("attn_q of block 1", _swap),
    "a square matrix transposed": (
        "attn_output of block 1", _set("attn_output", 1, lambda w: np.ascontiguousarray(w.T))),
    "a scale off by two": ("ffn_down of block 0", _set("ffn_down", 0, lambda w: 2 * w)),
    "a norm left out": (
        "layer_output_norm of block 0", _set("layer_output_norm", 0, np.ones_like)),
    "a bias left out": ("ffn_up_bias of block 1", _set("ffn_up_bias", 1, np.zeros_like)),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("file_format", RECIPES)
def test_a_fault_is_refused_and_its_place_named(
    file_format: str, name: str, tmp_path: Path
) -> None:
    says, change = FAULTS[name]
    spec = make(tmp_path / "right", "distilbert", file_format)
    shutil.copytree(tmp_path / "right", tmp_path / "wrong")
    weights = {(t.role, t.layer): w for t, w in encoder_weights(spec, SEED)}
    change(weights)
    tensors = {
        name_of(spec, "distilbert", t): (
            list(weights[t.role, t.layer].shape),
            weights[t.role, t.layer].astype("<f4").tobytes(),
        )
        for t in spec.tensors()
    }
    write_safetensors(tmp_path / "wrong", tensors, "f32", 1)
    artifact = convert(tmp_path / "wrong", file_format, RECIPES[file_format][-1], tmp_path)
    with pytest.raises(ConversionError, match=says):
        check(artifact, spec, tmp_path / "right")


def _bent(spec: EncoderSpec, output: str, change: dict[str, Any]) -> Any:
    """The blueprint with operations of this output or kind changed."""
    for operation in encoder_blueprint(spec):
        concerned = output in (operation.output, type(operation).__name__)
        yield replace(operation, **change) if concerned else operation


GRAPH_FAULTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a norm's epsilon": ("the attention of block 1", "x1.5", {"eps": 0.3}),
    "the pooling": ("the pooling", "Pool", {"kind": "cls"}),
    "queries and keys swapped": (
        "the attention of block 0", "Attend", {"inputs": ("k", "q", "v")}),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPH_FAULTS)
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_a_graph_lowered_wrongly_is_refused(
    file_format: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says, output, change = GRAPH_FAULTS[name]
    spec = make_encoder(tmp_path / "m", "distilbert", seed=SEED)
    module = {"onnx": "encoder_graph", "tflite": "encoder_tflite_graph"}[file_format]
    with monkeypatch.context() as patch:
        patch.setattr(f"edgegauge_converters.{module}.encoder_blueprint",
                      lambda spec: _bent(spec, output, change))  # fmt: skip
        artifact = convert(tmp_path / "m", file_format, "f32", tmp_path)
    with pytest.raises(ConversionError, match=f"first to depart is {says} "):
        check(artifact, spec, tmp_path / "m")


def test_llama_cpp_is_looked_into_by_the_names_of_its_values(tmp_path: Path) -> None:
    """The reference is told another epsilon, which is in the header, and other heads."""
    spec = make(tmp_path / "m", "minilm", "gguf")
    artifact = convert(tmp_path / "m", "gguf", "q8_0", tmp_path)
    for change, place in (({"norm_eps": 0.5}, "the embedding"), ({"heads": 2}, "the attention of")):
        with pytest.raises(ConversionError, match=f"first to depart is {place}"):
            check(artifact, spec.model_copy(update=change), tmp_path / "m")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    spec = make(tmp_path / "m", "minilm", "gguf")
    artifact = convert(tmp_path / "m", "gguf", "q8_0", tmp_path)
    path = tmp_path / "m" / "tokenizer.json"
    document = json.loads(path.read_text())
    vocab = document["model"]["vocab"]
    first = 5  # after the special ones, every token has the id of the one before it
    turned = {
        t: i if i < first else first + (i + 1 - first) % (512 - first) for t, i in vocab.items()
    }
    document["model"]["vocab"] = turned
    path.write_text(json.dumps(document))
    with pytest.raises(ConversionError, match="has another tokenizer"):
        check(artifact, spec, tmp_path / "m")


def test_the_command_verifies_and_the_manifest_keeps_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_encoder(tmp_path / "m", "minilm", seed=SEED)
    call = ["convert", str(tmp_path / "m"), "--format", "onnx", "--recipe", "int8", "-o"]
    with pytest.raises(SystemExit) as ended:
        main([*call, str(tmp_path / "good")])
    assert not ended.value.code and "cosine 0.99" in capsys.readouterr().out
    manifest = open_artifact(tmp_path / "good").manifest
    assert manifest is not None and manifest.encoder_verification is not None
    assert manifest.encoder_verification.original is not None
    monkeypatch.setattr(
        "edgegauge_converters.encoder_graph.encoder_blueprint",
        lambda spec: _bent(spec, "Attend", {"heads": 2}),
    )
    with pytest.raises(SystemExit) as ended:
        main([*call, str(tmp_path / "bad")])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and list((tmp_path / "bad").iterdir()) == []
    assert "the attention of block 0" in said and "--no-verify keeps it" in said
    with pytest.raises(SystemExit) as ended:
        main([*call, str(tmp_path / "bad"), "--no-verify"])
    manifest = open_artifact(tmp_path / "bad").manifest
    assert manifest is not None and manifest.encoder_verification is None


def test_what_cannot_be_tried_is_kept_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_encoder(tmp_path / "m", "minilm", seed=SEED)
    artifact = convert(tmp_path / "m", "onnx", "int8", tmp_path)
    monkeypatch.setattr("edgegauge.verify.ENCODER_GROUP", "edgegauge.nothing")
    made = verified(artifact, spec, tmp_path / "m")
    assert made.manifest is not None and made.manifest.encoder_verification is None
    assert made.manifest.warnings[-1].startswith("not verified: nothing here verifies encoders")
