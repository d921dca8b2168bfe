"""Weights as `Reference` takes them, from a checkpoint or from a GGUF file.

    Reference(spec, checkpoint_weights(checkpoint, spec))     # what the model should compute
    Reference(spec, GgufWeights(path, spec))                  # what this very file should compute

The second computes with exactly the numbers that are stored, so that a runtime can be compared
with the arithmetic it should do, apart from what quantisation cost. Both give the blueprint's plain
form: Gemma's checkpoints store norms as factor - 1; llama.cpp's `llama` architecture wants the rows
of queries and keys interleaved by pairs, and a query scale it does not know is in the query norm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.gguf_reader import read_header
from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.gguf_metadata import query_gain
from edgegauge_converters.gguf_rows import INTERLEAVED
from edgegauge_converters.weights import Checkpoint

Floats = NDArray[Any]


def checkpoint_weights(checkpoint: Checkpoint, spec: ModelSpec) -> Callable[[Tensor], Floats]:
    """The float32 values of each tensor of an open checkpoint."""
    norm_offset = 1.0 if spec.family == "gemma3" else 0.0

    def weight(tensor: Tensor) -> Floats:
        values = checkpoint.rows(_executed(tensor, spec), 0, tensor.rows)
        if tensor.role.endswith("_norm"):
            values += norm_offset
        return values.reshape(_shape(tensor))

    return weight


class GgufWeights:
    """Callable from a tensor of the spec to its float32 values; the file stays memory-mapped."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self._spec = spec
        self._path = path
        try:
            self._header = read_header(path)
            self._data: Any = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError, InputError) as error:
            raise InputError(f"cannot read {path} as GGUF: {error}") from None
        self._interleaved = self._header.metadata.get("general.architecture") == "llama"

    def __call__(self, tensor: Tensor) -> Floats:
        """The values, (rows, cols) or (cols,); InputError if the file has no such tensor."""
        name = tensor_name(_executed(tensor, self._spec))
        if name not in self._header.tensors:
            raise InputError(f"no tensor {name} @ {self._path}")
        stored = self._header.tensors[name]
        if stored.elements != tensor.elements:
            raise InputError(
                f"{name} has {stored.elements} elements, the model {tensor.elements} @ {self._path}"
            )
        start = self._header.data_offset + stored.offset
        raw = self._data[start : start + stored.bytes].reshape(tensor.rows, -1)
        kind = gguf.GGMLQuantizationType[stored.type]
        values: Floats = gguf.quants.dequantize(raw, kind).reshape(_shape(tensor))
        if self._interleaved and tensor.role in INTERLEAVED:
            values = _halves(values, self._spec.head_dim)
        if tensor.role == "attn_q_norm":
            values = values / query_gain(self._spec)
        return values.astype(np.float32, copy=False)


def _executed(tensor: Tensor, spec: ModelSpec) -> Tensor:
    """The same tensor by the number of its block's first execution, as names count them."""
    layer = None if tensor.layer is None else tensor.layer * spec.layer_repeats
    return replace(tensor, layer=layer)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)


def _halves(values: Floats, head_dim: int) -> Floats:
    """Rows of each head from (pair, member) to (member, pair) order."""
    width = values.shape[1] if values.ndim == 2 else 1
    heads = values.reshape(-1, head_dim // 2, 2, width)
    return heads.swapaxes(1, 2).reshape(values.shape)
