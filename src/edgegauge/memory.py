"""The memory of a loaded candidate in its parts, whatever the runtime; `footprint.py` fills them.

Two kinds of memory are kept apart, because they end differently. *File-backed* pages belong to the
mapped model file: the kernel drops them without cost where nobody reads them again, and at the cost
of reading the file once per token where somebody does. *Anonymous* memory has no file behind it:
repacked weights, the key/value cache, buffers. A process whose anonymous memory does not fit is
killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor
from edgegauge.units import KIB

Outcome = Literal["fits", "thrashes", "out of memory"]
"""fits: all that is read again stays in memory; thrashes: weights are read from storage for every
token; out of memory: anonymous memory alone exceeds what there is."""

UBATCH = 512
"""Prompt tokens computed at once: llama.cpp's default, and that of our ONNX runtime."""

KV_ELEMENT_BYTES = {"gguf": 2, "onnx": 4, "tflite": 4}
"""Of a key or value: llama.cpp keeps f16, our ONNX and TFLite files f32."""

TOKENIZER_BYTES_PER_TOKEN = 630
"""Of a tokenizer.json with merges in the library `tokenizers`: 31 MB for 49,152 entries."""

READ_AROUND_BYTES = 64 * KIB
"""What Linux maps around a page of a file that is read (fault_around_bytes of mm/memory.c)."""


def cache_bytes(spec: ModelSpec, tokens: int, file_format: str) -> int:
    """Bytes of the keys and values of so many tokens; only llama.cpp forgets beyond a window."""
    element = KV_ELEMENT_BYTES[file_format]
    if file_format == "gguf":
        return round(spec.kv_cache_bytes(tokens, bytes_per_element=element))
    return 2 * spec.kv_heads * spec.head_dim * spec.executed_layers * tokens * element


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of a loaded candidate at the end of a prompt."""

    weights_bytes: int
    """The stored tensors."""
    mapped_bytes: int
    """Those of them whose pages stay in memory as long as nothing presses on it."""
    weights_in_use_bytes: int
    """Those of them that every generated token reads from the mapping."""
    repacked_bytes: int
    """A private copy of weights in the order that the processor's kernels want."""
    kv_cache_bytes: int
    compute_bytes: int
    """Buffers between operations, as far as a generation touches them."""
    compute_reserved_bytes: int
    """Address space reserved for them; in llama.cpp all of it is touched where every logit is
    wanted."""
    tokenizer_bytes: int
    """What turns text into tokens; a run on random tokens in ONNX Runtime or LiteRT has none."""
    runtime_anonymous_bytes: int
    """The worker: Python, NumPy, the runtime, and the runtime's own description of the model."""
    runtime_file_bytes: int
    loading_bytes: int = 0
    """Anonymous memory for a moment while loading, where that can exceed what stays."""

    @cached_property
    def anonymous_bytes(self) -> int:
        """Memory that cannot be dropped, at its highest."""
        stays = (
            self.repacked_bytes
            + self.kv_cache_bytes
            + self.compute_bytes
            + self.tokenizer_bytes
            + self.runtime_anonymous_bytes
        )
        return max(stays, self.loading_bytes)

    @property
    def file_bytes(self) -> int:
        """File-backed memory where nothing presses on it."""
        return self.mapped_bytes + self.runtime_file_bytes

    @property
    def peak_bytes(self) -> int:
        """Resident memory (anonymous and file-backed) where nothing presses on it."""
        return self.anonymous_bytes + self.file_bytes

    @cached_property
    def needed_bytes(self) -> int:
        """What must stay in memory to run at full speed: `peak_bytes` without pages that were
        read for repacking only, which the kernel drops for nothing."""
        return self.anonymous_bytes + self.weights_in_use_bytes + self.runtime_file_bytes

    def outcome(self, available_bytes: float) -> Outcome:
        """How this ends where one process may use `available_bytes`."""
        if self.anonymous_bytes > available_bytes:
            return "out of memory"
        return "fits" if self.needed_bytes <= available_bytes else "thrashes"


def looked_up(embedding_bytes: int, tokens: int) -> int:
    """Bytes of a mapped embedding that are in memory after so many tokens."""
    return min(embedding_bytes, tokens * READ_AROUND_BYTES)


def is_multiplied(spec: ModelSpec, stored: StoredTensor) -> bool:
    """Whether every token reads all of it: not so an embedding that is only looked up in."""
    return stored.tensor.role != "token_embd" or spec.tied
