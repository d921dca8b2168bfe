"""Encoders as ONNX graphs against the NumPy reference at the very weights that the file stores."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from make_encoders import KINDS, make_encoder

from edgegauge.artifact import open_artifact
from edgegauge.convert_encoder import encoder_job
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import ConversionError, InputError
from edgegauge.model import Tensor
from edgegauge.recipe import resolve
from edgegauge_converters.encoder_onnx import OnnxEncoderConverter
from edgegauge_converters.encoder_recipe import stored_tensors
from edgegauge_converters.encoder_reference import EncoderReference
from edgegauge_converters.encoder_weights import EncoderCheckpoint
from edgegauge_converters.onnx_rows import OnnxWeights

RECIPES = ("f32", "int8", "int4", "int4_e8")
IDS = np.random.RandomState(1).randint(0, 512, (4, 30))
LENGTHS = (30, 17, 2, 1)
TYPES = np.where(np.arange(30) < 9, 0, 1)[None, :].repeat(4, 0)


@functools.cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgegauge-encoders-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def model(kind: str) -> tuple[Path, EncoderSpec]:
    folder = _temporary() / kind
    return folder, make_encoder(folder, kind, seed=7)


@functools.cache
def artifact_of(kind: str, recipe: str) -> Path:
    job = encoder_job(str(model(kind)[0]), recipe, _temporary() / f"{kind}-out")
    return OnnxEncoderConverter().convert(job, lambda done, what: None).path


def run(path: Path, lengths: tuple[int, ...] = LENGTHS) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the tokens and of the texts of one padded batch."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    count, longest = len(lengths), max(lengths)
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
    feed = {"input_ids": IDS[:count, :longest], "attention_mask": mask,
            "token_type_ids": TYPES[:count, :longest].astype(np.int64)}  # fmt: skip
    names = [each.name for each in session.get_inputs()]
    hidden, embeddings = session.run(
        ["last_hidden_state", "sentence_embedding"], {name: feed[name] for name in names}
    )
    return hidden, embeddings


def expected(spec: EncoderSpec, weights: Callable[[Tensor], np.ndarray]) -> Any:
    """What the reference says of each text alone."""
    reference = EncoderReference(spec, weights)
    for row, length in enumerate(LENGTHS):
        types = TYPES[row, :length].tolist() if spec.token_types else None
        yield reference.encode(IDS[row, :length].tolist(), types)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def with_float_activations(path: Path) -> Path:
    """The same artifact but for one number: products do not round their inputs to 8 bits."""
    copy = path.with_name(f"float-{path.name}")
    changed = onnx.load(path, load_external_data=False)
    for node in changed.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    copy.write_bytes(changed.SerializeToString())
    return copy


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", KINDS)
def test_computes_what_the_reference_does(kind: str, recipe: str) -> None:
    """In a padded batch, each text as alone; with exact activations but for float rounding."""
    path, spec = artifact_of(kind, recipe), model(kind)[1]
    weights = OnnxWeights(path, stored_tensors(spec, recipe, "onnx"))
    hidden, embeddings = run(path)
    exact, exact_embeddings = run(with_float_activations(path))
    for row, (length, wanted) in enumerate(zip(LENGTHS, expected(spec, weights), strict=True)):
        assert np.abs(exact[row, :length] - wanted.hidden).max() < 1e-4
        assert np.abs(exact_embeddings[row] - wanted.embedding).max() < 1e-4
        assert cosine(embeddings[row], wanted.embedding) > (0.9999 if recipe == "f32" else 0.999)
        assert cosine(hidden[row, 0], wanted.hidden[0]) > 0.999


@pytest.mark.parametrize("recipe", ["f32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_stored_weights_are_those_of_the_checkpoint(kind: str, recipe: str) -> None:
    folder, spec = model(kind)
    weights = OnnxWeights(artifact_of(kind, recipe), stored_tensors(spec, recipe, "onnx"))
    with EncoderCheckpoint(folder, spec) as checkpoint:
        for tensor in spec.tensors():
            original = checkpoint(tensor)
            step = np.abs(original).max() / 127 if recipe == "int8" else 0
            assert np.abs(weights(tensor) - original).max() <= step * 0.6, tensor


@pytest.mark.parametrize("recipe", ["f32", "int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str, recipe: str) -> None:
    path = artifact_of(kind, recipe)
    alone = run(path, LENGTHS[:1])[1]
    assert np.abs(run(path)[1][0] - alone[0]).max() < 1e-5
    longer = run(path, (5, 30))[1][0]
    assert np.abs(longer - run(path, (5,))[1][0]).max() < 1e-5


def test_an_empty_mask_gives_zeros() -> None:
    session = onnxruntime.InferenceSession(str(artifact_of("minilm", "f32")))
    feed = {
        n: np.zeros((1, 3), np.int64) for n in ("input_ids", "attention_mask", "token_type_ids")
    }
    assert np.array_equal(session.run(["sentence_embedding"], feed)[0], np.zeros((1, 64)))


def test_vectors_have_length_1_where_the_model_says() -> None:
    for kind, recipe in (("minilm", "int4"), ("minilm", "f32")):
        lengths = np.linalg.norm(run(artifact_of(kind, recipe))[1], axis=1)
        assert lengths == pytest.approx(np.ones(4), abs=1e-5)
    assert np.linalg.norm(run(artifact_of("distilbert", "f32"))[1], axis=1).min() > 1.5


def test_the_format_finds_nothing_wrong() -> None:
    for kind in KINDS:
        onnx.checker.check_model(str(artifact_of(kind, "f32")))


def test_manifest_and_files() -> None:
    path, (_, spec) = artifact_of("minilm", "int8"), model("minilm")
    manifest = open_artifact(path).manifest
    assert manifest is not None and manifest.encoder is not None and manifest.spec is None
    assert manifest.encoder.layers == spec.layers
    assert manifest.parameters == spec.parameters
    assert {f.name for f in manifest.files} == {path.name, f"{path.name}.data", "tokenizer.json"}
    data = path.with_name(f"{path.name}.data")
    held = sum(s.bytes for s in stored_tensors(spec, "int8", "onnx"))
    assert held == manifest.tensor_bytes
    assert held <= data.stat().st_size < held + 64 * 2 * len(list(spec.tensors()))


def test_rows_that_are_no_whole_number_of_blocks(tmp_path: Path) -> None:
    spec = make_encoder(tmp_path / "m", "minilm", hidden=72, intermediate=100)
    job = encoder_job(str(tmp_path / "m"), "int4", tmp_path)
    path = OnnxEncoderConverter().convert(job, lambda done, what: None).path
    weights = OnnxWeights(path, stored_tensors(spec, "int4", "onnx"))
    embeddings = run(with_float_activations(path))[1]
    for row, wanted in enumerate(expected(spec, weights)):
        assert np.abs(embeddings[row] - wanted.embedding).max() < 1e-4


def test_synthetic_weights_need_only_a_configuration(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    job = encoder_job(str(tmp_path / "m" / "config.json"), "int8", tmp_path, synthetic=True)
    path = OnnxEncoderConverter().convert(job, lambda done, what: None).path
    assert np.isfinite(run(path)[1]).all()


def test_what_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm", tokenizer_vocab=600)
    job = encoder_job(str(tmp_path / "m"), "f32", tmp_path / "out")
    with pytest.raises(InputError, match="the embedding has 512 rows"):
        OnnxEncoderConverter().convert(job, lambda done, what: None)
    assert not list((tmp_path).glob("out/**/*.onnx*"))
    with pytest.raises(InputError, match="has no recipe 'int3'"):
        resolve("int3", "onnx")


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "distilbert")
    path = tmp_path / "m" / "model.safetensors"
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    first = header["transformer.layer.1.ffn.lin1.weight"]["data_offsets"][0]
    content[8 + size + first : 8 + size + first + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    job = encoder_job(str(tmp_path / "m"), "f32", tmp_path)
    with pytest.raises(ConversionError, match=r"blk\.1\.ffn_up\.weight holds values"):
        OnnxEncoderConverter().convert(job, lambda done, what: None)


# --- faults on purpose: each must show


@pytest.mark.parametrize("recipe", ["f32", "int8"])
@pytest.mark.parametrize("fault", ["q and k", "no bias", "tanh", "norm", "mask"])
def test_faults_show(fault: str, recipe: str) -> None:
    path, spec = artifact_of("distilbert", recipe), model("distilbert")[1]
    changed = onnx.load(path, load_external_data=False)
    for number, node in enumerate(changed.graph.node):
        kind = node.op_type
        if fault == "q and k" and kind == "MultiHeadAttention":
            node.input[0], node.input[1] = node.input[1], node.input[0]
        elif fault == "no bias" and kind == "SkipLayerNormalization" and len(node.input) == 5:
            node.input.pop()
        elif fault == "tanh" and kind == "BiasGelu":
            node.op_type = "FastGelu"
        elif fault == "norm" and kind == "SkipLayerNormalization" and number > 8:
            node.input[2] = "token_embd_norm.weight"
        elif fault == "mask" and kind == "MultiHeadAttention":
            node.input.pop()
    broken = path.with_name(f"broken-{path.name}")
    broken.write_bytes(changed.SerializeToString())
    weights = OnnxWeights(path, stored_tensors(spec, recipe, "onnx"))
    embeddings = run(with_float_activations(broken))[1]
    wanted = list(expected(spec, weights))
    worst = max(np.abs(e - w.embedding).max() for e, w in zip(embeddings, wanted, strict=True))
    assert worst > 1e-4
