"""llama.cpp on the CPU: BERT-type encoders in GGUF, which turn the tokens of a text into a vector.

The vocabulary is the file's own. An inference is `llama_encode` on one text, pooled as the file
says, with a context as long as the model's positions, up to `MOST_TOKENS`; longer texts are cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError
from edgegauge.measure.graphs import TensorSpec
from edgegauge.measure.runtimes.llama_cpp import UBATCH, LlamaCppRuntime
from edgegauge.measure.runtimes.llama_encoder import LlamaEncoder

TOKENS = "input_ids"
MOST_TOKENS = UBATCH
"""llama.cpp computes all of a text at once, and its programs take this many unless told more."""


class LlamaCppGraphRuntime:
    """Opens encoders in GGUF."""

    name = LlamaCppRuntime.name
    formats = ("gguf",)

    def version(self) -> str:
        """As `LlamaCppRuntime.version`."""
        return LlamaCppRuntime().version()

    def prepare(self) -> None:
        """Load llama.cpp's shared libraries; MissingDependency, or MeasurementError."""
        LlamaCppRuntime().prepare()

    def open(self, path: Path, *, threads: int) -> LlamaCppGraphSession:
        """Load an encoder; InputError with llama.cpp's words, MeasurementError without memory."""
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        return LlamaCppGraphSession(path, threads)


class LlamaCppGraphSession:
    """A loaded encoder and the tokens of one text."""

    def __init__(self, path: Path, threads: int) -> None:
        self._encoder = LlamaEncoder(path, threads=threads, length=MOST_TOKENS)
        self.inputs = [TensorSpec(TOKENS, "int32", (1, None))]
        self.outputs = [TensorSpec("embedding", "float32", (1, self._encoder.hidden))]

    def tokenize(self, text: str) -> list[int]:
        """Token ids as llama.cpp finds them, special ones included, cut to the context."""
        return self._encoder.tokenize(text)[: self._encoder.length]

    def feed(self, arrays: Mapping[str, Any]) -> None:
        """Set the tokens of the next text; MeasurementError for more than the context holds."""
        self._encoder.feed(arrays[TOKENS][0].tolist())

    def run(self) -> None:
        """Encode it; MeasurementError with llama.cpp's status."""
        self._encoder.run()

    def facts(self) -> dict[str, Any]:
        """Sizes, buffer bytes and instruction sets, as llama.cpp reports them."""
        return self._encoder.facts()

    def close(self) -> None:
        """Release the model; may be called twice."""
        self._encoder.close()
