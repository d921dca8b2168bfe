"""What runtimes round, laid over the exact reference: the arithmetic that they really do.

    Reference(spec, weights).values(tokens, runtime_rounding("gguf", types.__getitem__))

A runtime is not wrong because it computes in fewer bits than the reference. A product with
quantised weights first turns what it reads into 8-bit integers, and how far that moves the logits
depends on the model: some amplify a rounding tenfold. So the reference is run with the same
roundings too. From equal inputs it then gives a runtime's values, but for the order of additions.

    gguf     k-quants: integers with a float scale for 256 (`quantize_row_q8_K` of ggml); other
             quantised types: with a half-precision scale for 32 (`quantize_row_q8_0`); f16: half
             floats. Keys and values are cached, and GELU is looked up, in half floats.
    onnx     integers with a float scale for each of the weights' blocks (`QuantizeARow_CompInt8` of
             MLAS, which MatMulNBits of accuracy level 4 calls)
    tflite   integers with a scale and a zero point for each row (XNNPACK)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgegauge.model import Tensor
from edgegauge_converters import tflite_quantize
from edgegauge_converters.blueprint import Attention, Gate, Linear
from edgegauge_converters.encoder_blueprint import Attend, Gelu
from edgegauge_converters.reference import Array

LARGEST_HALF = 65504.0
SMALL_BLOCK, LARGE_BLOCK = 32, 256
"""Elements with one scale: `block_q8_0` and `block_q8_K` of ggml."""


AnyRounding = Callable[[Any, list[Array]], list[Array]]
"""A `Rounding` of decoders and of encoders."""


def runtime_rounding(file_format: str, type_of: Callable[[Tensor], str]) -> AnyRounding:
    """How the runtime of this format rounds, where `type_of` gives the stored type of weights."""
    read = {"gguf": _of_ggml, "onnx": _of_matmulnbits, "tflite": _of_xnnpack}[file_format]

    def rounded(operation: Any, inputs: list[Array]) -> list[Array]:
        if isinstance(operation, Linear):
            return [read(x, type_of(operation.weight)) for x in inputs]
        return _around_products(operation, inputs) if file_format == "gguf" else inputs

    return rounded


def _around_products(operation: Any, inputs: list[Array]) -> list[Array]:
    """What ggml rounds outside of products."""
    if isinstance(operation, Attention | Attend):
        return [inputs[0], _half(inputs[1]), _half(inputs[2])]
    if isinstance(operation, Gelu) or (
        isinstance(operation, Gate) and operation.activation == "gelu_tanh"
    ):
        return [_half(inputs[0]), *inputs[1:]]
    return inputs


def _of_matmulnbits(x: Array, stored_type: str) -> Array:
    block = stored_type.partition("/")[2]  # INT4/32
    return _int8(x, int(block)) if block else x


def _of_xnnpack(x: Array, stored_type: str) -> Array:
    rounded: Array = x if stored_type == "F32" else tflite_quantize.rounded(x)
    return rounded


def _of_ggml(x: Array, stored_type: str) -> Array:
    if stored_type == "F32":
        return x
    if stored_type in ("F16", "BF16"):
        return _half(x)
    if stored_type.endswith("_K"):
        return _int8(x, LARGE_BLOCK)
    return _int8(x, SMALL_BLOCK, half_scales=True)


def _half(x: Array) -> Array:
    made: Array = np.clip(x, -LARGEST_HALF, LARGEST_HALF).astype(np.float16).astype(x.dtype)
    return made


def _int8(x: Array, block: int, *, half_scales: bool = False) -> Array:
    """Each block of a row to 127 steps either side of zero; the last block may be shorter."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % block))).reshape(len(x), -1, block)
    largest = np.abs(padded).max(axis=2, keepdims=True)
    factor = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0)
    scale = largest / 127
    steps = np.rint(padded * factor) * (_half(scale) if half_scales else scale)
    whole: Array = steps.reshape(len(x), -1)[:, : x.shape[1]]
    return whole
