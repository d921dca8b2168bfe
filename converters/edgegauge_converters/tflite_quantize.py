"""Rows of float32 to the integers of TFLite, and back: w = scale * q, without a zero point.

    scales = row_scales(rows, "INT8")              # float32, one per row
    packed = encode(rows, scales, "INT8")          # the bytes that the file holds
    rows = decode(packed, scales, "INT8", cols)

Types: F32; INT8 and INT4 with a float32 scale for each row; INT4/32, INT4/64 and INT4/128 with a
float16 scale for each block of so many along a row. Integers are symmetric (-127 to 127, -7 to 7),
as XNNPACK multiplies them; two 4-bit integers share a byte, low half first. A scale is chosen
before the integers, so that the scales of a file can be known before its weights are written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgegauge_converters.block_quantize import pack_nibbles, unpack_nibbles

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

REACHES = (1.0, 0.92, 0.84)
"""What the longest integer stands for, as a share of the largest value: at 4 bits cutting it off
gives all others a finer scale. The share with the least squared error wins."""

NEGLIGIBLE = np.float32(1e-30)
"""The smallest scale of a row."""

SMALLEST_HALF = np.float32(2**-14)
"""The smallest scale of a block, which is the smallest normal float16."""


def bits_of(type: str) -> int:
    """Bits of one integer of a stored type."""
    return {"F32": 32, "INT8": 8, "INT4": 4}[type.partition("/")[0]]


def block_of(type: str) -> int:
    """Elements with one scale along a row; 0 where a row has one scale."""
    return int(type.partition("/")[2] or 0)


def row_scales(rows: Floats, type: str) -> Any:
    """The scales of finite rows: float32 (rows,), or float16 (rows, blocks)."""
    block = block_of(type)
    longest = np.float32(2 ** (bits_of(type) - 1) - 1)
    groups = rows.reshape(-1, block or rows.shape[1])
    largest = np.maximum(groups.max(1), -groups.min(1))
    if bits_of(type) == 4:
        largest = _best_reach(groups, largest, longest)
    if block:
        return _half(largest / longest).reshape(len(rows), -1)
    return np.maximum(largest / longest, NEGLIGIBLE)


def encode(rows: Floats, scales: Any, type: str) -> Bytes:
    """The stored bytes of these rows, uint8 (rows, bytes of a row)."""
    if type == "F32":
        return np.ascontiguousarray(rows, "<f4").view(np.uint8)
    block = block_of(type)
    longest = 2 ** (bits_of(type) - 1) - 1
    factors = np.float32(1) / scales.astype(np.float32)
    groups = rows.reshape(-1, block or rows.shape[1])
    scaled = groups * factors.reshape(-1, 1)
    np.rint(scaled, out=scaled)
    np.clip(scaled, -longest, longest, out=scaled)
    q = scaled.astype(np.int8).reshape(len(rows), -1)
    return q.view(np.uint8) if bits_of(type) == 8 else pack_nibbles(q)


def decode(packed: Bytes, scales: Any, type: str) -> Floats:
    """The float32 values that stored bytes (rows, bytes of a row) stand for."""
    if type == "F32":
        return packed.view("<f4")
    q = packed.view(np.int8) if bits_of(type) == 8 else unpack_nibbles(packed)
    groups = q.reshape(-1, block_of(type) or q.shape[1]).astype(np.float32)
    groups *= scales.astype(np.float32).reshape(-1, 1)
    return groups.reshape(q.shape)


def _half(scales: Floats) -> Any:
    """Scales as float16 that are bfloat16 too, as XNNPACK turns the one into the other."""
    bits = np.maximum(scales, SMALLEST_HALF).view(np.uint32) + np.uint32(2**15)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float16)


def rounded(x: Any) -> Any:
    """`x` (rows, cols) as 8-bit integers stand for it, each row with its own scale and zero point.

    As `xnn_f32_qd8_asymmetric_quantization_params` of XNNPACK chooses them: the range of the row,
    widened to hold 0, on 255 steps, and the zero point from the end that is rounded less.
    """
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    high = np.maximum(x.max(axis=-1, keepdims=True), 0)
    span = high - low
    inverse = np.divide(255, span, out=np.ones_like(span), where=span > 0)
    low, high = low * inverse, high * inverse
    zero = np.where(low - 128 + high + 127 > 0, -128 - low, 127 - high)
    zero = np.rint(np.clip(zero, -128, 127))
    q = np.clip(np.rint(x * inverse) + zero, -128, 127)
    return ((q - zero) / inverse).astype(x.dtype)


def _best_reach(groups: Floats, largest: Floats, longest: np.float32) -> Floats:
    """The largest value of each group that is worth standing for."""
    best = np.full(len(groups), np.inf, np.float32)
    chosen = largest.copy()
    for reach in REACHES:
        scale = np.maximum(largest * np.float32(reach) / longest, NEGLIGIBLE)[:, None]
        q = np.rint(groups / scale)
        np.clip(q, -longest, longest, out=q)
        q *= scale
        q -= groups
        error = np.einsum("nk,nk->n", q, q)
        better = error < best
        best[better] = error[better]
        chosen[better] = largest[better] * np.float32(reach)
    return chosen
