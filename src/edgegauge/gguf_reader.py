"""The header of a GGUF file: metadata and the list of tensors, without their data.

    header = read_header(Path("model-q4_0.gguf"))
    header.metadata["general.architecture"]        # "llama"
    header.tensors["token_embd.weight"].bytes

Versions 2 and 3, little endian. Only what describes the model is held: the strings of a vocabulary
are counted and skipped. Nothing in the file is trusted: every count, length and offset is checked
against the file's size before it is used, and work is bounded by the limits below. A truncated or
wrong file gives InputError with the byte and the key or tensor where reading stopped.

Source of the layout: the specification in ggml's `docs/gguf.md`, and `ggml/src/gguf.cpp`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgegauge.errors import InputError
from edgegauge.gguf_types import ARRAY, STRING, TENSOR_TYPES, VALUE_FORMATS

MAX_KEYS = 100_000
MAX_TENSORS = 100_000
MAX_NAME_BYTES = 65_535
MAX_TEXT_BYTES = 16 * 1024**2
"""Longest string that is held: a chat template is a few kB."""
MAX_SKIPPED_STRINGS = 8_000_000
"""Strings skipped one by one in the whole file; the largest vocabularies have a million."""
MAX_HELD_ELEMENTS = 1024
"""A numeric array up to this length is held (values per layer); a longer one is only counted."""
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Array:
    """An array in the metadata; `values` is None where it was counted and skipped."""

    count: int
    values: tuple[int | float | bool, ...] | None


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape with the row length first, as the file has it, and where it lies."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    """From the start of the data section."""
    bytes: int

    @property
    def elements(self) -> int:
        """Number of weights in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself."""

    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    data_offset: int
    file_bytes: int


def read_header(path: Path) -> GgufHeader:
    """The header of this file; raises InputError where it is not a whole and regular GGUF file."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            return _read(_Cursor(stream, size, path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def read_floats(header: GgufHeader, name: str) -> tuple[float, ...]:
    """The values of a small F32 tensor; raises InputError where it is not small or not F32."""
    tensor = header.tensors[name]
    if tensor.type != "F32" or tensor.elements > 65_536:
        raise InputError(f"{name}: expected a short F32 tensor, got {tensor.type} @ {header.path}")
    with header.path.open("rb") as stream:
        stream.seek(header.data_offset + tensor.offset)
        data = stream.read(tensor.bytes)
    if len(data) != tensor.bytes:
        raise InputError(f"{name}: the file ends within it @ {header.path}")
    return struct.unpack(f"<{tensor.elements}f", data)


def printable(text: str) -> str:
    """Text from a file as it may stand in a message: bounded, without control characters."""
    cut = text if len(text) <= 100 else text[:97] + "..."
    return "".join(c if c.isprintable() else "?" for c in cut)


class _Cursor:
    """A bounded forward reader over a file; knows where it is for the error message."""

    def __init__(self, stream: BinaryIO, size: int, path: Path) -> None:
        self.stream, self.size, self.path = stream, size, path
        self.buffer, self.at, self.start = b"", 0, 0
        self.context = "header"
        self.strings_left = MAX_SKIPPED_STRINGS

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self.start + self.at

    def error(self, message: str) -> InputError:
        """An error at this place."""
        return InputError(
            f"{printable(self.context)}: {message} (at byte {self.position}) @ {self.path}"
        )

    def require(self, count: int) -> None:
        """Raise unless the file goes on for this many bytes."""
        left = self.size - self.position
        if count > left:
            raise self.error(f"truncated or wrong: {count} bytes announced, {left} left")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        self.require(count)
        if self.at + count > len(self.buffer):
            self._refill(count)
        self.at += count
        return self.buffer[self.at - count : self.at]

    def _refill(self, count: int) -> None:
        self.start, self.at = self.position, 0
        self.stream.seek(self.start)
        self.buffer = self.stream.read(max(count, CHUNK))
        if len(self.buffer) < count:
            raise self.error("the file became shorter while it was read")

    def skip(self, count: int) -> None:
        """Pass over bytes without reading them."""
        self.require(count)
        self.at += count
        if self.at > len(self.buffer):
            self.start, self.at, self.buffer = self.position, 0, b""

    def scalar(self, letter: str) -> int:
        """One little-endian number of this `struct` letter."""
        size = struct.calcsize(letter)
        value: int = struct.unpack("<" + letter, self.take(size))[0]
        return value

    def text(self, limit: int) -> str:
        """A string with its length in front."""
        length = self.scalar("Q")
        self.require(length)
        if length > limit:
            raise self.error(f"a string of {length} bytes, more than the {limit} that are read")
        return self.take(length).decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        """Pass over an array of strings, reading only their lengths."""
        self.require(8 * count)
        self.strings_left -= count
        if self.strings_left < 0:
            raise self.error(f"more than {MAX_SKIPPED_STRINGS} strings in the metadata")
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if self.at + 8 > len(self.buffer):
                self.require(8)
                self._refill(8)
            length = unpack(self.buffer, self.at)[0]
            self.at += 8
            if self.at + length <= len(self.buffer):
                self.at += length
            else:
                self.skip(length)

    @contextmanager
    def within(self, context: str) -> Iterator[None]:
        """Name what is being read, for errors."""
        outer, self.context = self.context, context
        yield
        self.context = outer


def _read(cursor: _Cursor) -> GgufHeader:
    version = _check_magic(cursor)
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    for count, limit, what in (
        (key_count, MAX_KEYS, "metadata keys"),
        (tensor_count, MAX_TENSORS, "tensors"),
    ):
        # The shortest key or tensor takes more than 12 bytes.
        if count > limit or 12 * count > cursor.size:
            raise cursor.error(f"{count} {what} announced in a file of {cursor.size} bytes")
    metadata: dict[str, Value] = {}
    for number in range(key_count):
        with cursor.within(f"metadata key {number}"):
            key = cursor.text(MAX_NAME_BYTES)
        with cursor.within(key):
            if key in metadata:
                raise cursor.error("this key is there twice")
            metadata[key] = _value(cursor)
    tensors: dict[str, TensorInfo] = {}
    for number in range(tensor_count):
        with cursor.within(f"tensor {number}"):
            name = cursor.text(MAX_NAME_BYTES)
        with cursor.within(name):
            if name in tensors:
                raise cursor.error("this tensor is there twice")
            tensors[name] = _tensor(cursor, name)
    alignment = _alignment(cursor, metadata)
    data_offset = -(-cursor.position // alignment) * alignment
    _check_places(cursor, tensors, data_offset, alignment)
    return GgufHeader(cursor.path, version, metadata, tensors, data_offset, cursor.size)


def _check_magic(cursor: _Cursor) -> int:
    if cursor.size < 24 or cursor.take(4) != b"GGUF":
        raise InputError(f"not a GGUF file: it does not start with GGUF @ {cursor.path}")
    version = cursor.scalar("I")
    if version in (2, 3):
        return version
    if version in (2 << 24, 3 << 24):
        raise cursor.error("big-endian files are not read; convert it for a little-endian machine")
    raise cursor.error(f"GGUF version {version} is not read; supported are 2 and 3")


def _value(cursor: _Cursor) -> Value:
    kind = cursor.scalar("I")
    if kind == STRING:
        return cursor.text(MAX_TEXT_BYTES)
    if kind == ARRAY:
        return _array(cursor)
    return cursor.scalar(_letter(cursor, kind))


def _array(cursor: _Cursor) -> Array:
    kind, count = cursor.scalar("I"), cursor.scalar("Q")
    if kind == STRING:
        cursor.skip_strings(count)
        return Array(count, None)
    letter = _letter(cursor, kind)
    size = count * struct.calcsize(letter)
    if count > MAX_HELD_ELEMENTS:
        cursor.skip(size)
        return Array(count, None)
    return Array(count, struct.unpack(f"<{count}{letter}", cursor.take(size)))


def _letter(cursor: _Cursor, kind: int) -> str:
    if kind not in VALUE_FORMATS:
        raise cursor.error(f"unknown value type {kind}")
    return VALUE_FORMATS[kind]


def _tensor(cursor: _Cursor, name: str) -> TensorInfo:
    dimensions = cursor.scalar("I")
    if not 1 <= dimensions <= 4:
        raise cursor.error(f"expected 1 to 4 dimensions, got {dimensions}")
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))
    number, offset = cursor.scalar("I"), cursor.scalar("Q")
    if number not in TENSOR_TYPES:
        raise cursor.error(f"unknown tensor type {number}")
    kind, elements, size = TENSOR_TYPES[number]
    if math.prod(shape) == 0 or math.prod(shape) >= 2**60:
        raise cursor.error(f"impossible shape {list(shape)}")
    if shape[0] % elements:
        raise cursor.error(f"rows of {shape[0]} do not divide into {kind} blocks of {elements}")
    return TensorInfo(name, kind, shape, offset, math.prod(shape) // elements * size)


def _alignment(cursor: _Cursor, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is int and 0 < alignment <= 2**20 and alignment & (alignment - 1) == 0:
        return alignment
    with cursor.within("general.alignment"):
        raise cursor.error(f"expected a power of two, got {alignment}")


def _check_places(
    cursor: _Cursor, tensors: Mapping[str, TensorInfo], data_offset: int, alignment: int
) -> None:
    """Every tensor is aligned, inside the file, and shares no byte with another."""
    end = 0
    for tensor in sorted(tensors.values(), key=lambda t: t.offset):
        with cursor.within(tensor.name):
            if tensor.offset % alignment:
                raise cursor.error(f"offset {tensor.offset} is no multiple of {alignment}")
            if tensor.offset < end:
                raise cursor.error(f"offset {tensor.offset} lies within another tensor")
            end = tensor.offset + tensor.bytes
            if data_offset + end > cursor.size:
                raise cursor.error(
                    f"the file is truncated: its data ends at byte {data_offset + end}, "
                    f"the file at {cursor.size}"
                )
