"""Footprint: how much memory a candidate takes in llama.cpp, and of which kind.

    needs = footprint(spec, "q4_0", features=["avx2"], context=512, prompt_tokens=128)
    needs.peak_bytes                     # resident memory at its highest
    needs.outcome(profile.app_memory_bytes)

Two kinds of memory are kept apart, because they end differently. *File-backed* pages belong to the
mapped model file: the kernel drops them without cost where nobody reads them again, and at the cost
of reading the file once per token where somebody does. *Anonymous* memory has no file behind it:
repacked weights, the key/value cache, buffers. A process whose anonymous memory does not fit is
killed.

How llama.cpp 0.3.36 (as llama-cpp-python packages it) lays memory out was read in its sources,
`ggml/src/ggml-cpu/repack.cpp`, `src/llama-model-loader.cpp` and `src/llama-kv-cache*.cpp`, and
compared with the buffer sizes it logs and with /proc/self/status while it runs
(tests/test_footprint.py; docs/explanation/prediction.md states the errors).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor, stored_tensors
from edgegauge.units import MB

Outcome = Literal["fits", "thrashes", "out of memory"]
"""fits: all that is read again stays in memory; thrashes: weights are read from storage for every
token; out of memory: anonymous memory alone exceeds what there is."""

UBATCH = 512
"""Prompt tokens computed at once: llama.cpp's default."""

CELL_STEP = 256
"""llama.cpp rounds the key/value cells of a context up to a multiple of this."""

WORKER_ANONYMOUS_BYTES = 27 * MB
WORKER_FILE_BYTES = 23 * MB
"""What edgegauge's own worker holds beside the model: Python 3.11, NumPy and llama.cpp's libraries,
measured on x86-64 Linux (24.3 and 20.8 MB before loading, 2.5 and 2.0 MB more after)."""

BPE_BYTES_PER_TOKEN = 320
UNIGRAM_BYTES_PER_TOKEN = 160
"""Tokenizer tables per vocabulary entry, with and without a merge list: measured as the memory that
loading adds beyond the logged buffers, vocabularies of 32,000 to 262,144."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of a loaded candidate at the end of a prompt."""

    weights_bytes: int
    """The mapped tensors; all of them are read once while loading."""
    weights_in_use_bytes: int
    """Those of them that every generated token reads from the mapping."""
    repacked_bytes: int
    """A private copy of weights in the order that the processor's kernels want."""
    kv_cache_bytes: int
    compute_bytes: int
    """Buffers between operations, as far as a generation touches them."""
    compute_reserved_bytes: int
    """Address space reserved for them; all of it is touched where every logit is wanted."""
    tokenizer_bytes: int
    runtime_anonymous_bytes: int = WORKER_ANONYMOUS_BYTES
    runtime_file_bytes: int = WORKER_FILE_BYTES

    @property
    def anonymous_bytes(self) -> int:
        """Memory that cannot be dropped."""
        return (
            self.repacked_bytes
            + self.kv_cache_bytes
            + self.compute_bytes
            + self.tokenizer_bytes
            + self.runtime_anonymous_bytes
        )

    @property
    def file_bytes(self) -> int:
        """File-backed memory where nothing presses on it."""
        return self.weights_bytes + self.runtime_file_bytes

    @property
    def peak_bytes(self) -> int:
        """Resident memory (anonymous and file-backed) where nothing presses on it."""
        return self.anonymous_bytes + self.file_bytes

    @property
    def needed_bytes(self) -> int:
        """What must stay in memory to run at full speed: `peak_bytes` without pages that were
        read for repacking only, which the kernel drops for nothing."""
        return self.anonymous_bytes + self.weights_in_use_bytes + self.runtime_file_bytes

    def outcome(self, available_bytes: float) -> Outcome:
        """How this ends where one process may use `available_bytes`."""
        if self.anonymous_bytes > available_bytes:
            return "out of memory"
        return "fits" if self.needed_bytes <= available_bytes else "thrashes"


def footprint(
    spec: ModelSpec,
    recipe: str,
    *,
    features: Iterable[str],
    context: int,
    prompt_tokens: int,
    ubatch: int = UBATCH,
) -> Footprint:
    """The footprint of a GGUF candidate on a processor with these instruction-set features.

    `context` is the room asked for and `prompt_tokens` the longest prompt, both in tokens.
    """
    weights, in_use, repacked = _weights(spec, recipe, instruction_set(features))
    batch = min(ubatch, context)
    cells = _padded(context)
    touched = min(batch, prompt_tokens)
    # Gate, up and their product, and four vectors of the residual's width, per token, in f32;
    # then the quantised copy of the widest matrix input, and the attention mask in f16.
    layer = (3 * spec.intermediate + 4 * spec.hidden) * 4
    work = round(spec.intermediate * (2 if recipe == "f16" else 1.14))
    logits = (spec.vocab + 2 * spec.hidden) * 4
    merges = spec.family != "gemma3"
    return Footprint(
        weights_bytes=weights,
        weights_in_use_bytes=in_use,
        repacked_bytes=repacked,
        kv_cache_bytes=_kv_bytes(spec, cells, batch),
        compute_bytes=(layer + work + 2 * cells) * touched + 2 * 4 * spec.vocab,
        compute_reserved_bytes=max(logits * batch, (layer + 2 * cells) * batch),
        tokenizer_bytes=spec.vocab * (BPE_BYTES_PER_TOKEN if merges else UNIGRAM_BYTES_PER_TOKEN),
    )


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
    "avx2": {"Q4_0": 8, "Q4_K": 8},
    "i8mm": {"Q4_0": 4, "Q8_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8},
    "dotprod": {"Q4_0": 4, "Q8_0": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8},
    "plain": {},
}
"""Kernel set: weight type it repacks -> what the number of rows must be a multiple of.
From ggml_repack_get_optimal_repack_type in ggml/src/ggml-cpu/repack.cpp."""


def is_repacked(stored: StoredTensor, isa: InstructionSet) -> bool:
    """Whether llama.cpp copies this matrix into the kernels' own order."""
    step = _REPACKED_ROWS[isa].get(stored.type)
    return step is not None and stored.tensor.rows % step == 0


@lru_cache(maxsize=1024)
def inventory(spec: ModelSpec, recipe: str) -> tuple[tuple[StoredTensor, int], ...]:
    """The stored tensors of a candidate, those equal in role, shape and type once with a count."""
    found: dict[tuple[str, str], list[StoredTensor]] = {}
    for stored in stored_tensors(spec, recipe):
        found.setdefault((stored.tensor.role, stored.type), []).append(stored)
    return tuple((group[0], len(group)) for group in found.values())


def is_multiplied(spec: ModelSpec, stored: StoredTensor) -> bool:
    """Whether every token reads all of it: not so an embedding that is only looked up in."""
    return stored.tensor.role != "token_embd" or spec.tied


def _weights(spec: ModelSpec, recipe: str, isa: InstructionSet) -> tuple[int, int, int]:
    """Bytes mapped, read from the mapping by every token, and repacked."""
    mapped = in_use = repacked = 0
    for stored, count in inventory(spec, recipe):
        size = count * stored.bytes
        mapped += size
        if not is_multiplied(spec, stored):
            continue
        if not stored.tensor.is_vector and is_repacked(stored, isa):
            repacked += size
        else:
            in_use += size
    return mapped, in_use, repacked


def _kv_bytes(spec: ModelSpec, cells: int, batch: int) -> int:
    """Bytes of the key/value cache in f16; a local layer holds its window and one batch."""
    local = min(cells, _padded((spec.sliding_window or 0) + batch))
    per_cell = 2 * spec.kv_heads * spec.head_dim * 2
    layers = range(spec.executed_layers)
    return sum(per_cell * (cells if spec.is_global(layer) else local) for layer in layers)


def _padded(cells: int) -> int:
    return -(-cells // CELL_STEP) * CELL_STEP
