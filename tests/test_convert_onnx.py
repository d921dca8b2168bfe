"""ONNX folders: the predicted bytes, a file that the format's own library takes, safe writing."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conversions import convert_large
from make_models import FAMILIES, make_folder, make_spec
from onnx import numpy_helper
from test_agreement_onnx import ODD, RECIPES, WIDE, artifact_of, convert

from edgegauge.artifact import manifest_path, open_artifact, sha256_of
from edgegauge.errors import ConversionError, InputError
from edgegauge.measure.runtimes.onnxruntime import ALL_LOGITS, OnnxRuntime
from edgegauge.recipe import effective_bits, tensor_bytes
from edgegauge_converters import onnx as converter
from edgegauge_converters.onnx_file import initializers


@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_bytes_are_the_written_bytes(tmp_path: Path, family: str) -> None:
    spec = make_folder(tmp_path / "model", family, **(WIDE if family == "qwen2" else ODD))
    for recipe in RECIPES:
        for folder in (tmp_path / "model", None):
            artifact = convert(spec, folder, tmp_path / "out", recipe)
            found = onnx.load(artifact.path, load_external_data=False).graph.initializer
            places = {}
            for each in found:
                place = {e.key: e.value for e in each.external_data}
                if place:
                    places[int(place["offset"])] = int(place["length"])
            assert sum(places.values()) == tensor_bytes(spec, recipe, "onnx")
            ends = [offset + length for offset, length in sorted(places.items())]
            assert all(a <= b for a, b in zip(ends, sorted(places)[1:], strict=False))
            assert all(offset % 64 == 0 for offset in places)
            size = artifact.path.with_name(artifact.path.name + ".data").stat().st_size
            assert ends[-1] <= size < ends[-1] + 64


@pytest.mark.parametrize("recipe", ["f32", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_formats_own_library_takes_it(family: str, recipe: str) -> None:
    path = artifact_of(family, recipe)
    for graph in (path, path.with_name(ALL_LOGITS)):
        model = onnx.load(graph)
        ours = initializers(graph)
        assert list(ours) == [i.name for i in model.graph.initializer]
        for each in model.graph.initializer:
            assert ours[each.name].shape == tuple(each.dims)
            if ours[each.name].raw is not None:
                value = numpy_helper.to_array(each)
                assert ours[each.name].raw == value.tobytes()
        for node in model.graph.node:
            if node.op_type == "SimplifiedLayerNormalization":  # ONNX Runtime's own, without domain
                node.domain = "com.microsoft"
        onnx.checker.check_model(model)


def test_manifest_says_what_was_made(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "qwen3")
    artifact = convert(spec, tmp_path / "model", tmp_path / "out", "INT4")
    assert artifact.path == tmp_path / "out/tiny-qwen3-int4-onnx/tiny-qwen3-int4.onnx"
    assert open_artifact(artifact.path) == open_artifact(tmp_path / "out") == artifact
    manifest = artifact.manifest
    assert manifest is not None
    assert (manifest.recipe, manifest.spec, manifest.file_format) == ("int4", spec, "onnx")
    assert manifest.tensor_bytes == tensor_bytes(spec, "int4", "onnx")
    assert manifest.effective_bits == effective_bits(spec, "int4", "onnx")
    names = [file.name for file in manifest.files]
    assert names[0] == artifact.path.name
    beside = {p.name for p in artifact.path.parent.iterdir()} - {manifest_path(artifact.path).name}
    assert set(names) == beside
    assert {"genai_config.json", "tokenizer.json", "tokenizer_config.json"} <= beside
    for file in manifest.files:
        path = artifact.path.with_name(file.name)
        assert (file.bytes, file.sha256) == (path.stat().st_size, sha256_of(path))
    assert artifact.bytes == sum(p.stat().st_size for p in map(artifact.path.with_name, names))
    weights = next(f for f in manifest.files if f.name.endswith(".data"))
    said = {p.key: p.value for p in onnx.load(artifact.path).metadata_props}
    assert said["edgegauge.weights_sha256"] == weights.sha256


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama")
    path = convert(spec, tmp_path / "model", tmp_path, "int4").path
    found = {i.name: i.offset for i in initializers(path).values() if i.raw is None}
    assert found["token_embd.weight"] == found["token_embd.weight.rows"]
    assert not any(name.startswith("output.weight") for name in found)


def test_shared_blocks_are_stored_once(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "mobilellm")
    path = convert(spec, tmp_path / "model", tmp_path, "int8").path
    assert sum("ffn_down.weight" in n for n in initializers(path)) == 2 * spec.layers
    products = [n for n in onnx.load(path).graph.node if n.op_type == "MatMulNBits"]
    assert len(products) == 4 * spec.executed_layers + 1


def test_result_does_not_depend_on_threads_slices_or_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegauge_converters.weights.SLICE_ELEMENTS", 1000)
    digests = set()
    for shards, threads in ((1, 1), (1, 5), (3, 2)):
        folder = tmp_path / f"{shards}-{threads}"
        spec = make_folder(folder, "llama3", shards=shards)
        artifact = convert(spec, folder, folder, "int4", threads)
        digests.add(sha256_of(artifact.path))  # which names the hash of the weights
    assert len(digests) == 1


def test_synthetic_models_are_reproducible_and_run(tmp_path: Path) -> None:
    for recipe in RECIPES:
        spec = make_spec("gemma3")
        one, other = (convert(spec, None, tmp_path / n, recipe, t).path
                      for n, t in (("a", 1), ("b", 3)))  # fmt: skip
        assert one.read_bytes() == other.read_bytes()
        with closing(OnnxRuntime().open(one, threads=1, context=16)) as session:
            logits = np.array(list(session.logits([3, 1, 4, 1, 5])))
        assert np.isfinite(logits).all() and 0.1 < logits.std() < 10
        assert len(set(logits.argmax(1))) > 1


def test_half_precision_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no half-precision matrix product on CPUs"):
        convert(make_spec("llama"), None, tmp_path, "f16")
    assert not list(tmp_path.iterdir())


def test_heads_that_the_attention_cannot_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"head_dim: .* multiple of 16, got 24"):
        convert(make_spec("llama", head_dim=24), None, tmp_path, "int4")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", dtype="f32")
    file = tmp_path / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    file.write_bytes(content)
    with pytest.raises(ConversionError, match="not a number"):
        convert(spec, tmp_path / "model", tmp_path / "out", "int4")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "tiny-llama-int4-onnx" / ALL_LOGITS).mkdir(parents=True)
    with pytest.raises(ConversionError, match=r"cannot write .*tiny-llama-int4-onnx"):
        convert(make_spec("llama"), None, tmp_path, "int4")
    assert not list(tmp_path.rglob("*.manifest.json"))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", tokenizer_vocab=600)
    with pytest.raises(InputError, match="tokens up to 599, the embedding 512 rows"):
        convert(spec, tmp_path / "model", tmp_path / "out", "int4")


def test_manifest_of_the_old_artifact_never_describes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = convert(make_spec("llama"), None, tmp_path, "int8")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(converter, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(make_spec("llama"), None, tmp_path, "int8")
    assert artifact.path.exists() and not manifest_path(artifact.path).exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\xff\xff\xff\xff", b"GGUF" * 9, b"\x3a\x02\x2a\x05"]
)
def test_what_is_no_onnx_file_has_no_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    try:
        assert initializers(path) == {}
    except InputError as error:
        assert "not an ONNX file" in str(error)


def test_genai_config_has_what_the_session_needs(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "gemma3")
    path = convert(spec, tmp_path / "model", tmp_path, "int4").path
    config = json.loads(path.with_name("genai_config.json").read_text())["model"]
    assert config["type"] == "gemma3_text"
    assert config["decoder"]["filename"] == path.name
    assert config["decoder"]["head_size"] == spec.head_dim
    assert config["vocab_size"] == spec.vocab


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_model_larger_than_memory(tmp_path: Path) -> None:
    spec, artifact = convert_large(tmp_path, "int4", "onnx")
    assert artifact.manifest is not None
    assert artifact.manifest.tensor_bytes == tensor_bytes(spec, "int4", "onnx")
