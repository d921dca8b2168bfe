"""TFLite folders: the predicted bytes, both places for weights, safe writing, refused recipes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conversions import conversion, quiet
from hypothesis import given
from hypothesis import strategies as st
from make_models import FAMILIES, make_folder, make_spec
from test_agreement_tflite import RECIPES, artifact_of, computed, convert

from edgegauge.artifact import manifest_path, open_artifact, sha256_of
from edgegauge.cli import main
from edgegauge.convert import converter_for
from edgegauge.errors import ConversionError, InputError
from edgegauge.measure.runtimes.litert import LiteRtRuntime
from edgegauge.recipe import tensor_bytes
from edgegauge_converters import tflite as converter
from edgegauge_converters import tflite_file
from edgegauge_converters.tflite_quantize import bits_of, block_of, decode, encode, row_scales
from edgegauge_converters.tflite_weights import TfliteWeights

KNOWN = {
    "ADD", "BATCH_MATMUL", "CAST", "CONCATENATION", "DYNAMIC_UPDATE_SLICE", "EMBEDDING_LOOKUP",
    "FULLY_CONNECTED", "GATHER", "GELU", "IF", "LESS", "LOGISTIC", "MEAN", "MINIMUM", "MUL",
    "REDUCE_MAX", "RESHAPE", "RSQRT", "SLICE", "SOFTMAX", "SUB", "TRANSPOSE",
}  # fmt: skip
"""Operators of tflite-runtime 2.14, the last one of its name, which refuses later ones."""


def model_of(path: Path) -> Any:
    return schema.Model.GetRootAs(path.read_bytes(), 0)


@pytest.mark.parametrize("widths", [{}, {"hidden": 72, "intermediate": 100, "head_dim": 18}])
@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_bytes_are_the_written_bytes(
    tmp_path: Path, family: str, widths: dict[str, Any]
) -> None:
    spec = make_folder(tmp_path / "model", family, **widths)
    vectors = sum(4 * t.elements for t in spec.tensors() if t.is_vector)
    for recipe in RECIPES:
        path = convert(spec, tmp_path / "model", tmp_path / "out", recipe).path
        assert vectors + _matrix_bytes(path) == tensor_bytes(spec, recipe, "tflite")


def _matrix_bytes(path: Path) -> int:
    """Bytes of all weight matrices and their scales."""
    model = model_of(path)
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    graph = next(g for g in graphs if g.Name().startswith(b"decode"))
    sizes = {}
    for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
        name = tensor.Name().decode()
        own = name.startswith(("layers.", "token_embd", "output")) and "_norm" not in name
        if own and "_bias" not in name:
            sizes[name] = model.Buffers(tensor.Buffer()).DataLength()
    return sum(sizes.values())


@pytest.mark.parametrize("recipe", RECIPES)
def test_synthetic_models_run(tmp_path: Path, recipe: str) -> None:
    artifact = convert(make_spec("qwen2"), None, tmp_path, recipe)
    with closing(LiteRtRuntime().open(artifact.path, threads=1, context=16)) as session:
        logits = np.array(list(session.logits([3, 1, 4, 1, 5])))
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 20
    assert len(set(logits.argmax(1))) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_are_those_that_old_runtimes_know(family: str) -> None:
    model = model_of(artifact_of(family, "int8"))
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    used = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert {names[code.BuiltinCode()] for code in used} <= KNOWN
    for code in used:
        assert code.DeprecatedBuiltinCode() == min(code.BuiltinCode(), 127)


def test_signatures_share_their_weights() -> None:
    path = artifact_of("llama", "int8")
    model = model_of(path)
    keys = [model.SignatureDefs(i).SignatureKey() for i in range(model.SignatureDefsLength())]
    assert keys == [b"prefill_32", b"decode"]
    graphs = [model.Subgraphs(i).Name() for i in range(model.SubgraphsLength())]
    decodes = [name for name in graphs if name.startswith(b"decode")]
    assert decodes == [b"decode_128", b"decode_320", b"decode_from_128"]
    assert path.stat().st_size < 1.5 * tensor_bytes(make_spec("llama"), "int8", "tflite") + 4e5


@pytest.mark.parametrize("recipe", RECIPES)
def test_weights_outside_the_flatbuffer_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """What files above 2 GiB look like, at a lower limit."""
    spec = make_folder(tmp_path / "model", "llama", seed=7, dtype="f32")
    monkeypatch.setattr(tflite_file, "FLATBUFFER_LIMIT", 10_000)
    path = convert(spec, tmp_path / "model", tmp_path, recipe).path
    model = model_of(path)
    assert any(model.Buffers(i).Size() for i in range(model.BuffersLength()))
    inside = artifact_of("llama", recipe)
    assert np.array_equal(computed(path), computed(inside))
    for tensor in spec.tensors():
        assert np.array_equal(
            TfliteWeights(path, spec)(tensor), TfliteWeights(inside, spec)(tensor)
        )


def test_manifest_says_what_was_made(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "qwen3")
    artifact = convert(spec, tmp_path / "model", tmp_path / "out", "INT4")
    assert artifact.path == tmp_path / "out/tiny-qwen3-int4-tflite/tiny-qwen3-int4.tflite"
    assert open_artifact(artifact.path) == open_artifact(tmp_path / "out") == artifact
    manifest = artifact.manifest
    assert manifest is not None
    assert (manifest.recipe, manifest.spec, manifest.file_format) == ("int4", spec, "tflite")
    beside = {p.name for p in artifact.path.parent.iterdir()} - {manifest_path(artifact.path).name}
    assert {file.name for file in manifest.files} == beside
    for file in manifest.files:
        path = artifact.path.with_name(file.name)
        assert (path.stat().st_size, sha256_of(path)) == (file.bytes, file.sha256)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_context_is_the_length_of_the_cache(tmp_path: Path, family: str) -> None:
    """And what it costs: the cache in memory, and in the file a row of each rotary table."""
    spec = make_folder(tmp_path / "model", family)
    files = {}
    for context in (100, 200):
        output = tmp_path / str(context)
        job = conversion(spec, tmp_path / "model", output, "int4", context=context)
        artifact = converter.TfliteConverter((32,)).convert(job, quiet)
        manifest = artifact.manifest
        assert manifest is not None and manifest.context == context
        with closing(LiteRtRuntime().open(artifact.path, threads=1, context=context)) as session:
            assert session.context == context
            assert session.facts()["buffers_bytes"] == {"KV/CPU": manifest.cache_bytes}
            session.prefill([1] * context)
        values = 2 * spec.kv_heads * spec.head_dim * context * spec.executed_layers
        assert manifest.cache_bytes == 4 * values
        files[context] = artifact.path.stat().st_size
    tables = {"llama": 1, "gemma3": 2}[family]
    rows = 2 * 4 * spec.head_dim * tables  # a cosine and a sine
    window = 4 if family == "gemma3" else 0
    assert files[200] - files[100] == pytest.approx(100 * (rows + window), abs=64)


def test_context_where_nobody_says(tmp_path: Path) -> None:
    for room, context in ((4096, 1280), (300, 300)):
        spec = make_spec("llama", context=room)
        job = conversion(spec, None, tmp_path / str(room), "int4")
        manifest = converter.TfliteConverter().convert(job, quiet).manifest
        assert manifest is not None and manifest.context == context


def test_more_context_than_the_model_has(tmp_path: Path) -> None:
    job = conversion(make_spec("llama"), tmp_path / "model", tmp_path, "int4", context=10**6)
    with pytest.raises(InputError, match="1000000 were asked for"):
        converter.TfliteConverter().convert(job, quiet)


@pytest.mark.parametrize(
    "more", [["--format", "gguf"], ["--format", "tflite", "--engine", "genai"]]
)
def test_context_of_other_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tmp_path), "--context", "512", *more])
    assert caught.value.code == 1
    assert "--context is for language models" in capsys.readouterr().err


def test_a_short_context_by_the_command_is_verified(tmp_path: Path) -> None:
    make_folder(tmp_path / "model", "llama")
    command = ["convert", str(tmp_path / "model"), "--format", "tflite", "--recipe", "int8"]
    with pytest.raises(SystemExit) as caught:
        main([*command, "--context", "64", "-o", str(tmp_path)])
    assert caught.value.code == 0
    manifest = open_artifact(tmp_path / "model-int8-tflite").manifest
    assert manifest is not None and manifest.context == 64
    assert manifest.verification is not None and manifest.verification.positions == 64


def test_the_same_file_whatever_the_threads(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "gemma3")
    hashes = set()
    for threads in (1, 3):
        made = converter.TfliteConverter((32,), 128)
        output = tmp_path / str(threads)
        job = conversion(spec, tmp_path / "model", output, "int4", threads=threads)
        hashes.add(sha256_of(made.convert(job, quiet).path))
    assert len(hashes) == 1


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama")
    seen: list[float] = []
    job = conversion(spec, tmp_path / "model", tmp_path, "int4")
    converter.TfliteConverter().convert(job, lambda done, what: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_damaged_weights_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "model", "llama")

    def rows(self: Any, tensor: Any, start: int, stop: int) -> Any:
        return np.full((stop - start, tensor.cols), np.nan, np.float32)

    monkeypatch.setattr(converter.PlainRows, "rows", rows)
    with pytest.raises(ConversionError, match="not a number"):
        convert(spec, tmp_path / "model", tmp_path / "out", "int8")
    assert not list((tmp_path / "out").rglob("*.tflite*"))


@pytest.mark.parametrize("recipe", ["f16", "q4_k_m", ""])
def test_refused_recipes(tmp_path: Path, recipe: str) -> None:
    with pytest.raises(InputError, match="tflite has no recipe"):
        convert(make_spec("llama"), None, tmp_path, recipe)


def test_it_is_found_by_its_format() -> None:
    assert isinstance(converter_for("tflite"), converter.TfliteConverter)


@given(
    st.sampled_from(["INT8", "INT4", "INT4/32"]),
    st.integers(1, 5),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**32 - 1),
)
def test_integers_stand_for_their_values(type: str, count: int, size: float, seed: int) -> None:
    rows = np.random.RandomState(seed).standard_normal((count, 96)).astype(np.float32)
    rows *= np.float32(size)
    scales = row_scales(rows, type)
    packed = encode(rows, scales, type)
    assert packed.shape == (count, 96 * bits_of(type) // 8)
    step = np.repeat(scales.astype(np.float32).reshape(count, -1), block_of(type) or 96, axis=1)
    error = np.abs(decode(packed, scales, type) - rows)
    cut = 0.17 * np.abs(rows).max() if type != "INT8" else 0  # the largest may be cut off
    assert (error <= np.maximum(step / 2 * 1.001, cut)).all()
