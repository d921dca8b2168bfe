"""How runtimes round what their operations read, laid over the exact reference.

    Reference(spec, weights).values(tokens, rounded("int8/32"))

A runtime is not wrong because it computes in fewer bits than the reference, and how much that moves
the logits depends on the model: some amplify a rounding tenfold. So the reference is run a second
time with the roundings that the runtime makes, and the size of the difference says what to allow.

    exact            float32 everywhere
    half             products, attention and gates read half precision, as llama.cpp's cache and
                     f16 products do
    half+int8/32     likewise, and products read 8-bit integers in blocks of 32 with a scale each
                     (llama.cpp's q8_0 and its like); half+int8/256 for k-quants
    int8/32          products read such integers, all else is exact (ONNX Runtime's MatMulNBits)
    int8/row         products read 8-bit integers with one scale for a row (XNNPACK)

On random models of every family, llama.cpp departs from the exact reference by 0.43 to 1.06 times
what this predicts, for each of the five recipes.
"""

from __future__ import annotations

import numpy as np

from edgegauge_converters.blueprint import Attention, Gate, Linear, Operation
from edgegauge_converters.reference import Array, Rounding

LARGEST_HALF = 65504.0


def rounded(kind: str) -> Rounding:
    """The rounding of this name; ValueError for another."""
    if kind == "exact":
        return lambda operation, inputs: inputs
    if kind == "half":
        return _half
    name, _, size = kind.partition("/")
    if name not in ("int8", "half+int8"):
        raise ValueError(f"unknown rounding {kind!r}")
    block = 0 if size == "row" else int(size)

    def integers(operation: Operation, inputs: list[Array]) -> list[Array]:
        if isinstance(operation, Linear):
            return [_int8(x, block) for x in inputs]
        return _half(operation, inputs) if name != "int8" else inputs

    return integers


def _half(operation: Operation, inputs: list[Array]) -> list[Array]:
    if not isinstance(operation, Linear | Attention | Gate):
        return inputs
    limited = (np.clip(x, -LARGEST_HALF, LARGEST_HALF) for x in inputs)
    return [x.astype(np.float16).astype(x.dtype) for x in limited]


def _int8(x: Array, block: int) -> Array:
    """Each row to 127 steps either side, with a scale for each block, or for the row (0)."""
    size = block or x.shape[1]
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % size))).reshape(len(x), -1, size)
    scale = np.abs(padded).max(axis=2, keepdims=True) / 127
    steps = np.rint(np.divide(padded, scale, out=np.zeros_like(padded), where=scale > 0))
    whole: Array = (steps * scale).reshape(len(x), -1)[:, : x.shape[1]]
    return whole
