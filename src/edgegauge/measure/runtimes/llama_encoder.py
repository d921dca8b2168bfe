"""Encoders in llama.cpp: a text's tokens to its one vector, pooled as the file says.

with closing(LlamaEncoder(path, threads=2, length=128)) as encoder:
    encoder.encode(encoder.tokenize("a text"))        # float32 (hidden,), of any length
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.runtimes import llama_log
from edgegauge.measure.runtimes.llama_batch import Batch
from edgegauge.measure.runtimes.llama_cpp import load_library, load_model
from edgegauge.measure.runtimes.llama_text import Vocabulary
from edgegauge.measure.runtimes.llama_watch import Watch

ONE_VECTOR = (1, 2, 3)
"""LLAMA_POOLING_TYPE_MEAN, _CLS and _LAST; the others give a vector per token, or a score."""


class LlamaEncoder:
    """A loaded encoder for texts of up to `length` tokens, or the file's positions if fewer."""

    def __init__(
        self, path: Path, *, threads: int, length: int, watch: Watch | None = None
    ) -> None:
        self._library = load_library()
        self._model: Any = load_model(self._library, path)
        self._context: Any = None
        self._text = Vocabulary(self._library, self._model)
        self.hidden: int = self._library.llama_model_n_embd(self._model)
        self.length: int = min(length, self._library.llama_model_n_ctx_train(self._model))
        self._threads = threads
        self._batch = Batch(self._library, self.length)
        try:
            self._context = self._make_context(watch)
            if self._library.llama_pooling_type(self._context) not in ONE_VECTOR:
                raise InputError(f"{path} does not pool its tokens' vectors to one for a text")
        except BaseException:
            self.close()
            raise
        self._said = llama_log.lines()

    def _make_context(self, watch: Watch | None) -> Any:
        params = self._library.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.length
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings = True
        if watch:
            watch.attach(self._library, params)
        made = self._library.llama_init_from_model(self._model, params)
        if not made:
            said = llama_log.complaint() or "it gave no reason"
            kind = "out of memory: " if llama_log.is_about_memory(said) else ""
            raise MeasurementError(
                f"{kind}llama.cpp cannot make a context of {self.length} tokens: {said}"
            )
        return made

    def tokenize(self, text: str) -> list[int]:
        """Token ids, with the special ones around them."""
        return self._text.tokenize(text)

    def feed(self, tokens: Sequence[int]) -> None:
        """Set the text that `run` encodes; MeasurementError where it is longer than `length`."""
        if len(tokens) > self.length:
            raise MeasurementError(f"{len(tokens)} tokens do not fit into {self.length}")
        self._batch.fill([(token, i, 0, True) for i, token in enumerate(tokens)])

    def run(self) -> Any:
        """llama.cpp's own vector of what was fed; MeasurementError where llama.cpp fails."""
        status = self._library.llama_encode(self._context, self._batch.c)
        # Waits for the result.
        vector = self._library.llama_get_embeddings_seq(self._context, 0)
        if status or not vector:
            count = self._batch.c.n_tokens
            raise MeasurementError(f"llama.cpp cannot encode {count} tokens: {status}")
        return vector

    def encode(self, tokens: Sequence[int]) -> Any:
        """The vector of one text; MeasurementError where llama.cpp fails."""
        import numpy as np

        self.feed(tokens)
        return np.ctypeslib.as_array(self.run(), (self.hidden,)).copy()

    def facts(self) -> dict[str, Any]:
        """Sizes, buffer bytes and instruction sets, as llama.cpp reports them."""
        return llama_log.about_session(
            self._library, self._model, self._context, self._said, self._threads
        )

    def close(self) -> None:
        """Release the model; may be called twice."""
        if self._context:
            self._library.llama_free(self._context)
        if self._model:
            self._library.llama_model_free(self._model)
        self._context = self._model = None
