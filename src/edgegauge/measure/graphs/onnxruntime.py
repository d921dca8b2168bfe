"""ONNX Runtime on the CPU: graphs with their inputs and outputs bound once, so that none is copied.

Only the operators that the library brings are executed: no custom operator library is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.graphs import TensorSpec
from edgegauge.measure.runtimes.onnx_library import OnnxLibrary, first_line, library

TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({t})": t for t in ("int8", "uint8", "int16", "uint16", "int32", "uint32")},
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
}
"""ONNX Runtime's name of a type: NumPy's."""


class OnnxGraphRuntime(OnnxLibrary):
    """Opens ONNX files."""

    def open(self, path: Path, *, threads: int) -> OnnxGraphSession:
        """Load an ONNX file and its external data; InputError with ONNX Runtime's words."""
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        return OnnxGraphSession(library(), path, threads)


class OnnxGraphSession:
    """A loaded graph whose tensors live in ONNX Runtime's own memory."""

    def __init__(self, library: Any, path: Path, threads: int) -> None:
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._library = library
        self._threads = threads
        try:
            self._session: Any = library.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # pybind's own exception types share no base
            raise InputError(f"ONNX Runtime cannot load {path}: {first_line(error)}") from None
        self.inputs = [_spec(i) for i in self._session.get_inputs()]
        self.outputs = [_spec(o) for o in self._session.get_outputs()]
        self._binding: Any = None

    def feed(self, arrays: Mapping[str, Any]) -> None:
        """Copy the inputs into ONNX Runtime's memory and bind them; outputs are made anew."""
        self._binding = self._session.io_binding()
        for spec in self.inputs:
            value = self._library.OrtValue.ortvalue_from_numpy(arrays[spec.name])
            self._binding.bind_ortvalue_input(spec.name, value)
        for spec in self.outputs:
            self._binding.bind_output(spec.name)

    def run(self) -> None:
        """One inference; MeasurementError with ONNX Runtime's words."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise MeasurementError(f"ONNX Runtime cannot run it: {first_line(error)}") from None

    def facts(self) -> dict[str, Any]:
        """Providers and threads."""
        return {
            "source": f"ONNX Runtime {self._library.__version__}",
            "providers": self._session.get_providers(),
            "threads": self._threads,
        }

    def close(self) -> None:
        """Release the session; may be called twice."""
        self._session = self._binding = None


def _spec(value: Any) -> TensorSpec:
    if value.type not in TYPES:
        raise InputError(f"{value.name} is a {value.type}, which edgegauge cannot feed")
    shape = tuple(n if isinstance(n, int) and n >= 0 else None for n in value.shape)
    labels = tuple(n if isinstance(n, str) else "" for n in value.shape)
    return TensorSpec(value.name, TYPES[value.type], shape, labels)
