"""LiteRT as a library: what its two runtimes share, that of language models and of graphs."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgegauge.errors import MissingDependency


def litert_version() -> str:
    """`2.3.0`; MissingDependency where it is not installed."""
    try:
        return version("ai-edge-litert")
    except PackageNotFoundError:
        raise MissingDependency("running TFLite files", "tflite") from None


def library(module: str) -> Any:
    """One of its modules, imported; MissingDependency where it is absent."""
    try:
        return import_module(f"ai_edge_litert.{module}")
    except ImportError:
        raise MissingDependency("running TFLite files", "tflite") from None
