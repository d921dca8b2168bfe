"""Quantisers: ggml's own where it is installed, NumPy's where not, and random blocks."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.errors import ConversionError, MissingDependency
from edgegauge.model import Role, Tensor
from edgegauge.recipe import BLOCKS, StoredTensor
from edgegauge_converters import quantize
from edgegauge_converters.quantize import check_finite, encoder, find_library, row_bytes
from edgegauge_converters.synthetic import SyntheticBlocks

BLOCK_TYPES = ("Q4_0", "Q5_0", "Q5_1", "Q8_0")
K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")
STEPS = {"F32": 0, "F16": 2**-10, "Q8_0": 1 / 127, "Q6_K": 1 / 24, "Q5_0": 1 / 15, "Q5_1": 1 / 15,
         "Q5_K": 1 / 12, "Q4_0": 1 / 7, "Q4_K": 1 / 6}  # fmt: skip
"""The largest error of a type relative to the largest value of its row, generously."""

ROWS = np.random.default_rng(3).standard_normal((12, 512)).astype(np.float32)


def dequantize(encoded: np.ndarray, name: str) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[name]
    if name in ("F32", "F16"):
        encoded = encoded.view(np.float32 if name == "F32" else np.float16)
    return np.asarray(gguf.quants.dequantize(encoded, kind), dtype=np.float32)


@pytest.fixture
def without_ggml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)


@pytest.mark.parametrize("name", BLOCKS.keys() & STEPS.keys())
def test_values_survive(name: str) -> None:
    encoded = encoder()(ROWS, name)
    assert encoded.dtype == np.uint8
    assert encoded.shape == (12, row_bytes(512, name))
    error = np.abs(dequantize(encoded, name) - ROWS)
    assert error.max() <= STEPS[name] * np.abs(ROWS).max()


@pytest.mark.parametrize("name", [*BLOCK_TYPES, *K_QUANTS])
def test_slices_of_rows_are_independent(name: str) -> None:
    encode = encoder()
    parts = [encode(ROWS[a:b], name) for a, b in ((0, 1), (1, 7), (7, 12))]
    assert np.array_equal(np.concatenate(parts), encode(ROWS, name))


def test_rows_need_not_be_contiguous() -> None:
    encode = encoder()
    strided = np.asfortranarray(ROWS)
    assert np.array_equal(encode(strided, "Q4_K"), encode(ROWS, "Q4_K"))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, 7, 100, 2**20]),
    exponent=st.integers(-60, 15),
    name=st.sampled_from(BLOCK_TYPES),
)
def test_numpy_and_ggml_write_the_same(seed: int, levels: int, exponent: int, name: str) -> None:
    """Few levels make ties and blocks of zeros, where rounding differs first."""
    assert find_library() is not None
    drawn = np.random.default_rng(seed).integers(-levels, levels, (2, 64), endpoint=True)
    rows = (drawn * 2.0**exponent / levels).astype(np.float32)
    assert np.array_equal(encoder()(rows, name), quantize._numpy_encode(rows, name))


@pytest.mark.usefixtures("without_ggml")
def test_without_llama_cpp() -> None:
    encode = encoder()
    assert np.array_equal(dequantize(encode(ROWS, "Q8_0"), "Q8_0").argmax(1), ROWS.argmax(1))
    assert encode(ROWS, "F16").shape == (12, 1024)
    with pytest.raises(MissingDependency) as caught:
        encode(ROWS, "Q4_K")
    assert caught.value.hint == 'pip install "edgegauge[gguf]"'


def test_library_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    (tmp_path / "libggml-base.so").write_bytes(b"not a library")
    assert find_library() == tmp_path / "libggml-base.so"
    with pytest.raises(ConversionError, match="cannot use"):
        encoder()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_no_type_can_hold(value: float) -> None:
    rows = ROWS.copy()
    check_finite(rows, "fine")
    rows[3, 100] = value
    with pytest.raises(ConversionError, match=r"blk\.0\.attn_q\.weight holds values"):
        check_finite(rows, "blk.0.attn_q.weight")


# --- random blocks


def stored(name: str, cols: int = 512, rows: int = 64, role: Role = "attn_q") -> StoredTensor:
    return StoredTensor(Tensor(role, 0, rows, cols), name, rows * row_bytes(cols, name), name)


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("cols", [256, 2048])
def test_random_blocks_are_valid_and_of_sane_size(name: str, cols: int) -> None:
    encoded = SyntheticBlocks().rows(stored(name, cols), 5, 0, 64)
    assert encoded.shape == (64, row_bytes(cols, name))
    values = dequantize(encoded, name)
    assert np.isfinite(values).all()
    # Floats have one exponent, so up to a factor of sqrt(2) is rounding.
    assert values.std() * np.sqrt(cols) == pytest.approx(1, rel=0.45 if name[0] == "F" else 0.1)
    assert abs(values.mean()) < 0.15 * values.std()  # signed integers reach one further down
    assert len(np.unique(values, axis=0)) == 64


def test_random_blocks_are_reproducible() -> None:
    first, again, other = SyntheticBlocks(1), SyntheticBlocks(1), SyntheticBlocks(2)
    rows = first.rows(stored("Q4_0"), 3, 0, 64)
    assert np.array_equal(rows, again.rows(stored("Q4_0"), 3, 0, 64))
    assert not np.array_equal(rows, other.rows(stored("Q4_0"), 3, 0, 64))
    assert not np.array_equal(rows, first.rows(stored("Q4_0"), 4, 0, 64))
    assert not np.array_equal(rows[:32], first.rows(stored("Q4_0"), 3, 32, 64))


def test_random_slices_may_exceed_the_pool() -> None:
    rows = SyntheticBlocks().rows(stored("F32", 2048, 1200), 0, 0, 1200)
    assert rows.nbytes > 2 * 2**22
    assert not np.array_equal(rows.ravel()[:1000], rows.ravel()[2**22 : 2**22 + 1000])


@pytest.mark.parametrize(("role", "value"), [("attn_norm", 1), ("attn_q_bias", 0)])
def test_vectors_are_neutral(role: Role, value: float) -> None:
    encoded = SyntheticBlocks().rows(stored("F32", 32, 1, role), 0, 0, 1)
    assert (encoded.view(np.float32) == value).all()
