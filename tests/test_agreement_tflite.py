"""TFLite files compute the model: every family and recipe against the NumPy reference.

Products with integer weights round their input, which moves the logits of models as small as these
by a fifth of their spread; the reference does the same rounding (`rounding.py`). What is
left are values that lie between two steps, where the order of additions decides.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from conversions import conversion, quiet
from make_models import FAMILIES, make_folder, make_spec, plain_weights
from stepwise import parts_of

from edgegauge.artifact import Artifact
from edgegauge.measure.runtimes.litert import LiteRtRuntime
from edgegauge.measure.runtimes.tflite_session import TfliteSession
from edgegauge.model import ModelSpec
from edgegauge.recipe import stored_tensors
from edgegauge_converters import tflite as converter
from edgegauge_converters import tflite_graph, verify_tflite
from edgegauge_converters.reference import Reference
from edgegauge_converters.rounding import runtime_rounding
from edgegauge_converters.tflite_quantize import encode, row_scales
from edgegauge_converters.tflite_weights import TfliteWeights

RECIPES = ("f32", "int8", "int4", "int4_row")
CONTEXT, PREFILL, SPAN = 320, (32,), 128
TOKENS = np.random.RandomState(1).randint(0, 512, 256).tolist()
PART_BOUND, FLOAT_BOUND = 0.35, 1e-5
"""What one part may be off: a share of what rounding makes in it, and float sums."""


def convert(spec: ModelSpec, folder: Path | None, output: Path, recipe: str) -> Artifact:
    job = conversion(spec, folder, output, recipe, context=CONTEXT)
    return converter.TfliteConverter(PREFILL, SPAN).convert(job, quiet)


@cache
def artifact_of(family: str, recipe: str) -> Path:
    folder = Path(mkdtemp(prefix="edgegauge-tflite-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    spec = make_folder(folder / "model", family, seed=7, dtype="f32")
    return convert(spec, folder / "model", folder, recipe).path


@contextmanager
def opened(path: Path) -> Iterator[TfliteSession]:
    with closing(LiteRtRuntime().open(path, threads=1, context=CONTEXT)) as session:
        yield session


def computed(path: Path) -> Any:
    with opened(path) as session:
        return np.array(list(session.logits(TOKENS)))


def expected(path: Path, spec: ModelSpec, recipe: str) -> Any:
    """What the file should compute, with the numbers and the rounding that it has."""
    types = {t.tensor: t.type for t in stored_tensors(spec, recipe, "tflite")}
    rounding = runtime_rounding("tflite", types.__getitem__)
    reference = Reference(spec, TfliteWeights(path, spec))
    *_, (_, hidden) = reference.values(TOKENS, rounding)
    return np.array(list(reference.head(hidden, rounding)))


def agrees(computed: Any, expected: Any, recipe: str) -> bool:
    error = np.abs(computed - expected) / expected.std()
    if recipe == "f32":
        return bool(error.max() < 1e-3 and (computed.argmax(1) == expected.argmax(1)).all())
    # Choices that are as good as equal may fall either way.
    lost = expected.max(1) - expected[np.arange(len(TOKENS)), computed.argmax(1)]
    return bool(error.mean() < 0.02 and (lost < 0.1 * expected.std()).mean() > 0.99)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_computes_the_model_with_its_own_weights(family: str, recipe: str) -> None:
    path = artifact_of(family, recipe)
    assert agrees(computed(path), expected(path, make_spec(family), recipe), recipe)


@pytest.mark.parametrize("family", FAMILIES)
def test_f32_computes_the_checkpoint(family: str) -> None:
    reference = Reference(make_spec(family), plain_weights(make_spec(family), 7)).logits(TOKENS)
    assert agrees(computed(artifact_of(family, "f32")), reference, "f32")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_stored_weights_are_near_the_checkpoint(family: str, recipe: str) -> None:
    spec = make_spec(family)
    stored, plain = TfliteWeights(artifact_of(family, recipe), spec), plain_weights(spec, 7)
    for tensor in spec.tensors():
        difference = np.abs(stored(tensor) - plain(tensor)).max() / np.abs(plain(tensor)).max()
        exact = recipe == "f32" or tensor.is_vector
        integers = 0.005 if recipe == "int8" or tensor.role in ("token_embd", "output") else 0.17
        assert difference < (1e-6 if exact else integers), tensor


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_computes_what_its_own_arithmetic_gives(
    family: str, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From LiteRT's own values before each part, and with its roundings."""
    monkeypatch.setattr(verify_tflite, "TRACED", len(TOKENS))
    path, spec = artifact_of(family, recipe), make_spec(family)
    steps, same = parts_of(verify_tflite.TfliteVerifier(), path, spec, recipe, TOKENS)
    assert same > 0.99
    assert all(s.error < PART_BOUND * s.rounding + FLOAT_BOUND for s in steps), steps


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_then_steps_equal_steps(family: str, recipe: str) -> None:
    path = artifact_of(family, recipe)
    steps = computed(path)
    with opened(path) as session:
        for split in (
            32,
            33,
            97,
            140,
            200,
        ):  # a full piece, one padded, both sides of the first span
            session.reset()
            session.prefill(TOKENS[:split])
            for position in range(split, min(split + 5, len(TOKENS))):
                row = session._row()
                error = np.abs(row - steps[position - 1]).max() / steps.std()
                assert error < (1e-3 if recipe == "f32" else 0.3), (split, position)
                session.step(TOKENS[position])


def swapped(self: Any, operation: Any) -> Any:
    """Queries in the place of keys, and keys in that of queries."""
    query, key, value = HEADS(self, operation)
    group = self.spec.heads // self.spec.kv_heads
    first = self.o.slice(query, (0, 0, 0, 0), self.graph.shape(key))
    return self.o.concatenate([key] * group, 2), first, value


def without_norm(self: Any, operation: Any) -> Any:
    NORM(self, operation)
    return self.values[operation.inputs[0]]


HEADS, NORM = tflite_graph._Step._heads, tflite_graph._Step._norm
MASK, ANGLES = tflite_graph._Step._mask, tflite_graph._angles
BREAKS = {
    "swapped": (tflite_graph._Step, "_heads", swapped),
    "no norm": (tflite_graph._Step, "_norm", without_norm),
    "no window": (tflite_graph._Step, "_mask", lambda self, window: MASK(self, None)),
    "other base": (tflite_graph, "_angles", lambda count, f: ANGLES(count, f) ** 1.01),
    "weak window": (tflite_graph, "FAR", 1e-9),
}


@pytest.mark.parametrize("recipe", ["f32", "int8", "int4"])
@pytest.mark.parametrize("name", BREAKS)
def test_broken_graphs_do_not_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, recipe: str
) -> None:
    spec = make_folder(tmp_path / "model", "gemma3", seed=7, dtype="f32")
    monkeypatch.setattr(*BREAKS[name])
    path = convert(spec, tmp_path / "model", tmp_path, recipe).path
    assert not agrees(computed(path), expected(path, spec, recipe), recipe)


def test_a_doubled_scale_is_seen_in_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_folder(tmp_path / "model", "llama", seed=7, dtype="f32")
    monkeypatch.setattr(converter, "row_scales", lambda rows, type: 2 * row_scales(rows, type))
    monkeypatch.setattr(converter, "encode", lambda rows, s, type: encode(rows, s / 2, type))
    stored = TfliteWeights(convert(spec, tmp_path / "model", tmp_path, "int8").path, spec)
    tensor = next(t for t in spec.tensors() if t.role == "ffn_up")
    assert np.abs(stored(tensor) / plain_weights(spec, 7)(tensor)).mean() > 1.9
