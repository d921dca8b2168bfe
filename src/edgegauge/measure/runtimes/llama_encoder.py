"""Encoders in llama.cpp: a text's tokens to its one vector, pooled as the file says.

with closing(LlamaEncoder(path, threads=2, length=128)) as encoder:
    encoder.encode(encoder.tokenize("a text"))        # float32 (hidden,), of any length
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegauge.errors import MeasurementError
from edgegauge.measure.runtimes import llama_log
from edgegauge.measure.runtimes.llama_batch import Batch
from edgegauge.measure.runtimes.llama_cpp import load_library, load_model
from edgegauge.measure.runtimes.llama_text import Vocabulary
from edgegauge.measure.runtimes.llama_watch import Watch


class LlamaEncoder:
    """A loaded encoder for texts of up to `length` tokens, one at a time."""

    def __init__(
        self, path: Path, *, threads: int, length: int, watch: Watch | None = None
    ) -> None:
        self._library = load_library()
        self._model: Any = load_model(self._library, path)
        self._text = Vocabulary(self._library, self._model)
        self.hidden: int = self._library.llama_model_n_embd(self._model)
        self._batch = Batch(self._library, length)
        params = self._library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = length
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        if watch:
            watch.attach(self._library, params)
        self._context: Any = self._library.llama_init_from_model(self._model, params)
        if not self._context:
            said = llama_log.complaint() or "it gave no reason"
            self._library.llama_model_free(self._model)
            raise MeasurementError(f"llama.cpp cannot make a context of {length} tokens: {said}")

    def tokenize(self, text: str) -> list[int]:
        """Token ids, with the special ones around them."""
        return self._text.tokenize(text)

    def encode(self, tokens: Sequence[int]) -> Any:
        """The vector of one text; MeasurementError where llama.cpp fails."""
        import numpy as np

        self._batch.fill([(token, i, 0, True) for i, token in enumerate(tokens)])
        status = self._library.llama_encode(self._context, self._batch.c)
        vector = self._library.llama_get_embeddings_seq(self._context, 0)
        if status or not vector:
            raise MeasurementError(f"llama.cpp cannot encode {len(tokens)} tokens: {status}")
        return np.ctypeslib.as_array(vector, (self.hidden,)).copy()

    def close(self) -> None:
        """Release the model."""
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)
