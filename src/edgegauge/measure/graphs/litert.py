"""LiteRT on the CPU (XNNPACK): TFLite files through its interpreter.

The interpreter is the part of LiteRT that has stayed the same since TensorFlow Lite 2; it delegates
to the same XNNPACK kernels as `CompiledModel`, and it can resize free dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.graphs import TensorSpec
from edgegauge.measure.runtimes.litert_library import library, litert_version

MAGIC = b"TFL3"
"""The file identifier of the flatbuffer, at byte 4 (TFLite schema, `file_identifier`)."""


class LiteRtGraphRuntime:
    """Opens TFLite files."""

    name = "LiteRT"
    formats = ("tflite",)

    def version(self) -> str:
        """`2.3.0`; MissingDependency where it is not installed."""
        return litert_version()

    def prepare(self) -> None:
        """Load the library; MissingDependency where it is absent."""
        library("interpreter")

    def open(self, path: Path, *, threads: int) -> LiteRtGraphSession:
        """Load a TFLite file; InputError with LiteRT's words."""
        _check_header(path)
        return LiteRtGraphSession(library("interpreter"), path, threads)


def _check_header(path: Path) -> None:
    """The interpreter maps any file; a wrong one must not reach it."""
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if head[4:] != MAGIC:
        raise InputError(f"{path} is not a TFLite file: it has {head[4:]!r} instead of {MAGIC!r}")


class LiteRtGraphSession:
    """A loaded graph with its first subgraph's tensors."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        self._threads = threads
        try:
            self._interpreter: Any = library.Interpreter(model_path=str(path), num_threads=threads)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot load {path}: {error}") from None
        self._indices = {d["name"]: d["index"] for d in self._interpreter.get_input_details()}
        self.inputs = [_spec(d) for d in self._interpreter.get_input_details()]
        self.outputs = [_spec(d) for d in self._interpreter.get_output_details()]
        self._shapes: dict[str, tuple[int, ...]] | None = None

    def feed(self, arrays: Mapping[str, Any]) -> None:
        """Copy the inputs into the graph's memory, which is laid out anew for new shapes."""
        shapes = {name: arrays[name].shape for name in self._indices}
        try:
            if shapes != self._shapes:
                for name, index in self._indices.items():
                    self._interpreter.resize_tensor_input(index, list(shapes[name]))
                self._interpreter.allocate_tensors()
                self._shapes = shapes
            for name, index in self._indices.items():
                self._interpreter.set_tensor(index, arrays[name])
        except (ValueError, RuntimeError) as error:
            raise MeasurementError(f"LiteRT cannot take these inputs: {error}") from None

    def run(self) -> None:
        """One inference; MeasurementError with LiteRT's words."""
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise MeasurementError(f"LiteRT cannot run it: {error}") from None

    def facts(self) -> dict[str, Any]:
        """Version and threads."""
        return {"source": f"LiteRT {litert_version()}", "threads": self._threads}

    def close(self) -> None:
        """Release the interpreter; may be called twice."""
        self._interpreter = None


def _spec(details: Any) -> TensorSpec:
    import numpy as np

    declared = details["shape_signature"]
    shape = tuple(int(n) if n >= 0 else None for n in declared)
    return TensorSpec(details["name"], np.dtype(details["dtype"]).name, shape)
