"""ONNX Runtime as a library: what its two runtimes share, that of language models and of graphs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgegauge.errors import MissingDependency


class OnnxLibrary:
    """Base of a runtime that executes ONNX files."""

    name = "ONNX Runtime"
    formats: tuple[str, ...] = ("onnx",)

    def version(self) -> str:
        """`1.32.0`; MissingDependency where it is not installed."""
        try:
            return version("onnxruntime")
        except PackageNotFoundError:
            raise MissingDependency("running ONNX files", "onnx") from None

    def prepare(self) -> None:
        """Load the library; MissingDependency where it is absent."""
        library()


def library() -> Any:
    """The imported module; MissingDependency where it is absent."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise MissingDependency("running ONNX files", "onnx") from None
    onnxruntime.set_default_logger_severity(3)  # errors; they are raised as well
    return onnxruntime


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without the stack of its own functions below it."""
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else repr(error)
