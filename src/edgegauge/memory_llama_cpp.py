"""Memory of a GGUF file in llama.cpp.

    memory = LlamaCppMemory(spec, inventory(spec, "q4_0"), "avx2")
    memory.footprint(context=512, prompt_tokens=128, ubatch=512)

How llama.cpp 0.3.36 (as llama-cpp-python packages it) lays memory out was read in its sources,
`ggml/src/ggml-cpu/repack.cpp`, `src/llama-model-loader.cpp` and `src/llama-kv-cache*.cpp`, and
compared with the buffer sizes it logs, here and on two phones (scripts/validate_memory), and with
/proc/self/status while it runs. docs/explanation/memory.md states the errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from edgegauge.memory import KV_ELEMENT_BYTES, Footprint, is_multiplied
from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor
from edgegauge.units import MB

CELL_STEP = 256
"""llama.cpp rounds the key/value cells of a context up to a multiple of this."""

WORKER_ANONYMOUS_BYTES = round(25.3 * MB)
LAYER_ANONYMOUS_BYTES = 73_000
WORKER_FILE_BYTES = 23 * MB
"""What edgegauge's own worker holds beside the model (Python 3.11, NumPy and llama.cpp's libraries,
on x86-64 Linux), and what llama.cpp holds to describe one layer."""

LAST_ROW_BYTES = 12
"""Per entry of the vocabulary: the logits of one token, where they are computed, kept and read."""

VOCABULARY_BYTES = round(2.4 * MB)
TOKEN_BYTES = 150
MERGE_BYTES = 143
"""The tokenizer and each of its entries, measured on vocabularies of 32,000 to 262,144 entries; and
what a list of merges, about as many as entries, adds."""

SMALLEST_WITH_MERGES = 40_000
"""Vocabularies below this are SentencePiece's, which has no merges; nor has Gemma's."""

InstructionSet = Literal["avx2", "i8mm", "dotprod", "plain"]


def instruction_set(features: Iterable[str]) -> InstructionSet:
    """Which of llama.cpp's kernel sets a processor uses for quantised weights.

    Features are named as in /proc/cpuinfo or in device profiles (`asimddp` is `dotprod`).
    """
    named = {f.lower() for f in features}
    if named & {"avx2", "avx512f", "avx512"}:
        return "avx2"
    if "i8mm" in named:
        return "i8mm"
    return "dotprod" if named & {"dotprod", "asimddp"} else "plain"


_REPACKED_ROWS: dict[InstructionSet, dict[str, int]] = {
    "avx2": {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8},
    "i8mm": {"Q4_0": 4, "Q8_0": 4, "IQ4_NL": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8},
    "dotprod": {"Q4_0": 4, "Q8_0": 4, "IQ4_NL": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8},
    "plain": {},
}
"""Kernel set: weight type it repacks -> what the number of rows must be a multiple of.
From ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp."""


def is_repacked(stored: StoredTensor, isa: InstructionSet) -> bool:
    """Whether llama.cpp copies this matrix into the kernels' own order."""
    step = _REPACKED_ROWS[isa].get(stored.type)
    return step is not None and stored.tensor.rows % step == 0


class LlamaCppMemory:
    """The parts that a model's tensors decide, ready for any context."""

    def __init__(
        self, spec: ModelSpec, stored: Sequence[tuple[StoredTensor, int]], isa: InstructionSet
    ) -> None:
        self.mapped = self.in_use = self.repacked = 0
        for each, count in stored:
            size = count * each.bytes
            self.mapped += size
            if not is_multiplied(spec, each):
                continue
            if not each.tensor.is_vector and is_repacked(each, isa):
                self.repacked += size
            else:
                self.in_use += size
        layers = spec.executed_layers
        cell = 2 * spec.kv_heads * spec.head_dim * KV_ELEMENT_BYTES["gguf"]
        wide = sum(spec.is_global(layer) for layer in range(layers))
        self._global_cell, self._local_cell = cell * wide, cell * (layers - wide)
        self._window = spec.sliding_window or 0
        # Gate, up and their product, and four vectors of the residual's width, per token, in f32;
        # then the copy of the widest matrix input in the type that products take, f16 or 8 bits.
        self._layer = (3 * spec.intermediate + 4 * spec.hidden) * 4
        types = {each.type for each, _ in stored}
        self._copy = round(spec.intermediate * (2 if "F16" in types else 1.14))
        self._logits, self._last = (spec.vocab + 2 * spec.hidden) * 4, LAST_ROW_BYTES * spec.vocab
        merges = spec.family != "gemma3" and spec.vocab >= SMALLEST_WITH_MERGES
        per_token = TOKEN_BYTES + (MERGE_BYTES if merges else 0)
        self._tokenizer = VOCABULARY_BYTES + per_token * spec.vocab
        self._worker = WORKER_ANONYMOUS_BYTES + LAYER_ANONYMOUS_BYTES * layers

    def footprint(self, context: int, prompt_tokens: int, ubatch: int) -> Footprint:
        """With room for `context` tokens, after a prompt computed `ubatch` tokens at a time."""
        batch = min(ubatch, context)
        touched = min(batch, prompt_tokens)
        cells = padded(context)
        mask = 2 * cells  # f16
        return Footprint(
            weights_bytes=self.mapped,
            mapped_bytes=self.mapped,
            weights_in_use_bytes=self.in_use,
            repacked_bytes=self.repacked,
            kv_cache_bytes=self._global_cell * cells + self.local_kv_bytes(cells, batch),
            compute_bytes=(self._layer + self._copy + mask) * touched + self._last,
            compute_reserved_bytes=batch * max(self._logits, self._layer + mask),
            tokenizer_bytes=self._tokenizer,
            runtime_anonymous_bytes=self._worker,
            runtime_file_bytes=WORKER_FILE_BYTES,
        )

    def local_kv_bytes(self, cells: int, batch: int) -> int:
        """Keys and values of the layers with a window, which hold that window and one batch."""
        return self._local_cell * min(cells, padded(self._window + batch))


def padded(cells: int) -> int:
    """Cells as llama.cpp allocates them."""
    return -(-cells // CELL_STEP) * CELL_STEP
