"""Memory of our ONNX files in ONNX Runtime, as `measure/runtimes/onnxruntime.py` runs them.

The file beside the graph is mapped. While loading, every matrix is packed into a private copy and
its own integers are dropped; the embedding stays mapped to be looked up in, and so do the scales.
Keys and values are f32, all allocated at once. What lies between operations comes from an arena
that never shrinks; values of one shape share one place through all layers, so their number is that
of one block:

    4 x hidden + 5 x intermediate + q + 3 x (q + k + v) elements of f32 per token

(four of the residual stream; gate and up in one, apart, and active; what attention gives; its
input, turned and transposed), and one more of q + k + v where queries and keys have norms.

Before that, the tables of rotary factors are computed in double precision, as nodes on constants.
ONNX Runtime keeps each result twice meanwhile, so that a small model with a long context takes more
while it is loaded than ever after.

The constants were measured on x86-64 with AVX-512 and ONNX Runtime 1.32, in fresh processes on
synthetic models of four families (docs/explanation/memory.md). Not checked on ARM, where the packed
form of integer weights may be smaller.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgegauge.memory import (
    TOKENIZER_BYTES_PER_TOKEN,
    Footprint,
    cache_bytes,
    is_multiplied,
    looked_up,
)
from edgegauge.model import ModelSpec
from edgegauge.onnx_types import SCALE_BYTES, block_type
from edgegauge.recipe import StoredTensor
from edgegauge.units import MB, MIB

SUM_BYTES = 4
"""Packed beside the integers and the scale of a block: its sum, for rounded activations."""

ROTARY_BYTES = 8
"""Per position and pair of a table: cosine and sine in f32."""

HEAP_LIMIT_BYTES = 32 * MIB
"""The C library returns a freed block of this size (M_MMAP_THRESHOLD_MAX); of smaller ones it keeps
holes."""

ARENA = {"floats": 1.02, "integers": 1.17}
"""What the arena touches, relative to the values of one block: its regions double in size and leave
gaps, and products of integers put the rounded input into some of them."""

WORKER_ANONYMOUS_BYTES = round(34.5 * MB)
LAYER_ANONYMOUS_BYTES = 100_000
WORKER_FILE_BYTES = 44 * MB
"""Python 3.11, NumPy and ONNX Runtime (32.5 and 32.7 MB), and what a session adds."""


class OnnxRuntimeMemory:
    """The parts that a model's tensors decide, ready for any context."""

    def __init__(self, spec: ModelSpec, stored: Sequence[tuple[StoredTensor, int]]) -> None:
        self._weights = self._packed = self._scales = self._embedding = 0
        for each, count in stored:
            self._weights += count * each.bytes
            blocks = block_type(each.type)
            scales = (
                blocks.blocks(each.tensor.cols) * each.tensor.rows * SCALE_BYTES if blocks else 0
            )
            self._scales += count * scales
            if each.tensor.role == "token_embd":
                self._embedding = each.bytes - scales
            if is_multiplied(spec, each) and not each.tensor.is_vector:
                self._packed += count * (each.bytes + (scales // SCALE_BYTES) * SUM_BYTES)
        integers = self._scales > 0
        # Floats are looked up in where they were packed from; integers are mapped once more.
        self._mapped = self._embedding if spec.tied and not integers else 0
        self._arena = ARENA["integers" if integers else "floats"] * 4 * _block_width(spec)
        self._kv = cache_bytes(spec, 1, "onnx")
        tables = 1 if spec.rope_local_theta is None else 2
        rotary = spec.context * (spec.head_dim // 2) * ROTARY_BYTES
        self._worker = WORKER_ANONYMOUS_BYTES + LAYER_ANONYMOUS_BYTES * spec.executed_layers
        # Angles, cosines or sines in f64 are as large as cosines and sines in f32. Of each table
        # three are there, one more is being made, and another may be a hole in the heap.
        doubles = 3 * tables + (1 if rotary >= HEAP_LIMIT_BYTES else 2)
        self._loading = self._worker + (tables + doubles) * rotary
        self._worker += tables * rotary
        self._tokenizer = spec.vocab * TOKENIZER_BYTES_PER_TOKEN

    def footprint(self, context: int, prompt_tokens: int, ubatch: int) -> Footprint:
        """With room for `context` tokens, after a prompt computed `ubatch` tokens at a time."""
        compute = round(self._arena * min(ubatch, prompt_tokens, context))
        return Footprint(
            weights_bytes=self._weights,
            mapped_bytes=self._mapped or self._scales + looked_up(self._embedding, prompt_tokens),
            weights_in_use_bytes=0,
            repacked_bytes=self._packed,
            kv_cache_bytes=self._kv * context,
            compute_bytes=compute,
            compute_reserved_bytes=compute,
            tokenizer_bytes=self._tokenizer,
            runtime_anonymous_bytes=self._worker,
            runtime_file_bytes=WORKER_FILE_BYTES,
            loading_bytes=self._loading,
        )


def _block_width(spec: ModelSpec) -> int:
    """Elements per token of all values of a block."""
    queries = spec.heads * spec.head_dim
    together = queries + 2 * spec.kv_heads * spec.head_dim
    copies = 4 if spec.qk_norm else 3
    return 4 * spec.hidden + 5 * spec.intermediate + queries + copies * together
