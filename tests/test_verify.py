"""Verification: good artifacts pass, broken ones are refused and the place is named.

A fault of a converter is made by converting another model, which differs in one thing, and
verifying what came of it against the right one. So the same faults serve for every format.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import make_models
import numpy as np
import pytest
from conversions import check, convert
from make_models import FAMILIES, make_folder, random_weights, write_safetensors

from edgegauge.artifact import open_artifact
from edgegauge.cli import main
from edgegauge.errors import ConversionError, InputError, MeasurementError, MissingDependency
from edgegauge.measure import child
from edgegauge.model import ModelSpec
from edgegauge.verify import verified
from edgegauge_converters import gguf_rows
from edgegauge_converters.blueprint import Attention, Embed, Gate, RmsNorm, blueprint
from edgegauge_converters.verify import positions_for

RECIPES = {
    "gguf": ("f32", "f16", "q8_0", "q4_0", "q4_k_m"),
    "onnx": ("f32", "int8", "int4"),
    "tflite": ("f32", "int8", "int4", "int4_row"),
}
SEED = 11


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("file_format", RECIPES)
def test_good_artifacts_pass(family: str, file_format: str, tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "m", family, seed=SEED)
    for recipe in RECIPES[file_format]:
        artifact = convert(spec, tmp_path / "m", tmp_path, recipe, file_format=file_format)
        found = check(artifact, spec, tmp_path / "m")
        assert found.positions == 256 and found.on == "built-in text" and not found.not_checked
        assert found.own_weights.rms_error.value < found.allowed_error.value
        assert found.own_weights.same_choice.value > 0.85
        assert found.original is not None and found.weights is not None
        assert found.parts is not None and found.parts.logits is not None
        assert found.parts.parts == 2 * spec.executed_layers + 2
        assert found.parts.logits.same_choice.value == 1
        assert found.own_arithmetic is not None
        assert found.own_arithmetic.rms_error.value < found.allowed_error.value
        assert found.weights.tensors == len(list(spec.tensors()))
        if recipe in ("f32", "f16"):
            assert found.original.rms_error.value < 0.005
            assert found.own_weights.same_choice.value > 0.98
        else:
            assert 0.001 < found.weights.error.value < found.weights.allowed
            assert found.original.rms_error.value > found.own_weights.rms_error.value


def test_random_weights_have_only_themselves(tmp_path: Path) -> None:
    spec = make_models.make_spec("qwen3")
    found = check(convert(spec, None, tmp_path, "q4_0"), spec, None)
    assert found.original is None and found.weights is None and found.tokenizer is None
    assert found.on == "random tokens" and "synthetic" in found.not_checked[0]


Change = Callable[[dict[tuple[str, int | None], np.ndarray]], None]
"""Changes weights by role and block."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, and what the refusal must say."""

    says: str
    family: str = "llama"
    change: Change = lambda weights: None
    spec: dict[str, Any] | None = None
    shape: dict[str, Any] | None = None


def _swap(weights: dict[tuple[str, int | None], np.ndarray]) -> None:
    weights["attn_q", 1], weights["attn_k", 1] = weights["attn_k", 1], weights["attn_q", 1]


def _set(role: str, block: int | None, made: Callable[[np.ndarray], np.ndarray]) -> Change:
    def change(weights: dict[tuple[str, int | None], np.ndarray]) -> None:
        weights[role, block] = made(weights[role, block])

    return change


FAULTS = {
    "queries and keys swapped": Fault("attn_q of block 1", change=_swap, shape={"kv_heads": 4}),
    "a square matrix transposed": Fault(
        "attn_output of block 1", change=_set("attn_output", 1, lambda w: w.T.copy())
    ),
    "a scale off by two": Fault("ffn_down of block 2", change=_set("ffn_down", 2, lambda w: 2 * w)),
    "a scale off by half": Fault("attn_v of block 0", change=_set("attn_v", 0, lambda w: w / 2)),
    "a norm left out": Fault("ffn_norm of block 1", change=_set("ffn_norm", 1, np.ones_like)),
    "another embedding": Fault("token_embd", change=_set("token_embd", None, lambda w: w[::-1])),
    "another rotary base": Fault("the attention of block 0", spec={"rope_theta": 20000.0}),
    "position scaling left out": Fault(
        "the attention of block 0", "llama3", spec={"rope_scaling": None}
    ),
    "another rotary base for windows": Fault(
        "the attention of block 0", "gemma3", spec={"rope_local_theta": 5e3}
    ),
    "norms of another epsilon": Fault(
        "norm_eps = 0.05|attention of block 0", "qwen3", spec={"norm_eps": 0.05}
    ),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("file_format", RECIPES)
def test_a_fault_is_refused_and_its_place_named(
    file_format: str, name: str, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    folder, other = tmp_path / "right", tmp_path / "wrong"
    spec = make_folder(folder, fault.family, seed=SEED, dtype="f32", **(fault.shape or {}))
    shutil.copytree(folder, other)
    weights = {(t.role, t.layer): w for t, w in random_weights(spec, SEED)}
    fault.change(weights)
    tensors = {
        make_models.tensor_name(spec, t): (
            make_models._shape(t), make_models._encode(weights[t.role, t.layer], "f32")
        )
        for t in spec.tensors()
    }  # fmt: skip
    write_safetensors(other, tensors, "f32", 1)
    wrong = spec.model_copy(update=fault.spec or {})
    # The fewest bits explain the most: what is found here is found in every recipe.
    artifact = convert(wrong, other, tmp_path, RECIPES[file_format][-1], file_format=file_format)
    with pytest.raises((ConversionError, InputError), match=fault.says):
        check(artifact, spec, folder)


def _bent(block: int, change: Callable[[Any], Any], kind: type) -> Callable[[ModelSpec], Any]:
    """A blueprint whose first operation of this kind in a block is changed."""

    def bent(spec: ModelSpec) -> Any:
        now, done = 0, False
        for operation in blueprint(spec):
            if isinstance(operation, kind) and now == block and not done:
                operation, done = change(operation), True
            if operation.output == f"x{now + 1}":
                now += 1
            yield operation

    return bent


GRAPH_FAULTS = {
    "attention's scale": ("the attention of block 1",
                          _bent(1, lambda o: replace(o, scale=2 * o.scale), Attention)),
    "the gate's activation": ("the feed-forward part of block 2",
                              _bent(2, lambda o: replace(o, activation="gelu_tanh"), Gate)),
    "the embedding's scale": ("the embedding", _bent(0, lambda o: replace(o, scale=3.0), Embed)),
    "the last norm's epsilon": ("the last norm", _bent(3, lambda o: replace(o, eps=1e3), RmsNorm)),
    "a norm's epsilon": ("the attention of block 0",
                         _bent(0, lambda o: replace(o, eps=0.5), RmsNorm)),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPH_FAULTS)
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_a_graph_lowered_wrongly_is_refused(
    file_format: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says, bent = GRAPH_FAULTS[name]
    if file_format == "tflite" and name == "attention's scale":
        pytest.skip("this factor is in the weights there")
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    for recipe in ("f32", "int4"):
        with monkeypatch.context() as patch:
            patch.setattr(f"edgegauge_converters.{file_format}_graph.blueprint", bent)
            artifact = convert(spec, tmp_path / "m", tmp_path, recipe, file_format=file_format)
        with pytest.raises(ConversionError, match=f"first to depart is {says}($| )"):
            check(artifact, spec, tmp_path / "m")


def test_a_graph_that_generates_otherwise_than_it_scores_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "int8", file_format="onnx")
    bent = _bent(1, lambda o: replace(o, scale=4 * o.scale), Attention)
    monkeypatch.setattr("edgegauge_converters.onnx_graph.blueprint", bent)
    other = convert(spec, tmp_path / "m", tmp_path / "other", "int8", file_format="onnx")
    shutil.copy(other.path, artifact.path)
    with pytest.raises(ConversionError, match="generates something else than it scores best"):
        check(artifact, spec, tmp_path / "m")


def test_forgotten_interleaving_is_found_in_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    monkeypatch.setattr(gguf_rows, "interleave", lambda rows, head_dim: rows.copy())
    artifact = convert(spec, tmp_path / "m", tmp_path, "q8_0")
    with pytest.raises(ConversionError, match=r"6 of 29 tensors differ, first attn_q of block 0"):
        check(artifact, spec, tmp_path / "m")


@pytest.mark.parametrize("block", [0, 2])
def test_llama_cpp_is_looked_into_by_parts_of_the_file(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is told another activation of one block, which no header can say."""
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "q8_0")
    bent = _bent(block, lambda o: replace(o, activation="gelu_tanh"), Gate)
    monkeypatch.setattr("edgegauge_converters.reference.blueprint", bent)
    with pytest.raises(
        ConversionError, match=rf"first to depart is the feed-forward part of block {block} "
    ):
        check(artifact, spec, tmp_path / "m")


def test_convert_refuses_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "m", "llama", seed=SEED)
    monkeypatch.setattr(gguf_rows, "interleave", lambda rows, head_dim: rows.copy())
    output = tmp_path / "out"
    arguments = ["convert", str(tmp_path / "m"), "--recipe", "q8_0", "-o", str(output)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 1 and list(output.iterdir()) == []
    assert "attn_q of block 0" in said and "--no-verify keeps it" in said
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--no-verify"])
    manifest = open_artifact(output).manifest
    assert ended.value.code == 0 and manifest is not None and manifest.verification is None


def test_a_folder_of_files_is_removed_as_well(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path / "out", "int4", file_format="onnx")
    with pytest.raises(ConversionError, match="the artifact is removed"):
        verified(artifact, spec.model_copy(update={"rope_theta": 500.0}), tmp_path / "m", threads=1)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_manifest_keeps_what_was_found(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "m", "qwen2", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "q4_0")
    made = verified(artifact, spec, tmp_path / "m", threads=1)
    kept = open_artifact(artifact.path).manifest
    assert kept == made.manifest and kept is not None and kept.verification is not None
    assert kept.verification.original is not None
    assert kept.verification.original.kl_mean.unit == "nat"


@pytest.mark.parametrize(
    "error",
    [
        MissingDependency("running GGUF files", "gguf"),
        child.ChildEnded("ended by SIGKILL", status=-9),
        child.ChildEnded("ended with status 1", status=1),
        MeasurementError("out of memory: no room"),
    ],
)
def test_what_cannot_be_tried_is_kept_with_a_warning(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "q4_0")

    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr("edgegauge.verify._in_child", fails)
    made = verified(artifact, spec, tmp_path / "m")
    assert made.path.exists() and made.manifest is not None
    assert made.manifest.verification is None
    assert made.manifest.warnings[-1].startswith("not verified: ")


def test_a_place_that_cannot_be_looked_for_does_not_save_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "q8_0")

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("edgegauge_converters.verify_gguf.GgufVerifier.trace", full)
    found = check(artifact, spec, tmp_path / "m")
    assert found.parts is None and "no space left" in found.not_checked[0]
    with pytest.raises(ConversionError, match="unknown, since its parts could not be looked into"):
        check(artifact, spec.model_copy(update={"rope_theta": 500.0}), tmp_path / "m")


def test_a_file_that_crashes_its_runtime_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "m", "llama", seed=SEED)
    artifact = convert(spec, tmp_path / "m", tmp_path, "q4_0")

    def crashes(*_: Any) -> None:
        raise child.ChildEnded("ended by SIGSEGV", status=-11)

    monkeypatch.setattr("edgegauge.verify._in_child", crashes)
    with pytest.raises(ConversionError, match="does not run: ended by SIGSEGV"):
        verified(artifact, spec, tmp_path / "m")
    assert not artifact.path.exists()


def test_positions_fall_with_the_size_and_go_beyond_a_window() -> None:
    small = make_models.make_spec("llama")
    large = make_models.make_spec(
        "llama", layers=32, hidden=4096, intermediate=11008, heads=32, kv_heads=32, head_dim=128
    )
    assert positions_for(small) == (256, [])
    assert positions_for(large) == (32, [])
    gemma = make_models.make_spec("gemma3", sliding_window=512)
    assert positions_for(gemma) == (544, [])
    count, notes = positions_for(make_models.make_spec("gemma3", sliding_window=1000))
    assert count == 256 and "beyond the window of 1000" in notes[0]
