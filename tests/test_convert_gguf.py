"""GGUF files: exactly the predicted bytes, the right metadata, the same whatever the threads."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from conversions import convert, convert_large
from make_models import FAMILIES, make_folder, make_spec

from edgegauge.artifact import manifest_path, open_artifact, sha256_of
from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.measure.runtimes import runtime_for
from edgegauge.model import RopeScaling
from edgegauge.recipe import GGUF_RECIPES, effective_bits, stored_tensors, tensor_bytes
from edgegauge_converters import gguf as converter
from edgegauge_converters.blueprint import rotary_frequencies
from edgegauge_converters.gguf_metadata import check_spec, query_gain, rope_factors
from edgegauge_converters.gguf_rows import interleave

WIDTHS: dict[str, dict[str, Any]] = {
    "even": {"hidden": 256, "intermediate": 512, "head_dim": 64},
    "narrow": {"hidden": 96, "intermediate": 160, "head_dim": 24},
    "odd": {"hidden": 72, "intermediate": 100, "head_dim": 18},
}


def contents(path: Path, key: str) -> Any:
    field = gguf.GGUFReader(path).get_field(key)
    return None if field is None else field.contents()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_bytes_are_the_written_bytes(tmp_path: Path, family: str, width: str) -> None:
    spec = make_folder(tmp_path / "model", family, **WIDTHS[width])
    for recipe in GGUF_RECIPES:
        for folder in (tmp_path / "model", None):
            artifact = convert(spec, folder, tmp_path / "out", recipe)
            found = {t.name: t for t in gguf.GGUFReader(artifact.path).tensors}
            stored = stored_tensors(spec, recipe)
            assert list(found) == [tensor_name(s.tensor) for s in stored]
            for each in stored:
                tensor = found[tensor_name(each.tensor)]
                assert (tensor.tensor_type.name, int(tensor.n_bytes)) == (each.type, each.bytes)
                assert int(tensor.n_elements) == each.tensor.elements
                assert tensor.data_offset % 32 == 0
            assert sum(int(t.n_bytes) for t in found.values()) == tensor_bytes(spec, recipe)


@pytest.mark.parametrize("recipe", ["q8_0", "q4_0", "q4_k_m"])
@pytest.mark.parametrize("family", FAMILIES)
def test_synthetic_models_run(tmp_path: Path, family: str, recipe: str) -> None:
    artifact = convert(make_spec(family), None, tmp_path, recipe)
    session = runtime_for("gguf").open(artifact.path, threads=1, context=16)
    try:
        logits = np.array(list(session.logits([3, 1, 4, 1, 5])))
    finally:
        session.close()
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10
    assert len(set(logits.argmax(1))) > 1


def test_manifest_says_what_was_made(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "qwen3")
    artifact = convert(spec, tmp_path / "model", tmp_path, "int4")
    assert artifact.path == tmp_path / "tiny-qwen3-q4_k_m.gguf"
    assert open_artifact(artifact.path) == artifact
    manifest = artifact.manifest
    assert manifest is not None
    assert (manifest.recipe, manifest.spec, manifest.model) == ("q4_k_m", spec, spec.id)
    assert manifest.files[0].sha256 == sha256_of(artifact.path)
    assert manifest.files[0].bytes == artifact.path.stat().st_size
    assert manifest.tensor_bytes == tensor_bytes(spec, "q4_k_m")
    assert manifest.effective_bits == effective_bits(spec, "q4_k_m")
    assert any("Q4_K became Q5_0" in w for w in manifest.warnings)
    assert {"edgegauge", "gguf", "llama-cpp-python"} <= manifest.tools.keys()
    mask = os.umask(0)
    os.umask(mask)
    assert artifact.path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_shared_blocks_are_written_twice_and_said(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "mobilellm")
    artifact = convert(spec, tmp_path / "model", tmp_path, "q8_0")
    tensors = {t.name: t.data.tobytes() for t in gguf.GGUFReader(artifact.path).tensors}
    assert contents(artifact.path, "llama.block_count") == 4
    for name in ("attn_q.weight", "ffn_down.weight", "ffn_norm.weight"):
        assert tensors[f"blk.0.{name}"] == tensors[f"blk.1.{name}"]
        assert tensors[f"blk.1.{name}"] != tensors[f"blk.2.{name}"]
    assert artifact.manifest is not None
    assert any("each is written 2 times" in w for w in artifact.manifest.warnings)


def test_result_does_not_depend_on_threads_shards_or_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegauge_converters.weights.SLICE_ELEMENTS", 1000)
    digests = set()
    for shards, threads in ((1, 1), (1, 5), (3, 2)):
        folder = tmp_path / f"{shards}-{threads}"
        spec = make_folder(folder, "llama3", shards=shards)
        manifest = convert(spec, folder, folder, "q4_k_m", threads).manifest
        assert manifest is not None
        digests.add(manifest.files[0].sha256)
    assert len(digests) == 1


def test_small_slices_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_folder(tmp_path / "model", "llama", attention_bias=True)
    whole = convert(spec, tmp_path / "model", tmp_path / "a", "q8_0").path.read_bytes()
    monkeypatch.setattr("edgegauge_converters.weights.SLICE_ELEMENTS", 1)
    assert convert(spec, tmp_path / "model", tmp_path / "b", "q8_0").path.read_bytes() == whole


def test_synthetic_models_are_reproducible(tmp_path: Path) -> None:
    one, other = (convert(make_spec("gemma3"), None, tmp_path / n, "q4_0", t).path.read_bytes()
                  for n, t in (("a", 1), ("b", 3)))  # fmt: skip
    assert one == other


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_wider_recipes_keep_every_value(tmp_path: Path, dtype: str) -> None:
    spec = make_folder(tmp_path / "model", "qwen2", dtype=dtype)
    wide = convert(spec, tmp_path / "model", tmp_path, "f32").path
    half = convert(spec, tmp_path / "model", tmp_path, "f16").path
    wide_values = {t.name: t.data for t in gguf.GGUFReader(wide).tensors}
    for tensor in gguf.GGUFReader(half).tensors:
        assert np.array_equal(tensor.data, wide_values[tensor.name].astype(tensor.data.dtype))


# --- metadata


def test_metadata_of_gemma(tmp_path: Path) -> None:
    scaling = RopeScaling(kind="linear", factor=8)
    spec = make_spec("gemma3", rope_scaling=scaling, global_every=3)
    path = convert(spec, None, tmp_path, "q8_0").path
    expected = {
        "general.architecture": "gemma3", "general.name": spec.id, "general.file_type": 7,
        "general.quantization_version": 2, "gemma3.block_count": 6, "gemma3.context_length": 1024,
        "gemma3.embedding_length": 64, "gemma3.feed_forward_length": 160,
        "gemma3.attention.head_count": 4, "gemma3.attention.head_count_kv": 1,
        "gemma3.attention.key_length": 32, "gemma3.attention.value_length": 32,
        "gemma3.rope.dimension_count": 32, "gemma3.rope.freq_base": 1e6,
        "gemma3.rope.freq_base_swa": 1e4, "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0, "gemma3.attention.sliding_window": 24,
        "gemma3.attention.sliding_window_pattern": 3, "gemma3.vocab_size": 512,
    }  # fmt: skip
    assert {key: contents(path, key) for key in expected} == expected
    assert contents(path, "gemma3.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)


def test_real_vocabulary_and_template_are_in_the_file(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama")
    path = convert(spec, tmp_path / "model", tmp_path, "q8_0").path
    assert len(contents(path, "tokenizer.ggml.tokens")) == spec.vocab
    assert contents(path, "tokenizer.ggml.pre") == "smollm"
    assert "{" in contents(path, "tokenizer.chat_template")


def test_position_factors_are_those_of_the_reference() -> None:
    """The reference's frequencies, which agree with transformers, are the plain ones over these."""
    spec = make_spec("llama3", head_dim=64, rope_theta=5e5, rope_scaling=RopeScaling(
        kind="llama3", factor=32, low_freq_factor=1, high_freq_factor=4, original_context=8192,
    ))  # fmt: skip
    plain = spec.model_copy(update={"rope_scaling": None})
    ratio = np.divide(rotary_frequencies(plain, True), rotary_frequencies(spec, True))
    assert np.allclose(rope_factors(spec), ratio, rtol=1e-6)
    assert len(np.unique(ratio.round(6))) > 3  # some pairs stay, some move, some are divided by 32


def test_interleaving_of_heads() -> None:
    heads = np.arange(12).reshape(12, 1)
    expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert interleave(heads, 6).ravel().tolist() == expected
    assert interleave(heads.reshape(1, 12), 6).tolist() == [expected]


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("llama", {"qk_norm": True}, "qk_norm: not in llama"),
        ("qwen3", {"qk_norm": False}, "qk_norm: qwen3 always has it"),
        ("llama", {"sliding_window": 8, "global_every": 2}, "sliding_window"),
        ("qwen2", {"query_scale": 0.5}, "query_scale"),
        ("qwen2", {"head_dim": 32}, r"heads \* head_dim"),
        ("qwen3", {"rope_scaling": {"kind": "llama3", "factor": 8}}, "llama3 scaling"),
        ("gemma3", {"sliding_window": None, "global_every": None}, "rope_local_theta"),
        ("llama", {"layers": 300, "layer_repeats": 2}, "at most 512, got 600"),
    ],
)
def test_models_that_llama_cpp_cannot_run(
    family: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_spec(make_spec(family, **fields))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_themselves_pass(family: str) -> None:
    check_spec(make_spec(family))
    assert query_gain(make_spec(family)) == 1


def test_other_query_scales_go_into_the_norm(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "gemma3", query_scale=0.25)
    plain = make_folder(tmp_path / "plain", "gemma3")
    gain = 0.25 * 32**0.5
    assert query_gain(spec) == pytest.approx(gain)
    scaled, unscaled = (
        {t.name: t.data for t in gguf.GGUFReader(
            convert(s, tmp_path / n, tmp_path / f"{n}-out", "f32").path).tensors}
        for s, n in ((spec, "model"), (plain, "plain"))
    )  # fmt: skip
    for name, values in scaled.items():
        factor = gain if "attn_q_norm" in name else 1
        assert np.allclose(values, unscaled[name] * factor, rtol=1e-6)


def test_file_names_hold_no_separators(tmp_path: Path) -> None:
    spec = make_spec("llama", id="../../Évil name")
    path = convert(spec, None, tmp_path, "f16").path
    assert path.parent == tmp_path
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*-f16\.gguf", path.name)


# --- memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_model_larger_than_memory(tmp_path: Path) -> None:
    spec, artifact = convert_large(tmp_path, "q4_0", "gguf")
    assert artifact.manifest is not None
    assert artifact.manifest.tensor_bytes == tensor_bytes(spec, "q4_0")


def test_manifest_of_the_old_artifact_never_describes_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec("llama")
    artifact = convert(spec, None, tmp_path, "q8_0")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(converter, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(spec, None, tmp_path, "q8_0")
    assert artifact.path.exists()
    assert not manifest_path(artifact.path).exists()
