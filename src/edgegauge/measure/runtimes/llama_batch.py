"""A `llama_batch` over NumPy arrays that are allocated once: no allocation per token."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

Entry = tuple[int, int, int, bool]
"""(token, position, sequence, whether its logits are wanted)."""


class Batch:
    """Room for `capacity` entries; `c` is the structure that `llama_decode` takes."""

    def __init__(self, library: Any, capacity: int) -> None:
        import numpy as np

        self.token: Any = np.zeros(capacity, np.int32)
        self.position: Any = np.zeros(capacity, np.int32)
        self.sequence: Any = np.zeros(capacity, np.int32)
        self.wanted: Any = np.zeros(capacity, np.int8)
        self._one = np.ones(capacity, np.int32)
        base, size = self.sequence.ctypes.data, self.sequence.itemsize
        self._rows = (ctypes.c_void_p * capacity)(*(base + size * i for i in range(capacity)))

        def pointer(array: Any, kind: Any) -> Any:
            return array.ctypes.data_as(ctypes.POINTER(kind))

        self.c: Any = library.llama_batch(
            n_tokens=0,
            token=pointer(self.token, ctypes.c_int32),
            pos=pointer(self.position, ctypes.c_int32),
            n_seq_id=pointer(self._one, ctypes.c_int32),
            seq_id=ctypes.cast(self._rows, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=pointer(self.wanted, ctypes.c_int8),
        )

    def fill(self, entries: Sequence[Entry]) -> None:
        """Hold these entries, at least one and at most `capacity`."""
        count = len(entries)
        tokens, positions, sequences, wanted = zip(*entries, strict=True)
        self.token[:count] = tokens
        self.position[:count] = positions
        self.sequence[:count] = sequences
        self.wanted[:count] = wanted
        self.c.n_tokens = count

    def fill_run(self, tokens: Any, start: int, *, want_last: bool) -> None:
        """Hold an array of tokens of sequence 0 at positions from `start` on."""
        import numpy as np

        count = len(tokens)
        self.token[:count] = tokens
        self.position[:count] = np.arange(start, start + count, dtype=np.int32)
        self.sequence[:count] = 0
        self.wanted[:count] = 0
        self.wanted[count - 1] = want_last
        self.c.n_tokens = count

    def fill_side_by_side(self, columns: Any, start: int, *, want_last: bool) -> None:
        """Hold an array (positions, sequences) of tokens, at positions from `start` on."""
        import numpy as np

        length, sequences = columns.shape
        count = length * sequences
        self.token[:count] = columns.ravel()
        self.position[:count] = start + np.arange(count, dtype=np.int32) // sequences
        self.sequence[:count] = np.arange(count, dtype=np.int32) % sequences
        self.wanted[:count] = 0
        self.wanted[count - sequences : count] = want_last
        self.c.n_tokens = count
