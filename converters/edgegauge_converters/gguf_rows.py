"""Rows of a checkpoint as a GGUF file holds them: reordered, adjusted and encoded.

Two things differ from Hugging Face. llama.cpp rotates neighbouring pairs in the `llama`
architecture, so there the rows of each query and key head go from (first half, second half) to
interleaved. Gemma stores its norm weights less 1, and llama.cpp multiplies by them as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgegauge.gguf_header import tensor_name
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import StoredTensor
from edgegauge_converters.gguf_metadata import query_gain, rope_factors
from edgegauge_converters.quantize import Bytes, Encoder, check_finite
from edgegauge_converters.synthetic import SyntheticBlocks
from edgegauge_converters.weights import Checkpoint, widen

INTERLEAVED = ("attn_q", "attn_k", "attn_q_bias", "attn_k_bias")


class CheckpointRows:
    """Encoded rows out of a checkpoint."""

    def __init__(self, weights: Checkpoint, spec: ModelSpec, encode: Encoder) -> None:
        self._weights, self._spec, self._encode = weights, spec, encode

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Bytes:
        """Rows of one tensor in its stored type, uint8 (rows, bytes of a row).

        `start` and `stop` are multiples of `row_step`. Raises ConversionError if a value is not
        finite, or becomes so.
        """
        tensor = stored.tensor
        if tensor.role == "rope_freqs":
            return rope_factors(self._spec).view(np.uint8)
        bits = self._weights.bits(tensor, start, stop)
        if _is_interleaved(self._spec, tensor):
            bits = interleave(bits, self._spec.head_dim)
        dtype = self._weights.dtype(tensor)
        name = tensor_name(tensor)
        if dtype == stored.type == "F16":
            check_finite(bits, name)
            return bits.view(np.uint8)
        values = self._adjusted(widen(bits, dtype), tensor)
        check_finite(values, name)
        encoded = self._encode(values, stored.type)
        if stored.type == "F16":
            check_finite(encoded.view(np.float16), name)
        return encoded

    def _adjusted(self, values: npt.NDArray[np.float32], tensor: Tensor) -> npt.NDArray[np.float32]:
        if self._spec.family == "gemma3" and tensor.role.endswith("_norm"):
            values = values + np.float32(1)
            if tensor.role == "attn_q_norm":
                values *= np.float32(query_gain(self._spec))
        return values


class SyntheticRows:
    """Encoded rows at random, with the position factors of the spec."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        self._spec, self._blocks = spec, SyntheticBlocks(seed)

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Bytes:
        """Rows of tensor number `index`, uint8 (rows, bytes of a row)."""
        if stored.tensor.role == "rope_freqs":
            return rope_factors(self._spec).view(np.uint8)
        return self._blocks.rows(stored, index, start, stop)


def row_step(spec: ModelSpec, tensor: Tensor) -> int:
    """Rows that can only be converted together: a head where its rows are reordered, else 1."""
    return spec.head_dim if _is_interleaved(spec, tensor) and not tensor.is_vector else 1


def _is_interleaved(spec: ModelSpec, tensor: Tensor) -> bool:
    return spec.family == "llama" and tensor.role in INTERLEAVED


def interleave(heads: npt.NDArray[Any], head_dim: int) -> npt.NDArray[Any]:
    """Whole heads with row i and row i + head_dim / 2 of each made neighbours; a copy.

    A vector, (1, heads * head_dim), is reordered along its columns.
    """
    flat = heads.reshape(-1, 1) if len(heads) == 1 else heads
    halves = flat.reshape(-1, 2, head_dim // 2, flat.shape[1])
    return halves.swapaxes(1, 2).reshape(heads.shape)
