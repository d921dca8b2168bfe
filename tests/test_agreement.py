"""Converted files against the NumPy reference: llama.cpp must compute what the model says.

Three bounds, from sharp to loose, all in units of the logits' standard deviation:

- f32 weights, with llama.cpp's key/value cache in f32 and no flash attention: rounding alone.
- f16 weights as anybody runs them: half-precision activations and cache add about 0.01.
- quantised weights, against the reference on the same quantised weights: llama.cpp rounds
  activations to 8 bits in blocks, which these deliberately lively models amplify.

Faults that converters really have must break the bounds; the last tests make each on purpose.
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

import llama_cpp
import numpy as np
import pytest
from conversions import convert
from make_models import FAMILIES, make_folder
from stepwise import parts_of

from edgegauge.errors import InputError
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.model import ModelSpec, Tensor
from edgegauge.read_config import spec_from_folder
from edgegauge_converters import gguf_rows
from edgegauge_converters.plain_weights import GgufWeights, checkpoint_weights
from edgegauge_converters.reference import Reference, Weights
from edgegauge_converters.verify_gguf import GgufVerifier
from edgegauge_converters.weights import Checkpoint

TOKENS = np.random.RandomState(1).randint(0, 512, 256)
SEED = 7
QUANTIZED = ("q8_0", "q4_0", "q4_k_m")
QUANTIZED_BOUND = 0.1
"""Root mean square of the differences; the worst model has 0.056, the mildest fault 0.24."""
HALF_BOUND = 0.01
PART_BOUND = 0.35
"""Of what rounding makes in one part: the worst part has 0.22, where attention sharpens values that
fell between two integers."""
FLOAT_BOUND = 1e-5
WIDE: dict[str, Any] = {"hidden": 256, "intermediate": 512, "head_dim": 64, "layers": 2}
"""Widths that k-quants take; two layers keep rounding from being amplified too far."""


@functools.cache
def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgegauge-agreement-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _model(family: str, wide: bool) -> tuple[Path, ModelSpec]:
    """A random model and the spec that its config.json gives."""
    folder = _temporary() / f"{family}-{wide}"
    made = make_folder(folder, family, seed=SEED, **(_widths(family) if wide else {}))
    spec = spec_from_folder(folder, made.id)
    assert spec == made
    return folder, spec


def _widths(family: str) -> dict[str, Any]:
    return WIDE | ({"global_every": 2} if family == "gemma3" else {})


@functools.cache
def _expected(family: str, wide: bool = False) -> np.ndarray:
    folder, spec = _model(family, wide)
    with Checkpoint(folder, spec) as checkpoint:
        return Reference(spec, checkpoint_weights(checkpoint, spec)).logits(TOKENS)


@functools.cache
def _file(family: str, recipe: str, wide: bool = False) -> Path:
    folder, spec = _model(family, wide)
    return convert(spec, folder, _temporary() / f"{family}-{wide}-out", recipe).path


def run(path: Path) -> np.ndarray:
    """llama.cpp's logits of TOKENS, on one thread: the models are too small for more."""
    session = LlamaCppRuntime().open(path, threads=1, context=len(TOKENS))
    try:
        return np.array(list(session.logits(TOKENS.tolist())))
    finally:
        session.close()


@functools.cache
def _computed(family: str, recipe: str, wide: bool = False) -> np.ndarray:
    return run(_file(family, recipe, wide))


def worst(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference, in standard deviations of the logits."""
    return float(np.abs(ours - theirs).max() / ours.std())


def typical(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Root mean square of the differences, likewise."""
    return float(np.sqrt(np.mean(np.square(ours - theirs))) / ours.std())


def same_choice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of positions with the same most likely token."""
    return float(np.mean(ours.argmax(1) == theirs.argmax(1)))


@pytest.fixture
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp contexts with f32 keys and values, attention as separate matrix products."""
    default = llama_cpp.llama_context_default_params

    def params() -> Any:
        made = default()
        made.type_k = made.type_v = llama_cpp.GGML_TYPE_F32
        made.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return made

    monkeypatch.setattr(llama_cpp, "llama_context_default_params", params)


@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("family", FAMILIES)
def test_f32_agrees_to_rounding(family: str) -> None:
    # ggml looks GELU up in a table of half-precision values.
    bound = 0.005 if family == "gemma3" else 1e-4
    assert worst(_expected(family), run(_file(family, "f32"))) < bound


@pytest.mark.parametrize("family", FAMILIES)
def test_f16_agrees(family: str) -> None:
    expected, computed = _expected(family), _computed(family, "f16")
    assert worst(expected, computed) < 0.02
    assert same_choice(expected, computed) > 0.99


@pytest.mark.parametrize("recipe", QUANTIZED)
@pytest.mark.parametrize("family", FAMILIES)
def test_quantized_agrees_with_its_own_weights(family: str, recipe: str) -> None:
    _, spec = _model(family, True)
    path = _file(family, recipe, True)
    own = Reference(spec, GgufWeights(path, spec)).logits(TOKENS)
    computed = _computed(family, recipe, True)
    assert typical(own, computed) < QUANTIZED_BOUND
    assert same_choice(own, computed) > 0.8
    # What quantisation itself costs is larger for 4 bits than for 8, and not nothing.
    lost = typical(_expected(family, True), own)
    assert (0.005 < lost < 0.08) if recipe == "q8_0" else (0.1 < lost < 0.8)


@pytest.mark.parametrize("recipe", ("f32", "f16", *QUANTIZED))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_computes_what_its_own_arithmetic_gives(family: str, recipe: str) -> None:
    """From llama.cpp's own values before each part, and with its roundings."""
    _, spec = _model(family, True)
    steps, same = parts_of(GgufVerifier(), _file(family, recipe, True), spec, recipe, TOKENS)
    assert same > 0.99
    for step in steps:
        # GELU's result is a half float too, which the reference does not round.
        bound = 3e-4 if recipe in ("f32", "f16") else PART_BOUND * step.rounding + FLOAT_BOUND
        assert step.error < bound, step
        assert step.error < step.from_exact or step.rounding < FLOAT_BOUND, step


@pytest.mark.parametrize("recipe", ("f32", "f16", *QUANTIZED))
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_then_decode_is_one_long_prefill(family: str, recipe: str) -> None:
    path, tokens = _file(family, recipe, True), TOKENS.tolist()
    whole = _computed(family, recipe, True)[100:140]
    rows = []
    with closing(LlamaCppRuntime().open(path, threads=1, context=len(tokens))) as session:
        session.prefill(tokens[:60])
        session.prefill(tokens[60:100])
        for token in tokens[100:140]:
            session.step(token)
            rows.append(session._logits_of(-1).copy())
    # One token at a time, attention adds up in half floats.
    bound = HALF_BOUND if recipe in ("f32", "f16") else QUANTIZED_BOUND
    assert typical(whole, np.array(rows)) < bound


def test_a_file_that_is_cut_short_has_no_weights(tmp_path: Path) -> None:
    whole = _file("llama", "f16").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in (0, 10, 300, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.gguf as GGUF"):
            GgufWeights(path, _model("llama", False)[1])


Fault = Callable[[ModelSpec, Weights], tuple[ModelSpec, Weights]]


def _spec(**changes: Any) -> Fault:
    return lambda spec, weights: (spec.model_copy(update=changes), weights)


def _weight(roles: tuple[str, ...], change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    return lambda spec, weights: (
        spec,
        lambda t: change(weights(t)) if t.role in roles else weights(t),
    )


def _swapped(spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
    other = {"ffn_gate": "ffn_up", "ffn_up": "ffn_gate"}
    return spec, lambda t: weights(replace(t, role=other.get(t.role, t.role)))


def _blocks_in_turn(spec: ModelSpec, weights: Weights) -> tuple[ModelSpec, Weights]:
    """Shared blocks as A B A B and not A A B B."""
    unrolled = spec.model_copy(update={"layers": spec.executed_layers, "layer_repeats": 1})

    def stored(tensor: Tensor) -> np.ndarray:
        layer = None if tensor.layer is None else tensor.layer % spec.layers
        return weights(replace(tensor, layer=layer))

    return unrolled, stored


def _pairs_as_halves(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, 8, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


FAULTS: list[tuple[str, str, Fault]] = [
    ("llama", "rotary pairs taken for halves", _weight(("attn_q", "attn_k"), _pairs_as_halves)),
    ("llama", "query heads one off", _weight(("attn_q",), lambda w: np.roll(w, 16, axis=0))),
    ("llama", "a square matrix transposed", _weight(("attn_output",), lambda w: w.T)),
    ("llama", "gate and up swapped", _swapped),
    ("llama", "another rotary base", _spec(rope_theta=20000.0)),
    ("llama3", "position scaling left out", _spec(rope_scaling=None)),
    ("mobilellm", "shared blocks in turn", _blocks_in_turn),
    ("qwen2", "biases left out", _spec(attention_bias=False)),
    ("qwen3", "head norms left out", _spec(qk_norm=False)),
    ("qwen3", "the default rotary base", _spec(rope_theta=10000.0)),
    ("gemma3", "norms without their one", _weight(("attn_norm",), lambda w: w - 1)),
    ("gemma3", "a window one longer", _spec(sliding_window=25)),
    ("gemma3", "no windows", _spec(sliding_window=None, global_every=None)),
    ("gemma3", "one rotary base for all layers", _spec(rope_local_theta=None)),
    ("gemma3", "another query scale", _spec(query_scale=64**-0.5)),
]


@pytest.mark.parametrize(
    "family, fault", [(f, x) for f, _, x in FAULTS], ids=[n for _, n, _ in FAULTS]
)
def test_a_fault_breaks_the_bounds(family: str, fault: Fault) -> None:
    folder, spec = _model(family, False)
    with Checkpoint(folder, spec) as checkpoint:
        broken = Reference(*fault(spec, checkpoint_weights(checkpoint, spec))).logits(TOKENS)
    assert typical(broken, _computed(family, "f16")) > 2 * QUANTIZED_BOUND


def test_a_converter_that_forgets_to_interleave_is_caught(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, spec = _model("llama", False)
    monkeypatch.setattr(gguf_rows, "interleave", lambda rows, head_dim: rows.copy())
    assert typical(_expected("llama"), run(convert(spec, folder, tmp_path, "f16").path)) > 0.5
