"""The models that a calibration runs: what is large in each tells one cost from the others.

    for shape, recipe, prompts in plan("gguf"):
        SHAPES[shape].spec(shape, recipe, "gguf", cache_bytes=32e6)

SMALL fits the last-level cache, so that products count and memory does not; WIDE, HEADED and NARROW
are past it: nothing but blocks, blocks with a large output head (which some recipes store in
another type), and rows that do not suit every block length; DEEP and SHALLOW are all layers, many
and few, and hardly any weights. SMALL, WIDE and NARROW are also given long prompts, for attention
from the cache, with a key head for four query heads, and with one for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgegauge.model import ModelSpec
from edgegauge.recipe import tensor_bytes
from edgegauge.units import MB

SHORT, LONG = 64, 640
"""Prompt lengths; the long one is more than a runtime computes at once."""
LEAST_PAST, MOST_PAST = 48 * MB, 400 * MB
"""Bounds of the size of a model that is past the last-level cache."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's widths; `layers` None: as many as make it `caches` times the cache."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    layers: int | None = None
    caches: float = 1.0

    def spec(self, name: str, recipe: str, file_format: str, cache_bytes: float) -> ModelSpec:
        """The model, as long as this recipe makes it large enough."""
        if self.layers is not None:
            return self._spec(name, self.layers)
        few, more = (tensor_bytes(self._spec(name, n), recipe, file_format) for n in (8, 16))
        layer = (more - few) / 8
        past = min(max(self.caches * cache_bytes, LEAST_PAST), MOST_PAST)
        return self._spec(name, max(2, math.ceil((past - (few - 8 * layer)) / layer)))

    def _spec(self, name: str, layers: int) -> ModelSpec:
        return ModelSpec(
            id=f"calibration-{name}", family="llama", layers=layers, hidden=self.hidden,
            intermediate=self.intermediate, heads=self.heads, kv_heads=self.kv_heads, head_dim=64,
            vocab=self.vocab, tied=True, context=2048, norm_eps=1e-5, rope_theta=10_000.0,
        )  # fmt: skip


SHAPES = {
    "small": Shape(256, 768, 4, 1, 16384, layers=8),
    "wide": Shape(1024, 2816, 16, 4, 8192, caches=8),
    "headed": Shape(768, 2048, 12, 4, 65536, caches=4),
    "narrow": Shape(576, 1536, 9, 9, 4096, caches=2),
    "deep": Shape(64, 128, 1, 1, 512, layers=32),
    "shallow": Shape(64, 128, 1, 1, 512, layers=4),
}

RECIPES = {
    "gguf": ("q8_0", "q4_0", "q4_k_m", "f16"),
    "onnx": ("int8", "int4", "int4_128", "f32"),
    "tflite": ("int8", "int4", "int4_row", "f32"),
}
"""Format: three recipes that are run in full, and one that is run small."""

NARROW_RECIPE = {"gguf": "q4_k_m", "onnx": "int8", "tflite": "int8"}
"""The recipe that has other types in rows of 576, if any has."""


def plan(file_format: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Shape, recipe and prompt lengths of every model that is run."""
    *full, plain = RECIPES[file_format]
    yield "shallow", full[0], (SHORT,)
    yield "deep", full[0], (SHORT,)
    for recipe in (plain, *full):
        yield "small", recipe, (SHORT, LONG) if recipe == full[0] else (SHORT,)
    for recipe in full:
        yield "headed", recipe, (SHORT,)
    for recipe in full:
        yield "wide", recipe, (2 * SHORT, LONG) if recipe == full[0] else (2 * SHORT,)
    yield "narrow", NARROW_RECIPE[file_format], (SHORT, LONG)
