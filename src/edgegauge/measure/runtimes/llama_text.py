"""A GGUF file's own vocabulary: text to tokens and back, as llama.cpp does it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from edgegauge.errors import MeasurementError


class Vocabulary:
    """The tokenizer of a loaded model; valid as long as the model is."""

    def __init__(self, library: Any, model: Any) -> None:
        self._library = library
        self._handle = library.llama_model_get_vocab(model)
        self.size: int = library.llama_vocab_n_tokens(self._handle)
        self._ends: frozenset[int] | None = None

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids; `special` adds BOS where the model wants it and reads markers like `<s>`."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        while True:
            ids = (ctypes.c_int32 * room)()
            count = self._library.llama_tokenize(
                self._handle, data, len(data), ids, room, special, special
            )
            if count >= 0:
                return list(ids[:count])
            if -count <= room:
                raise MeasurementError(f"llama.cpp cannot tokenize a text of {len(data)} bytes")
            room = -count

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of these tokens, special ones left out; broken UTF-8 becomes U+FFFD."""
        ids = (ctypes.c_int32 * len(tokens))(*tokens)
        room = 16 * len(tokens) + 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self._library.llama_detokenize(
                self._handle, ids, len(tokens), buffer, room, True, False
            )
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            room = max(-count, 2 * room)

    def end_tokens(self) -> frozenset[int]:
        """Tokens that end a generation, as llama.cpp reads them from the file."""
        if self._ends is None:
            is_end = self._library.llama_vocab_is_eog
            self._ends = frozenset(i for i in range(self.size) if is_end(self._handle, i))
        return self._ends
