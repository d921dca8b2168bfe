"""Quantising: rows of float32 to the blocks of a GGUF type.

    encode = encoder()
    encode(rows, "Q4_K")        # uint8 (rows, bytes of a row)

The work is done by ggml's own quantisers, out of the library that the llama-cpp-python package
brings, so an artifact is bit for bit what `llama-quantize` writes. That library is loaded alone:
the package itself would load the whole runtime. Without it, the block types of 32 are encoded in
NumPy by the gguf package, with the same result but slower; k-quants then raise MissingDependency.
An encoder may be called from several threads: both ways release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgegauge.errors import ConversionError, MissingDependency
from edgegauge.gguf_types import TENSOR_TYPES
from edgegauge.recipe import BLOCKS

Bytes = npt.NDArray[np.uint8]
Encoder = Callable[[npt.NDArray[np.float32], str], Bytes]

LIBRARIES = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll")

TYPE_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}


def encoder() -> Encoder:
    """ggml's quantisers where they are installed, else NumPy's."""
    library = find_library()
    return _numpy_encode if library is None else _GgmlEncoder(library)


def find_library() -> Path | None:
    """ggml's base library in the llama-cpp-python package (or $LLAMA_CPP_LIB_PATH), if there."""
    folders = [os.environ.get("LLAMA_CPP_LIB_PATH")]
    found = importlib.util.find_spec("llama_cpp")
    if found is not None:
        folders += [f"{place}/lib" for place in found.submodule_search_locations or ()]
    candidates = (Path(folder) / name for folder in folders if folder for name in LIBRARIES)
    return next((path for path in candidates if path.exists()), None)


def row_bytes(cols: int, stored_type: str) -> int:
    """Bytes of one row of `cols` elements."""
    elements, size = BLOCKS[stored_type]
    return cols // elements * size


def check_finite(values: npt.NDArray[Any], name: str) -> None:
    """ConversionError if a value is infinite or not a number, which no type can store usefully."""
    if not np.isfinite(values).all():
        raise ConversionError(
            f"{name} holds values that are infinite or not a number",
            hint="the checkpoint is damaged, or too large for f16: try --recipe q8_0 or f32",
        )


class _GgmlEncoder:
    """`ggml_quantize_chunk`, which locks nothing and keeps no state for these types."""

    def __init__(self, path: Path) -> None:
        try:
            library = ctypes.CDLL(str(path))
            self._quantize = library.ggml_quantize_chunk
        except (OSError, AttributeError) as error:
            raise ConversionError(
                f"cannot use {path}: {error}",
                hint='pip install --force-reinstall "edgegauge[gguf]"',
            ) from None
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._quantize.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
        self._quantize.restype = ctypes.c_size_t

    def __call__(self, rows: npt.NDArray[np.float32], stored_type: str) -> Bytes:
        if stored_type in ("F32", "F16"):
            return _plain(rows, stored_type)
        count, cols = rows.shape
        source = np.ascontiguousarray(rows)
        made = np.empty((count, row_bytes(cols, stored_type)), np.uint8)
        number = TYPE_NUMBERS[stored_type]
        written = self._quantize(number, source.ctypes.data, made.ctypes.data, 0, count, cols, None)
        if written != made.nbytes:
            raise ConversionError(f"ggml wrote {written} bytes of {stored_type}, not {made.nbytes}")
        return made


def _numpy_encode(rows: npt.NDArray[np.float32], stored_type: str) -> Bytes:
    if stored_type in ("F32", "F16"):
        return _plain(rows, stored_type)
    if stored_type.endswith("_K"):
        raise MissingDependency(f"writing {stored_type}", "gguf")
    from gguf import GGMLQuantizationType, quants

    with np.errstate(over="ignore", invalid="ignore"):  # blocks of values below 1e-36
        made: Bytes = quants.quantize(rows, GGMLQuantizationType[stored_type])
    return made


def _plain(rows: npt.NDArray[np.float32], stored_type: str) -> Bytes:
    if stored_type == "F32":
        return np.ascontiguousarray(rows).view(np.uint8)
    with np.errstate(over="ignore"):  # the caller checks for infinities
        return rows.astype(np.float16).view(np.uint8)
