"""Memory of our TFLite files in LiteRT, as `measure/runtimes/litert.py` runs them.

XNNPACK packs every matrix into memory of its own, which LiteRT shares between all graphs: a file
that has no name, so that its pages cannot be dropped and count as anonymous here. The buffer in
which the largest matrix was packed stays as well. The model file is mapped, and only looked up in
for embeddings. Keys and values are f32 for the whole context of the file.

A file has two graphs for each span of the cache (see edgegauge_converters/tflite_graph.py), a piece
of a prompt and a step, and every operation of every graph is described in memory. The graphs share
one workspace, which the first prompt makes as large as the longest span wants it, and XNNPACK
writes zeros over all of it (`initialize_workspace_values` of its runtime.c). Masks and rotations of
a graph come from an arena that TFLite takes for each run, and the heap keeps some of those that
were given back: a typical part for the usual cache is taken here.

The constants were measured on x86-64 with AVX-512 and LiteRT 2.3, in fresh processes on synthetic
models of four families that are almost nothing but graph: 4 and 16 layers 128 wide, caches of 512,
1280 and 4096 tokens. docs/explanation/memory.md has the errors on others. Not checked on ARM.
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
from edgegauge.recipe import TOGETHER, StoredTensor
from edgegauge.tflite_spans import CONTEXT, PIECE, spans_of
from edgegauge.units import MB

ROW_BYTES = 8
"""What packing adds to a row: the sum of its weights and a place for a bias."""

F32_BYTES = 4

OPERATION_BYTES = 3150
"""What LiteRT and XNNPACK keep for an operation of a graph and the values around it."""
LAYER_OPERATIONS, GRAPH_OPERATIONS = 34, 11
NORM_OPERATIONS, ROW_SCALE_OPERATIONS = 6, 4
"""Operations of a layer without its norms, and of a graph without its layers; of a norm; and more
of a layer whose matrices have scales of rows, which are multiplied with apart."""

GROWN = 2.0
"""Arenas of the longest span so far that the heap holds beside that of the first. Up to glibc 2.37
a place that an aligned block has left is too small for the next of its size: from 0 to 9 of them
stay, as chance and the number of pieces have it."""

WORKER_ANONYMOUS_BYTES = round(25.9 * MB)
WORKER_FILE_BYTES = 41 * MB
"""Python 3.11, NumPy and LiteRT (25.5 and 29.7 MB), and what any model adds."""


class LiteRtMemory:
    """The parts that a model's tensors decide, ready for any context."""

    def __init__(self, spec: ModelSpec, stored: Sequence[tuple[StoredTensor, int]]) -> None:
        self._weights = self._embedding = packed = row_scales = 0
        products: dict[tuple[str, str], int] = {}
        for each, times in stored:
            self._weights += times * each.bytes
            if each.tensor.role == "token_embd":
                self._embedding = each.bytes
            if each.tensor.is_vector or not is_multiplied(spec, each):
                continue
            size = each.bytes + ROW_BYTES * each.tensor.rows
            packed += times * size
            role = next((r[0] for r in TOGETHER if each.tensor.role in r), each.tensor.role)
            products[role, each.type] = products.get((role, each.type), 0) + size
            if each.type in ("INT8", "INT4") and each.tensor.layer is not None:
                row_scales += times * 4 * each.tensor.rows
        self._packed = packed + max(products.values())
        self._kv = cache_bytes(spec, 1, "tflite")
        self._graph = row_scales + OPERATION_BYTES * graph_operations(spec, row_scales > 0)
        self._logits = F32_BYTES * spec.vocab
        row = PIECE * F32_BYTES
        self._feed_forward = row * (spec.hidden + 4 * spec.intermediate)
        self._queries = row * spec.heads * spec.head_dim
        # Keys or values of a layer, which a product wants in an order of its own.
        self._layer_keys = F32_BYTES * spec.kv_heads * spec.head_dim
        self._scores = row * spec.heads + self._layer_keys
        kinds = 1 if spec.sliding_window is None else 2
        # Cosines and sines as they are looked up and in another shape.
        self._rotations = row * 4 * kinds * spec.head_dim
        # For the queries of one key head.
        self._masks = row * kinds * spec.heads // spec.kv_heads
        self._context = min(CONTEXT, spec.context)
        self._tokenizer = spec.vocab * TOKENIZER_BYTES_PER_TOKEN

    def footprint(self, context: int, prompt_tokens: int, ubatch: int) -> Footprint:
        """With a cache of `context` tokens or the usual length, whichever is longer.

        The file says how many tokens are computed at once, so `ubatch` changes nothing.
        """
        del ubatch
        cells = max(context, self._context)
        spans = spans_of(cells)
        workspace = max(self._feed_forward, self._queries + self._scores * cells)
        # The runtime's own masks, and zeros of one layer with which all caches begin.
        runtime = (2 * PIECE * F32_BYTES + self._layer_keys) * cells
        compute = workspace + runtime + round(self._arenas(spans, prompt_tokens))
        worker = WORKER_ANONYMOUS_BYTES + (1 + len(spans)) * self._logits
        worker += 2 * len(spans) * self._graph
        return Footprint(
            weights_bytes=self._weights,
            mapped_bytes=looked_up(self._embedding, prompt_tokens),
            weights_in_use_bytes=0,
            repacked_bytes=self._packed,
            kv_cache_bytes=self._kv * cells,
            compute_bytes=compute,
            compute_reserved_bytes=compute,
            tokenizer_bytes=self._tokenizer,
            runtime_anonymous_bytes=worker,
            runtime_file_bytes=WORKER_FILE_BYTES,
        )

    def _arenas(self, spans: Sequence[int], prompt_tokens: int) -> float:
        """What the heap keeps of the arenas of all spans that a prompt needs, and of the mask,
        which NumPy makes in f64."""
        fixed = self._rotations + 2 * PIECE * F32_BYTES * spans[-1]
        seen = sum(span < prompt_tokens for span in spans[:-1])
        first, last = (fixed + self._masks * spans[n] for n in (0, seen))
        return first + (GROWN * last if seen else 0)


def graph_operations(spec: ModelSpec, row_scales: bool) -> int:
    """About how many operations a graph has; norms of queries and keys are one."""
    norms = 2 + spec.qk_norm + 2 * (spec.family == "gemma3")
    layer = LAYER_OPERATIONS + NORM_OPERATIONS * norms + spec.attention_bias
    layer += ROW_SCALE_OPERATIONS * row_scales
    return GRAPH_OPERATIONS + spec.executed_layers * layer
