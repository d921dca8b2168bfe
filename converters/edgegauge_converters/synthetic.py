"""Synthetic weights: random blocks of a GGUF type, without a pass over float32.

    blocks = SyntheticBlocks(seed)
    blocks.rows(stored, start, stop)      # uint8 (rows, bytes of a row)

Every stored integer is uniform over its range; the scales are such that a row has a variance of
1 / cols, so a product with a normalised vector stays near 1 and logits stay finite. The same seed
gives the same bytes on every machine and with any number of threads. Such an artifact has the size
and speed of the real one, because no kernel's time depends on the values, and its answers mean
nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgegauge.recipe import BLOCKS, StoredTensor
from edgegauge_converters.quantize import row_bytes

Bytes = npt.NDArray[np.uint8]

POOL_BYTES = 2**22
"""Random bytes drawn once; every slice is the pool with another 64-bit pattern laid over it."""

K_SCALE = 32
"""The 6-bit scale and minimum of every sub-block of a k-quant."""

Q6_SCALE = 8


class SyntheticBlocks:
    """A source of random rows in any stored type."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        drawn = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, POOL_BYTES // 8, "u8")
        self._pool = drawn.astype("<u8")

    def rows(self, stored: StoredTensor, index: int, start: int, stop: int) -> Bytes:
        """Rows of tensor number `index`: norms 1, biases 0, matrices random."""
        tensor = stored.tensor
        if tensor.is_vector:
            value = 0 if tensor.role.endswith("_bias") else 1
            return np.full((stop - start, tensor.cols), value, "<f4").view(np.uint8)
        raw = self.bytes((stop - start) * row_bytes(tensor.cols, stored.type), index, start)
        if stored.type in ("F32", "F16"):
            _bound(raw, stored.type, tensor.cols)
        else:
            _scale(raw.reshape(-1, BLOCKS[stored.type][1]), stored.type, tensor.cols)
        return raw.reshape(stop - start, -1)

    def bytes(self, size: int, index: int, start: int) -> Bytes:
        """Random bytes that depend on the seed and these numbers alone."""
        words = -(-size // 8)
        overlay = np.random.SFC64([self._seed, index, start]).random_raw()
        made = np.resize(self._pool, words)
        for part in range(0, words, self._pool.size):
            made[part : part + self._pool.size] ^= np.uint64(overlay)
            overlay = (overlay * 0x9E3779B97F4A7C15 + 1) % 2**64
        return made.view(np.uint8)[:size]


def _bound(raw: Bytes, stored_type: str, cols: int) -> None:
    """Turn random bits into floats of one exponent: sign and mantissa stay random."""
    # A mantissa uniform in [1, 2) has a root mean square of 1.53.
    exponent = round(math.log2(1 / math.sqrt(cols) / 1.53))
    if stored_type == "F16":
        half = raw.view("<u2")
        half &= 0x83FF
        half |= max(exponent + 15, 1) << 10
    else:
        single = raw.view("<u4")
        single &= 0x807FFFFF
        single |= (exponent + 127) << 23


def _scale(blocks: Bytes, stored_type: str, cols: int) -> None:
    """Write the scales of these blocks over their random bytes.

    Layouts: `block_q4_0` and so on in llama.cpp's `ggml/src/ggml-common.h`. Integers uniform over
    2**n values have a standard deviation of sqrt((4**n - 1) / 12).
    """
    levels = {"Q4_0": 16, "Q5_0": 32, "Q5_1": 32, "Q8_0": 256, "Q4_K": 16, "Q5_K": 32, "Q6_K": 64}
    count = levels[stored_type]
    step = 1 / math.sqrt(cols) / math.sqrt((count**2 - 1) / 12)
    if stored_type == "Q6_K":
        blocks[:, 192:208] = Q6_SCALE
        blocks[:, 208:210] = _half(step / Q6_SCALE)
    elif stored_type in ("Q4_K", "Q5_K"):
        blocks[:, 0:2] = _half(step / K_SCALE)
        blocks[:, 2:4] = _half(step / K_SCALE * (count - 1) / 2)
        blocks[:, 4:12] = (K_SCALE & 63) | (K_SCALE >> 4) << 6
        blocks[:, 12:16] = (K_SCALE & 15) | (K_SCALE & 15) << 4
    else:
        blocks[:, 0:2] = _half(step)
        if stored_type == "Q5_1":
            blocks[:, 2:4] = _half(-step * (count - 1) / 2)


def _half(value: float) -> Bytes:
    return np.array([value], "<f2").view(np.uint8)
