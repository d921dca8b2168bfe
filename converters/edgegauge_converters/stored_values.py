"""What a format keeps of weights: the values that it would store for them, without a file.

    keep = stored_values("gguf")
    keep(matrix, "Q4_0")            # float32 of the same shape

They are bit for bit those that the converter of the format writes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgegauge.onnx_types import block_type
from edgegauge_converters import block_quantize, tflite_quantize
from edgegauge_converters.weights import row_slices

Floats = npt.NDArray[np.float32]
Kept = Callable[[Floats, str], Floats]
"""Gives a matrix as it is after storing it in a type."""


def stored_values(file_format: str) -> Kept:
    """The function of this format; MissingDependency where its packages are not installed."""
    make: dict[str, Callable[[], Kept]] = {
        "gguf": _gguf,
        "onnx": lambda: _onnx,
        "tflite": lambda: _tflite,
    }
    keep = make[file_format]()

    def in_slices(matrix: Floats, stored_type: str) -> Floats:
        if stored_type == "F32":
            return matrix
        made = np.empty_like(matrix)
        for start, stop in row_slices(*matrix.shape):
            made[start:stop] = keep(matrix[start:stop], stored_type)
        return made

    return in_slices


def _gguf() -> Kept:
    from gguf import GGMLQuantizationType, quants

    from edgegauge_converters.quantize import encoder

    encode = encoder()

    def keep(rows: Floats, stored_type: str) -> Floats:
        encoded = encode(rows, stored_type)
        made: Floats = quants.dequantize(encoded, GGMLQuantizationType[stored_type])
        return made

    return keep


def _onnx(rows: Floats, stored_type: str) -> Floats:
    blocks = block_type(stored_type)
    assert blocks is not None
    q, scales = block_quantize.quantize(rows, blocks.bits, blocks.block)
    return block_quantize.dequantize(q, scales, rows.shape[1])


def _tflite(rows: Floats, stored_type: str) -> Floats:
    scales = tflite_quantize.row_scales(rows, stored_type)
    encoded = tflite_quantize.encode(rows, scales, stored_type)
    return tflite_quantize.decode(encoded, scales, stored_type)
