"""Block quantisation: small errors, exact round trips, no surprise for odd values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegauge_converters import block_quantize
from edgegauge_converters.block_quantize import (
    dequantize,
    pack_nibbles,
    quantize,
    unpack_nibbles,
)


def error(rows: np.ndarray, bits: int, block: int) -> float:
    """Root mean square error in units of the values' own."""
    q, scales = quantize(rows, bits, block)
    made = dequantize(q, scales, rows.shape[1])
    return float(np.sqrt(np.mean(np.square(made - rows)) / np.mean(np.square(rows))))


def usual_error(rows: np.ndarray, bits: int, block: int) -> float:
    """The same of the usual rule: the block's largest value at the longest integer."""
    blocks = rows.reshape(-1, block).astype(np.float64)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = largest / -(2.0 ** (bits - 1))
    q = np.clip(np.rint(blocks / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return float(np.sqrt(np.mean(np.square(q * scale - blocks)) / np.mean(np.square(blocks))))


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 128), (8, 32)])
def test_the_search_is_better_than_the_usual_rule(bits: int, block: int, heavy: bool) -> None:
    generator = np.random.RandomState(3)
    drawn = generator.standard_t(4, (64, 1024)) if heavy else generator.standard_normal((64, 1024))
    rows = drawn.astype(np.float32)
    ours, usual = error(rows, bits, block), usual_error(rows, bits, block)
    assert ours < (0.97 if bits == 4 else 0.999) * usual


def test_the_error_at_four_bits_is_what_the_module_states() -> None:
    rows = np.random.RandomState(0).standard_normal((500, 512)).astype(np.float32)
    assert error(rows, 4, 32) == pytest.approx(0.082, abs=0.0005)
    assert usual_error(rows, 4, 32) == pytest.approx(0.086, abs=0.0005)


def test_a_scale_is_the_least_squares_one() -> None:
    rows = np.random.RandomState(1).standard_normal((8, 64)).astype(np.float32)
    q, scales = quantize(rows, 4, 32)
    blocks, integers = rows.reshape(-1, 32), q.reshape(-1, 32).astype(np.float32)
    best = (blocks * integers).sum(1) / (integers * integers).sum(1)
    assert np.allclose(scales.ravel(), best, rtol=1e-5)


@given(
    rows=st.integers(1, 4),
    cols=st.integers(1, 130),
    bits=st.sampled_from([4, 8]),
    block=st.sampled_from([16, 32, 64]),
    size=st.floats(1e-25, 1e18),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_value_is_within_a_step_of_its_own(
    rows: int, cols: int, bits: int, block: int, size: float, seed: int
) -> None:
    values = (size * np.random.RandomState(seed).uniform(-1, 1, (rows, cols))).astype(np.float32)
    q, scales = quantize(values, bits, block)
    assert q.shape == (rows, -(-cols // block) * block) and q.dtype == np.int8
    assert scales.shape == (rows, -(-cols // block)) and np.isfinite(scales).all()
    assert q.min() >= -(2 ** (bits - 1)) and q.max() <= 2 ** (bits - 1) - 1
    assert not q[:, cols:].any()
    made = dequantize(q, scales, cols)
    step = np.repeat(np.abs(scales), block, axis=1)[:, :cols]
    # What reaches beyond the longest integer is cut off, by a step and a half at most.
    assert (np.abs(made - values) <= 1.5 * step + 1e-29).all()


def test_zeros_and_the_smallest_numbers_are_zeros() -> None:
    rows = np.zeros((2, 64), np.float32)
    rows[1] = np.float32(1e-42)
    q, scales = quantize(rows, 4, 32)
    assert not q.any() and not scales.any()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_nibbles_come_back(rows: int, pairs: int, seed: int) -> None:
    q = np.random.RandomState(seed).randint(-8, 8, (rows, 2 * pairs)).astype(np.int8)
    packed = pack_nibbles(q)
    assert packed.shape == (rows, pairs)
    assert np.array_equal(unpack_nibbles(packed), q)
    low, high = (int(n) & 15 for n in q[0, :2])
    assert packed[0, 0] == low | high << 4


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.RandomState(5).standard_normal((40, 96)).astype(np.float32)
    whole = quantize(rows, 4, 32)
    monkeypatch.setattr(block_quantize, "CHUNK_ELEMENTS", 100)
    for one, other in zip(whole, quantize(rows, 4, 32), strict=True):
        assert np.array_equal(one, other)
