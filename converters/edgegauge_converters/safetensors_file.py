"""Safetensors files: the header, checked, and windows of the data, mapped.

    file = SafetensorsFile(path)
    file.entries["model.norm.weight"]                # dtype, shape, place
    with file.window(entry, start_row, stop_row) as array: ...

The layout is that of the format's own description (README of the safetensors repository): eight
bytes of header length, a JSON header, then the data. Nothing in a file is trusted: a header that is
too long, not JSON, or describes other bytes than the file has raises InputError. Only the rows in
use are mapped, so neither memory nor address space grows with the model.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgegauge.errors import ConversionError, InputError

MAX_HEADER_BYTES = 32 * 1024**2
"""The largest models of the supported families need a tenth of this."""

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""Types that are converted, with the one that holds their bits (NumPy has no bfloat16)."""

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of one element of every type the format knows."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file; `start` counts from the beginning of the file, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int

    @property
    def rows(self) -> int:
        """Length of the first axis; 1 for a vector or scalar."""
        return self.shape[0] if len(self.shape) > 1 else 1


class SafetensorsFile:
    """One file, open until `close`; raises InputError if it is not a sound safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        try:
            self.entries = self._read_entries()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @contextmanager
    def window(self, entry: Entry, start: int, stop: int) -> Iterator[npt.NDArray[Any]]:
        """Rows `start` to `stop` of an entry as its bits, (rows, columns); only valid inside.

        Raises ConversionError if they cannot be mapped.
        """
        dtype = DTYPES[entry.dtype]
        columns = math.prod(entry.shape) // entry.rows
        first = entry.start + start * columns * dtype.itemsize
        page = first // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        length = (stop - start) * columns * dtype.itemsize
        mapped = self._map(page, first - page + length)
        array = np.frombuffer(mapped, dtype, (stop - start) * columns, first - page)
        try:
            yield array.reshape(stop - start, columns)
        finally:
            del array
            # Where an error keeps the caller's array alive, that array releases the mapping.
            with suppress(BufferError):
                mapped.close()

    def _map(self, offset: int, size: int) -> mmap.mmap:
        try:
            return mmap.mmap(self._stream.fileno(), size, access=mmap.ACCESS_READ, offset=offset)
        except (OSError, ValueError) as error:  # no address space; the file became shorter
            raise ConversionError(f"cannot map {size} bytes of {self.path}: {error}") from None

    def _read_entries(self) -> dict[str, Entry]:
        size = self.path.stat().st_size
        length = int.from_bytes(self._stream.read(8), "little")
        if size < 8:
            raise self._error(f"only {size} bytes: not a safetensors file")
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise self._error(
                f"the header is said to have {length} bytes, but the file has {size} "
                f"(and no more than {MAX_HEADER_BYTES} are read)"
            )
        begin = 8 + length
        entries = self._parse(self._stream.read(length), begin)
        end = begin
        for entry in sorted(entries.values(), key=lambda e: (e.start, e.bytes)):
            if entry.start != end:
                kind = "overlaps the tensor before it" if entry.start < end else "leaves a gap"
                raise self._error(f"{entry.name}: {kind} at byte {entry.start}")
            end += entry.bytes
        if end != size:
            kind = "truncated" if end > size else "followed by other data"
            raise self._error(f"{kind}: the header describes {end} bytes, the file has {size}")
        return entries

    def _parse(self, header: bytes, begin: int) -> dict[str, Entry]:
        try:
            table = json.loads(header, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise self._error(f"the header is not valid JSON: {error}") from None
        if not isinstance(table, dict):
            raise self._error(f"the header is not a JSON object but {type(table).__name__}")
        table.pop("__metadata__", None)
        return {name: self._entry(name, value, begin) for name, value in table.items()}

    def _entry(self, name: str, value: Any, begin: int) -> Entry:
        wanted = {"dtype", "shape", "data_offsets"}
        if not isinstance(value, dict) or set(value) != wanted:
            raise self._error(f"{name}: expected exactly {', '.join(sorted(wanted))}")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in WIDTHS:
            raise self._error(f"{name}.dtype: unknown type {dtype!r}")
        if not _are_counts(shape) or len(shape) > 8:
            raise self._error(f"{name}.shape: expected sizes, got {shape!r:.80}")
        if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._error(f"{name}.data_offsets: expected [begin, end], got {offsets!r:.80}")
        held, expected = offsets[1] - offsets[0], math.prod(shape) * WIDTHS[dtype]
        if held != expected:
            raise self._error(
                f"{name}: {dtype} of shape {shape} needs {expected} bytes, got {held}"
            )
        return Entry(name, dtype, tuple(shape), begin + offsets[0], held)

    def _error(self, problem: str) -> InputError:
        return InputError(f"{problem} @ {self.path}", hint="fetch the file again")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key appears twice")
    return made


def _are_counts(value: Any) -> bool:
    """Whether this is a list of integers that can count bytes of a file."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**60 for v in value)
