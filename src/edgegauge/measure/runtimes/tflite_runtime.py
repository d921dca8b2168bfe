"""tflite-runtime 2.14, the last release of LiteRT's predecessor: Python up to 3.11, NumPy below 2.

It runs our f32 and int8 files. It computes other integer weights (int4, or with a scale for each
row within the tensor) wrongly without a word, so files that hold them are refused before.

It has no buffers that are input and output at once, and its signature runner copies the whole cache
in and out with each call. Here only the positions that a call has written are copied, from its
output into the inputs of all calls; each signature holds a cache of its own, in and out.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError, MissingDependency
from edgegauge.measure.runtimes.tflite_session import CACHE, Call, TfliteRuntime, check_signatures

PACKAGE = "tflite-runtime"
"""The distribution, and our extra that brings it."""

INT8, INT4 = 9, 17
"""`TensorType` in the format's schema, schema.fbs."""

SUBGRAPHS, TENSORS, TYPE, QUANTIZATION, SCALE = 2, 0, 1, 4, 2
"""Fields of `Model`, `SubGraph`, `Tensor`, `Tensor` and `QuantizationParameters` there."""

KEYS = f"{CACHE}k_"
"""Caches (1, heads, context, width); those of values are (1, heads, width, context)."""


class OldRuntime(TfliteRuntime):
    """Opens TFLite language models in tflite-runtime."""

    name = PACKAGE

    def version(self) -> str:
        """See TfliteRuntime."""
        try:
            return version(PACKAGE)
        except PackageNotFoundError:
            raise MissingDependency("running TFLite files", PACKAGE) from None

    def prepare(self) -> None:
        """See TfliteRuntime."""
        _library()

    def load(self, path: Path, threads: int) -> InterpretedFile:
        """See TfliteRuntime."""
        return InterpretedFile(_library(), path, threads)


def _library() -> Any:
    try:
        from tflite_runtime import interpreter
    except ImportError:
        raise MissingDependency("running TFLite files", PACKAGE) from None
    return interpreter


class InterpretedFile:
    """An Interpreter, a `LoadedModel`."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        self.source = f"{PACKAGE} {version(PACKAGE)}"
        check_weights(path)
        try:
            interpreter = library.Interpreter(str(path), num_threads=threads)
            keys = interpreter.get_signature_list()
            check_signatures(path, keys)
            caches: dict[str, list[Any]] = {}
            calls = [_Call(interpreter, key, caches) for key in keys]
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{self.source} cannot load {path}: {error}") from None
        self.calls: Sequence[Call] = calls
        self.vocab = next(call.vocab for call in calls if call.gives_logits)
        inputs = sum(view.nbytes for places in caches.values() for view in places)
        self.cache_bytes = 2 * inputs  # outputs hold as much

    def close(self) -> None:
        """See LoadedModel: the interpreter goes with the last view of its memory."""
        self.calls = []


class _Call(Call):
    """A signature whose tensors are views of the interpreter's memory.

    `caches` holds the cache inputs of all calls by name; this one's are added.
    """

    def __init__(self, interpreter: Any, key: str, caches: dict[str, list[Any]]) -> None:
        runner = interpreter.get_signature_runner(key)
        self._number: int = runner._subgraph_index
        self._wrapper = interpreter._interpreter
        self._wrapper.AllocateTensors(self._number)

        def views(details: dict[str, Any]) -> dict[str, Any]:
            return {
                name: self._wrapper.tensor(interpreter, detail["index"], self._number)
                for name, detail in details.items()
            }

        inputs, outputs = views(runner.get_input_details()), views(runner.get_output_details())
        for name, view in inputs.items():
            if name.startswith(CACHE):
                view.fill(0)
                caches.setdefault(name, []).append(view)
        super().__init__(inputs, gives_logits="logits" in outputs)
        self._logits = outputs.pop("logits", None)
        self._outputs, self._caches = outputs, caches

    @property
    def vocab(self) -> int:
        """Tokens that there are logits for."""
        return int(self._logits.shape[-1])

    def run(self) -> None:
        """See Call."""
        try:
            self._wrapper.Invoke(self._number)
        except (ValueError, RuntimeError) as error:
            raise MeasurementError(f"{PACKAGE} cannot run it: {error}") from None
        written = slice(int(self.positions[0]), int(self.positions[-1]) + 1)
        for name, made in self._outputs.items():
            where = (..., written, slice(None)) if name.startswith(KEYS) else (..., written)
            for cache in self._caches[name]:
                cache[where] = made[where]

    def logits(self) -> Any:
        """See Call."""
        return self._logits.reshape(-1).copy()


def check_weights(path: Path) -> None:
    """InputError for a file with weights that the library computes wrongly."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            wrong = next(_wrong_weights(m), None)
    except (ValueError, IndexError, struct.error) as error:
        raise InputError(f"{path} is no TFLite file: {error}") from None
    if wrong is not None:
        raise InputError(
            f"{PACKAGE} computes {wrong} in {path.name} wrongly, without a word",
            hint="convert with --recipe int8 or f32, or install ai-edge-litert",
        )


def _wrong_weights(data: mmap.mmap) -> Iterator[str]:
    """Those in a flatbuffer, in words; fields are numbered as in the format's schema."""
    if data[4:8] != b"TFL3":
        raise ValueError("its identifier is not TFL3")
    (root,) = struct.unpack_from("<I", data, 0)
    for graph in _tables(data, root, SUBGRAPHS):
        for tensor in _tables(data, graph, TENSORS):
            place = _field(data, tensor, TYPE)
            type = data[place] if place else 0
            if type == INT4:
                yield "4-bit weights"
            elif type == INT8 and _scales(data, tensor) > 1:
                yield "weights with a scale for each row"


def _scales(data: mmap.mmap, tensor: int) -> int:
    """How many scales a tensor's quantisation has."""
    place = _field(data, tensor, QUANTIZATION)
    vector = place and _field(data, _follow(data, place), SCALE)
    return int(struct.unpack_from("<I", data, _follow(data, vector))[0]) if vector else 0


def _tables(data: mmap.mmap, table: int, field: int) -> Iterator[int]:
    """Where the tables of a field lie, which is a vector of them."""
    place = _field(data, table, field)
    if place:
        vector = _follow(data, place)
        (count,) = struct.unpack_from("<I", data, vector)
        for index in range(count):
            yield _follow(data, vector + 4 + 4 * index)


def _field(data: mmap.mmap, table: int, number: int) -> int:
    """Where a table's field lies, 0 if it is absent.

    A table begins with the distance back to its vtable: the vtable's size, the table's size, and
    then the distance of each field from the table's start, all uint16.
    """
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (distance,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + distance if distance else 0


def _follow(data: mmap.mmap, place: int) -> int:
    """Where the offset at this place leads to."""
    return place + int(struct.unpack_from("<I", data, place)[0])
