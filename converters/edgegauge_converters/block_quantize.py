"""Rows of float32 to integers of a few bits in blocks, each block with a scale: w = scale * q.

    q, scales = quantize(rows, bits=4, block=32)    # int8 (rows, padded cols), f32 (rows, blocks)
    rows = dequantize(q, scales, cols)

q is from -2**(bits-1) to 2**(bits-1) - 1 and there is no zero point, so a block's scale has the
sign that gives its largest value the longer side. The usual rule (largest value / 8) is one of
three scales that are tried; the one with the least squared error wins, refitted to the integers it
gave: the least-squares scale of w to q is w.q / q.q, which leaves an error of w.w - (w.q)**2 / q.q.
On normal values in blocks of 32 at 4 bits that leaves a root mean square of 0.082 of theirs,
against 0.086 of the usual rule and 0.097 of largest / 7.

Rows whose length is no multiple of the block are padded with zeros. No format's layout is known
here but the packing of two 4-bit integers into a byte, low half first, which all of them share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int8]

REACHES = {4: (0.9, 1.0, 1.1), 8: (1.0,)}
"""Bits: what the largest value of a block is tried at, as a share of the longest integer. Above 1
it is cut off, which costs it a little and gives all others a finer scale. At 8 bits the choice
changes the error by less than a hundredth."""

CHUNK_ELEMENTS = 2**16
"""Worked on at a time: with its temporaries it stays in a second-level cache."""

NEGLIGIBLE = 1e-30
"""A block whose largest value is below this is stored as zeros: its reciprocal would overflow."""


def quantize(rows: Floats, bits: int, block: int) -> tuple[Integers, Floats]:
    """Integers (rows, cols padded to blocks) and scales (rows, blocks) of finite values."""
    padded = _padded(rows, block)
    blocks = padded.reshape(-1, block)
    q = np.empty(blocks.shape, np.int8)
    scales = np.empty(len(blocks), np.float32)
    step = max(1, CHUNK_ELEMENTS // block)
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        _quantize(blocks[part], bits, q[part], scales[part])
    return q.reshape(padded.shape), scales.reshape(len(rows), -1)


def dequantize(q: Integers, scales: Floats, cols: int) -> Floats:
    """The values that integers and scales stand for, without the padding."""
    blocks = q.reshape(*scales.shape, -1).astype(np.float32)
    blocks *= scales[:, :, None]
    return blocks.reshape(len(q), -1)[:, :cols]


def pack_nibbles(q: Integers) -> npt.NDArray[np.uint8]:
    """Pairs of 4-bit integers (two's complement) along the last axis in a byte, low half first."""
    low, high = q[..., 0::2].view(np.uint8), q[..., 1::2].view(np.uint8)
    packed: npt.NDArray[np.uint8] = np.left_shift(high, 4, dtype=np.uint8)
    packed |= low & 15
    return packed


def unpack_nibbles(packed: npt.NDArray[np.uint8]) -> Integers:
    """The inverse of `pack_nibbles`."""
    q = np.empty((*packed.shape[:-1], packed.shape[-1] * 2), np.int8)
    q[..., 0::2] = (packed << 4).view(np.int8) >> 4
    q[..., 1::2] = packed.view(np.int8) >> 4
    return q


def _padded(rows: Floats, block: int) -> Floats:
    missing = -rows.shape[1] % block
    return np.pad(rows, ((0, 0), (0, missing))) if missing else np.ascontiguousarray(rows)


def _quantize(blocks: Floats, bits: int, q: Integers, scales: Floats) -> None:
    """Fill `q` and `scales` with the best of the scales tried for each block."""
    longest = 2.0 ** (bits - 1)
    largest = _largest(blocks)
    usable = np.abs(largest) > NEGLIGIBLE
    reciprocal = np.divide(-longest, largest, out=np.zeros_like(largest), where=usable)
    best = np.full(len(blocks), -1, np.float32)
    rounded = np.empty_like(blocks)
    for reach in REACHES[bits]:
        np.multiply(blocks, (reciprocal * np.float32(reach))[:, None], out=rounded)
        np.rint(rounded, out=rounded)
        np.clip(rounded, -longest, longest - 1, out=rounded)
        product, square = _dot(blocks, rounded), _dot(rounded, rounded)
        scale = np.divide(product, square, out=np.zeros_like(product), where=square > 0)
        gain = product * scale
        better = gain > best
        best[better] = gain[better]
        scales[better] = scale[better]
        if better.all():
            q[:] = rounded
        else:
            q[better] = rounded[better]


def _largest(blocks: Floats) -> Floats:
    """The value of largest size in each block, with its sign."""
    columns = np.ascontiguousarray(blocks.T)  # reducing short rows takes four times as long
    high, low = columns.max(0), columns.min(0)
    found: Floats = np.where(high > -low, high, low)
    return found


def _dot(a: Floats, b: Floats) -> Any:
    return np.einsum("nk,nk->n", a, b)
