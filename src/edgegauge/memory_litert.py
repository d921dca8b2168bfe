"""Memory of our TFLite files in LiteRT, as `measure/runtimes/litert.py` runs them.

XNNPACK packs every matrix into memory of its own, which LiteRT shares between all graphs: a file
that has no name, so that its pages cannot be dropped and count as anonymous here. The buffer in
which the largest matrix was packed stays as well. The model file is mapped, and only looked up in
for embeddings. Keys and values are f32 for the whole context of the file. A prompt is read in
pieces of up to 128 tokens, each by the graph with the shortest span of the cache that holds it (see
edgegauge_converters/tflite_graph.py). The scores of attention are as long as the span; their
workspace grows from span to span, and the heap keeps part of what it has outgrown.

The constants were measured on x86-64 with AVX-512 and LiteRT 2.3, in fresh processes on synthetic
models of four families (docs/explanation/memory.md). Not checked on ARM.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgegauge.memory import (
    F32_BYTES,
    TOKENIZER_BYTES_PER_TOKEN,
    Footprint,
    is_multiplied,
    looked_up,
)
from edgegauge.model import ModelSpec
from edgegauge.recipe import TOGETHER, StoredTensor
from edgegauge.tflite_spans import CONTEXT, PIECE, spans_of
from edgegauge.units import MB

ROW_BYTES = 8
"""What packing adds to a row: the sum of its weights and a place for a bias."""

LAYER_ANONYMOUS_BYTES = 100_000
CACHE_BESIDE = 0.47
"""What a session keeps for each layer, and beside the keys and values as part of their size."""

GROWN = 0.6
"""Part of the workspaces of all spans so far that is in memory."""
WINDOW_MASKS = 5
"""Masks of a model whose layers have windows; of another, one."""

WORKER_ANONYMOUS_BYTES = 31 * MB
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
        self._kv = 2 * spec.kv_heads * spec.head_dim * spec.executed_layers * F32_BYTES
        self._worker = WORKER_ANONYMOUS_BYTES + LAYER_ANONYMOUS_BYTES * spec.executed_layers
        # Each span has logits of its own, and the scales of its layers' rows as operands.
        self._span = row_scales + 4 * spec.vocab
        self._feed_forward = PIECE * 4 * (4 * spec.hidden + 4 * spec.intermediate)
        # Scores before and after the softmax, and masks for the queries of one key head.
        masks = 1 if spec.sliding_window is None else WINDOW_MASKS
        self._per_position = PIECE * 4 * (2 * spec.heads + masks * spec.heads // spec.kv_heads)
        self._context = min(CONTEXT, spec.context)
        self._tokenizer = spec.vocab * TOKENIZER_BYTES_PER_TOKEN

    def footprint(self, context: int, prompt_tokens: int, ubatch: int) -> Footprint:
        """With a cache of `context` tokens or the usual length, whichever is longer.

        The file says how many tokens are computed at once, so `ubatch` changes nothing.
        """
        del ubatch
        cells = max(context, self._context)
        spans = spans_of(cells)
        seen = sum(spans[: 1 + sum(span < prompt_tokens for span in spans[:-1])])
        compute = round(self._feed_forward + GROWN * self._per_position * seen)
        cache = self._kv * cells
        worker = self._worker + len(spans) * self._span + round(CACHE_BESIDE * cache)
        return Footprint(
            weights_bytes=self._weights,
            mapped_bytes=looked_up(self._embedding, prompt_tokens),
            weights_in_use_bytes=0,
            repacked_bytes=self._packed,
            kv_cache_bytes=cache,
            compute_bytes=compute,
            compute_reserved_bytes=compute,
            tokenizer_bytes=self._tokenizer,
            runtime_anonymous_bytes=worker,
            runtime_file_bytes=WORKER_FILE_BYTES,
        )
