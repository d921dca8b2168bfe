"""Rows of weights as an ONNX file holds them: bytes of floats, or of integers with their scales.

MatMulNBits and GatherBlockQuantized take integers without a sign around 2**(bits-1): that is two's
complement with the highest bit turned over, two of 4 bits in a byte, low half first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgegauge.errors import InputError
from edgegauge.gguf_header import tensor_name
from edgegauge.model import Tensor
from edgegauge.onnx_types import block_type
from edgegauge.recipe import StoredTensor
from edgegauge_converters.block_quantize import (
    dequantize,
    pack_nibbles,
    quantize,
    unpack_nibbles,
)
from edgegauge_converters.onnx_file import FLOAT, Initializer, initializers
from edgegauge_converters.onnx_layout import plan
from edgegauge_converters.plain_rows import PlainRows
from edgegauge_converters.quantize import check_finite
from edgegauge_converters.synthetic import SyntheticBlocks

Bytes = npt.NDArray[np.uint8]
TURNED = {4: 0x88, 8: 0x80}
"""Bits: what turns over the highest bit of every integer in a byte."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Some rows of a tensor: `values` (rows, bytes of a row), and `scales` (rows, blocks)."""

    values: Bytes
    scales: npt.NDArray[np.float32] | None = None


class RowSource(Protocol):
    """Where encoded rows come from; called from several threads."""

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Encoded:
        """Rows `start` to `stop` of tensor number `index`."""


class CheckpointRows:
    """Encoded rows of a checkpoint."""

    def __init__(self, plain: PlainRows) -> None:
        self._plain = plain

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Encoded:
        """Rows in their stored type; ConversionError where a value is not finite."""
        values = self._plain.rows(stored.tensor, start, stop)
        check_finite(values, tensor_name(stored.tensor))
        return encode(values, stored.type)


def encode(values: npt.NDArray[np.float32], stored_type: str) -> Encoded:
    """These rows in a stored type."""
    blocks = block_type(stored_type)
    if blocks is None:
        return Encoded(np.ascontiguousarray(values).view(np.uint8))
    q, scales = quantize(values, blocks.bits, blocks.block)
    packed = pack_nibbles(q) if blocks.bits == 4 else q.view(np.uint8)
    packed ^= np.uint8(TURNED[blocks.bits])
    return Encoded(packed, scales)


class SyntheticRows:
    """Encoded rows at random: uniform integers, and scales for a variance of 1/cols."""

    def __init__(self, seed: int = 0) -> None:
        self._random = SyntheticBlocks(seed)

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Encoded:
        """Rows of tensor number `index`: norms 1, biases 0, matrices random."""
        blocks = block_type(stored.type)
        if blocks is None:
            return Encoded(self._random.rows(stored, index, start, stop))
        count, cols = stop - start, stored.tensor.cols
        size = blocks.blocks(cols) * blocks.block_bytes
        values = self._random.bytes(count * size, index, start).reshape(count, size)
        step = 1 / math.sqrt(cols) / math.sqrt((4**blocks.bits - 1) / 12)
        return Encoded(values, np.full((count, blocks.blocks(cols)), step, np.float32))


class OnnxWeights:
    """Callable from a tensor of the spec to the float32 values that an ONNX file stores for it.

    `Reference(spec, OnnxWeights(path, stored))` computes what this very file should compute. The
    weights' file stays memory-mapped.
    """

    def __init__(self, path: Path, stored: list[StoredTensor]) -> None:
        self._path = path
        self._found = initializers(path)
        self._layout = plan(stored)
        data = path.with_name(path.name + ".data")
        try:
            self._data: Any = np.memmap(data, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {data}: {error}") from None

    def __call__(self, tensor: Tensor) -> npt.NDArray[np.float32]:
        """The values, (rows, cols) or (cols,); InputError if the file has no such tensor."""
        group = self._layout.place(tensor)
        first = 0
        for member in group.members:
            if member.tensor == tensor:
                break
            first += member.tensor.cols if tensor.is_vector else member.tensor.rows
        rows = slice(first, first + (tensor.cols if tensor.is_vector else tensor.rows))
        # An embedding that is no head as well is only looked up in.
        name = group.name if group.name in self._found else f"{group.name}.rows"
        values: npt.NDArray[Any] = self._array(name)[rows]
        if group.blocks is None:
            return values
        integers = values.reshape(len(values), -1) ^ np.uint8(TURNED[group.blocks.bits])
        q = unpack_nibbles(integers) if group.blocks.bits == 4 else integers.view(np.int8)
        return dequantize(q, self._array(f"{group.name}.scales")[rows], tensor.cols)

    def _array(self, name: str) -> Any:
        found = self._found.get(name)
        if found is None or found.raw is not None or found.type not in (FLOAT, 2):
            raise InputError(f"no weights {name} @ {self._path}")
        return self._cut(found)

    def _cut(self, found: Initializer) -> Any:
        piece = self._data[found.offset : found.offset + found.bytes]
        if len(piece) != found.bytes:
            raise InputError(f"{found.name} goes beyond the end of the weights of {self._path}")
        return piece.view(np.float32 if found.type == FLOAT else np.uint8).reshape(found.shape)
