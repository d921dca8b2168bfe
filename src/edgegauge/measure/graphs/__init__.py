"""Graph runtimes: what executes an ONNX or TFLite file, or an encoder in GGUF, as a plain function.

A graph runtime is an entry point of the group `edgegauge.graph_runtimes` that names a class without
arguments, cheap to import. Language models have a protocol of their own (`measure.runtimes`).

    session = graph_runtime_for("onnx").open(path, threads=2)
    session.feed({"pixels": array})
    session.run()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from edgegauge.errors import InputError
from edgegauge.gguf_reader import read_header

GROUP = "edgegauge.graph_runtimes"
FORMATS = {".onnx": "onnx", ".tflite": "tflite"}
TEXT_ONLY = "gguf"
"""The format whose graphs take nothing but text."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: NumPy's name of its type; None is a dimension that the caller chooses."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    labels: tuple[str, ...] = ()
    """What the file calls its dimensions, as many as there are, or nothing."""

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if n is None else str(n) for n in self.shape)}]"


class GraphSession(Protocol):
    """A loaded graph; where the file holds a vocabulary, with `tokenize(text) -> list[int]` too."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def feed(self, arrays: Mapping[str, Any]) -> None:
        """Set all inputs, by name; shapes may differ from the last ones where they are free."""

    def run(self) -> None:
        """One inference on what was fed; its outputs are ready when it returns."""

    def facts(self) -> dict[str, Any]:
        """What the runtime says of itself."""

    def close(self) -> None:
        """Release the graph."""


class GraphRuntime(Protocol):
    """Opens graphs of some formats."""

    name: str
    formats: tuple[str, ...]

    def version(self) -> str:
        """Version of the library, without loading it; MissingDependency if absent."""

    def prepare(self) -> None:
        """Load the library, so that `open` takes the time and memory of the graph alone."""

    def open(self, path: Path, *, threads: int) -> GraphSession:
        """Load a graph; InputError for a file that the runtime refuses, with its own words."""


def graph_format(path: Path) -> str | None:
    """The format that the file's name tells, `onnx` or `tflite`, or `gguf` for an encoder in it.

    None for any other; InputError for a GGUF file whose header cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".gguf" and path.is_file() and _is_encoder(path):
        return "gguf"
    return FORMATS.get(suffix)


def _is_encoder(path: Path) -> bool:
    """Whether its attention looks both ways and it pools, as llama.cpp's converter tells."""
    metadata = read_header(path).metadata
    architecture = metadata.get("general.architecture")
    looks_both_ways = metadata.get(f"{architecture}.attention.causal") is False
    return looks_both_ways and f"{architecture}.pooling_type" in metadata


def graph_runtime_for(file_format: str) -> GraphRuntime:
    """The first registered runtime that executes this format; InputError if none."""
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        runtime: GraphRuntime = point.load()()
        if file_format in runtime.formats:
            return runtime
    raise InputError(f"no runtime executes {file_format} graphs")
