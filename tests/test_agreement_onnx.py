"""ONNX graphs against the NumPy reference: ONNX Runtime must compute what the model says.

The reference runs on the checkpoint's weights, quantised here as the recipe says, so that a wrong
graph and the cost of quantisation are told apart. Products of quantised weights round their input
to 8 bits; without that (one number in the graph) only float rounding is left, and faults that
converters really have must show: the last tests make each on purpose.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import conversions
import numpy as np
import onnx
import pytest
from make_models import FAMILIES, make_folder
from stepwise import parts_of

from edgegauge.measure.runtimes.onnxruntime import ALL_LOGITS, OnnxRuntime
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import stored_tensors
from edgegauge_converters import onnx_graph, onnx_rows
from edgegauge_converters.block_quantize import dequantize, quantize
from edgegauge_converters.blueprint import Attention, blueprint
from edgegauge_converters.onnx_file import encode
from edgegauge_converters.onnx_graph import lower
from edgegauge_converters.onnx_layout import plan
from edgegauge_converters.onnx_rows import OnnxWeights
from edgegauge_converters.plain_rows import PlainRows
from edgegauge_converters.reference import Reference
from edgegauge_converters.verify_onnx import OnnxVerifier
from edgegauge_converters.weights import Checkpoint

RECIPES = ("f32", "int8", "int4", "int4_e8", "int4_128")
TOKENS = np.random.RandomState(1).randint(0, 512, 256)
SEED = 7
WIDE: dict[str, Any] = {"hidden": 128, "intermediate": 256, "head_dim": 32, "layers": 2}
"""Two layers keep the rounding of activations to 8 bits from being amplified too far."""
ODD: dict[str, Any] = {"hidden": 72, "intermediate": 100, "head_dim": 16}
"""No row is a whole number of blocks."""
ROUNDING_BOUND = 1e-3
"""Largest difference, in standard deviations of the logits, where activations are floats: found is
3e-5 at most."""
PART_BOUND = 0.35
"""Of what rounding makes in one part: the worst part has 0.18, where attention sharpens values that
fell between two integers."""
FLOAT_BOUND = 1e-5
RUNNING_BOUND = 0.06
"""Root mean square of the differences as it runs, with activations rounded to 8 bits in blocks,
which these deliberately lively models amplify: the worst has 0.041."""
convert = functools.partial(conversions.convert, file_format="onnx")


@functools.cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgegauge-onnx-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _model(family: str) -> tuple[Path, ModelSpec]:
    folder = _temporary() / family
    widths = WIDE | ({"global_every": 2} if family == "gemma3" else {})
    return folder, make_folder(folder, family, seed=SEED, **widths)


@functools.cache
def artifact_of(family: str, recipe: str) -> Path:
    folder, spec = _model(family)
    return convert(spec, folder, _temporary() / f"{family}-out", recipe).path


@functools.cache
def expected(family: str, recipe: str) -> np.ndarray:
    """What the model must say: the reference on the checkpoint's weights, quantised here."""
    folder, spec = _model(family)
    types = {(s.tensor.role, s.tensor.layer): s.type for s in stored_tensors(spec, recipe, "onnx")}
    with Checkpoint(folder, spec) as checkpoint:
        plain = PlainRows(checkpoint, spec)

        def weight(tensor: Tensor) -> np.ndarray:
            kind = types[tensor.role, tensor.layer]
            if kind == "F32":
                return plain(tensor)
            bits, block = int(kind[3]), int(kind[5:])
            return dequantize(*quantize(plain(tensor), bits, block), tensor.cols)

        return Reference(spec, weight).logits(TOKENS)


def run(path: Path) -> np.ndarray:
    """The graph's logits of TOKENS, all at once."""
    runtime = OnnxRuntime()
    with closing(runtime.open(path, threads=1, context=256, all_logits=True)) as session:
        return np.array(list(session.logits(TOKENS.tolist())))


def departs(path: Path, family: str, recipe: str) -> str | None:
    """How the graph differs from its model by more than float rounding, or None."""
    computed, wanted = run(with_float_activations(path)), expected(family, recipe)
    worst = np.abs(computed - wanted).max() / wanted.std()
    same = np.mean(computed.argmax(1) == wanted.argmax(1))
    if worst < ROUNDING_BOUND and same > 0.99:
        return None
    return f"worst {worst:.4g}, same choice {same:.4f}"


def with_float_activations(path: Path) -> Path:
    """The same artifact but for one number: products do not round their inputs to 8 bits."""

    def change(graph: Any) -> None:
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 1

    return rebuilt(path, "float", change)


def rebuilt(path: Path, name: str, change: Callable[[Any], None]) -> Path:
    """A copy of an artifact whose graphs were changed after being made."""
    copy = path.parent.with_name(f"{path.parent.name}-{name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent, copy)
    for graph in (path.name, ALL_LOGITS):
        model = onnx.load(copy / graph, load_external_data=False)
        change(model.graph)
        (copy / graph).write_bytes(model.SerializeToString())
    return copy / path.name


def typical(computed: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the differences, in standard deviations of the logits."""
    return float(np.sqrt(np.mean(np.square(computed - wanted))) / wanted.std())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_computes_what_the_reference_does(family: str, recipe: str) -> None:
    path = artifact_of(family, recipe)
    assert departs(path, family, recipe) is None
    assert typical(run(path), expected(family, recipe)) < RUNNING_BOUND


@pytest.mark.parametrize("recipe", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_stored_weights_are_those_that_were_quantised(family: str, recipe: str) -> None:
    spec = _model(family)[1]
    weights = OnnxWeights(artifact_of(family, recipe), stored_tensors(spec, recipe, "onnx"))
    logits = Reference(spec, weights).logits(TOKENS[:40])
    wanted = expected(family, recipe)[:40]
    assert np.abs(logits - wanted).max() < 1e-4 * wanted.std()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_computes_what_its_own_arithmetic_gives(family: str, recipe: str) -> None:
    """From ONNX Runtime's own values before each part, and with its roundings."""
    spec, path = _model(family)[1], artifact_of(family, recipe)
    steps, same = parts_of(OnnxVerifier(), path, spec, recipe, TOKENS.tolist())
    assert same > 0.99
    assert all(s.error < PART_BOUND * s.rounding + FLOAT_BOUND for s in steps), steps


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_then_decode_is_one_long_prefill(family: str, recipe: str) -> None:
    path = artifact_of(family, recipe)
    tokens = TOKENS.tolist()
    whole = run(path)
    with closing(OnnxRuntime().open(path, threads=1, context=256)) as session:
        session.prefill(tokens[:50])
        session.prefill(tokens[50:100])
        rows = []
        for token in tokens[100:]:
            session.step(token)
            rows.append(session._logits[0].copy())
    # Kernels of one row and of many add in another order; 8-bit rounding amplifies it.
    bound = 1e-4 if recipe == "f32" else RUNNING_BOUND
    assert typical(np.array(rows), whole[100:]) < bound


def test_odd_widths_are_padded_and_cut(tmp_path: Path) -> None:
    spec = make_folder(tmp_path / "model", "llama", seed=SEED, layers=2, **ODD)
    path = convert(spec, tmp_path / "model", tmp_path, "int8").path
    weights = OnnxWeights(path, stored_tensors(spec, "int8", "onnx"))
    wanted = Reference(spec, weights).logits(TOKENS)
    assert typical(run(path), wanted) < RUNNING_BOUND


# --- faults on purpose


def broken_spec(family: str, recipe: str, **changes: Any) -> Path:
    """An artifact whose graphs were lowered from a spec with other fields."""
    folder, spec = _model(family)
    output = _temporary() / f"{family}-{recipe}-{'-'.join(changes)}"
    path = convert(spec, folder, output, recipe).path
    layout = plan(stored_tensors(spec, recipe, "onnx"))
    for name, every in ((path.name, False), (ALL_LOGITS, True)):
        graph = lower(spec.model_copy(update=changes), layout, all_logits=every)
        made = encode(graph, path.name + ".data", {}, "test")
        path.with_name(name).write_bytes(made)
    return path


@pytest.mark.parametrize("recipe", ["f32", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_rotary_base_shows(family: str, recipe: str) -> None:
    spec = _model(family)[1]
    path = broken_spec(family, recipe, rope_theta=spec.rope_theta * 4)
    assert departs(path, family, recipe)


@pytest.mark.parametrize("recipe", ["f32", "int4"])
def test_scaled_positions_left_out_show(recipe: str) -> None:
    assert departs(broken_spec("llama3", recipe, rope_scaling=None), "llama3", recipe)


@pytest.mark.parametrize("recipe", ["f32", "int4"])
def test_a_window_left_out_shows(recipe: str) -> None:
    path = broken_spec("gemma3", recipe, sliding_window=10_000)
    assert departs(path, "gemma3", recipe)


@pytest.mark.parametrize("recipe", ["f32", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_norm_shows(family: str, recipe: str) -> None:
    def ones(graph: Any) -> None:
        for each in graph.initializer:
            if each.name == "blk.1.ffn_norm.weight":
                del each.external_data[:]
                each.data_location = onnx.TensorProto.DEFAULT
                each.raw_data = np.ones(tuple(each.dims), np.float32).tobytes()

    path = rebuilt(artifact_of(family, recipe), "broken", ones)
    assert departs(path, family, recipe)


@pytest.mark.parametrize("recipe", ["f32", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_another_blocks_weights_show(family: str, recipe: str) -> None:
    def swap(graph: Any) -> None:
        for node in graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = name.replace("blk.0.attn_output", "blk.1.attn_output")

    path = rebuilt(artifact_of(family, recipe), "broken", swap)
    assert departs(path, family, recipe)


Change = Callable[[Tensor, np.ndarray], np.ndarray]


def _with_rows(monkeypatch: pytest.MonkeyPatch, family: str, recipe: str, change: Change) -> Path:
    """Convert with every tensor's rows changed before they are encoded."""
    plain = PlainRows.rows

    def rows(self: PlainRows, tensor: Tensor, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(change(tensor, plain(self, tensor, start, stop)))

    folder, spec = _model(family)
    expected(family, recipe)  # before the fault
    monkeypatch.setattr(PlainRows, "rows", rows)
    return convert(spec, folder, _temporary() / f"{family}-{recipe}-changed", recipe).path


@pytest.mark.parametrize("recipe", ["f32", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_transposed_weight_shows(
    family: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def transposed(tensor: Tensor, rows: np.ndarray) -> np.ndarray:
        square = tensor.role == "attn_output" and tensor.layer == 0
        return rows.T if square and rows.shape[0] == rows.shape[1] else rows

    path = _with_rows(monkeypatch, family, recipe, transposed)
    assert departs(path, family, recipe)


@pytest.mark.parametrize("family", FAMILIES)
def test_interleaved_heads_show(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = _model(family)[1]

    def interleaved(tensor: Tensor, rows: np.ndarray) -> np.ndarray:
        if tensor.role not in ("attn_q", "attn_k"):
            return rows
        heads = rows.reshape(-1, 2, spec.head_dim // 2, rows.shape[1])
        return heads.swapaxes(1, 2).reshape(rows.shape)

    assert departs(_with_rows(monkeypatch, family, "f32", interleaved), family, "f32")


@pytest.mark.parametrize("recipe", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_scale_off_by_two_shows(
    family: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = onnx_rows.encode

    def doubled(values: np.ndarray, stored_type: str) -> onnx_rows.Encoded:
        made = plain(values, stored_type)
        return made if made.scales is None else replace(made, scales=made.scales * 2)

    folder, spec = _model(family)
    monkeypatch.setattr(onnx_rows, "encode", doubled)
    path = convert(spec, folder, _temporary() / f"{family}-{recipe}-scaled", recipe).path
    assert departs(path, family, recipe)


@pytest.mark.parametrize("recipe", ["f32", "int4"])
def test_swapped_queries_and_keys_show(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(operation: Any) -> Any:
        if not isinstance(operation, Attention) or operation.slot:
            return operation
        query, key, value = operation.inputs
        return replace(operation, inputs=(key, query, value))

    # Only heads of one shape can be swapped, so every query has a key of its own.
    folder = _temporary() / f"swapped-{recipe}"
    spec = make_folder(folder / "model", "qwen3", seed=SEED, kv_heads=4, **WIDE)
    right = run(convert(spec, folder / "model", folder / "right", recipe).path)
    monkeypatch.setattr(onnx_graph, "blueprint", lambda spec: map(swapped, blueprint(spec)))
    wrong = run(convert(spec, folder / "model", folder / "wrong", recipe).path)
    assert typical(wrong, right) > 2 * RUNNING_BOUND
