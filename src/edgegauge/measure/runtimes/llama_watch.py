"""Values that llama.cpp computes on the way, by the names that its graphs give them.

    watch = Watch({"result_norm": "last"}.get)
    with closing(LlamaCppRuntime(watch).open(path, threads=1, context=64)) as session:
        session.prefill(tokens)
    watch.seen["last"]                      # a list of flat float32 arrays, one for each pass

Values are those of ggml's evaluation callback. Only float32 values can be watched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any


class Watch:
    """Keeps the values of the names that `key_of` has a key for, the last ones of a pass."""

    def __init__(self, key_of: Callable[[str], str | None]) -> None:
        self.seen: dict[str, list[Any]] = {}
        self._key_of = key_of
        self._callback: Any = None
        """The C callback; it must outlive the context."""

    def attach(self, library: Any, params: Any) -> None:
        """Have the context that is made with these parameters report here."""
        import numpy as np

        ggml = library.llama_cpp._lib
        name_of, size_of, get = ggml.ggml_get_name, ggml.ggml_nbytes, ggml.ggml_backend_tensor_get
        name_of.restype, size_of.restype = ctypes.c_char_p, ctypes.c_size_t
        name_of.argtypes = size_of.argtypes = [ctypes.c_void_p]
        get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]

        def report(tensor: int, asks: bool, _: Any) -> bool:
            key = self._key_of(name_of(tensor).decode("utf-8", "replace"))
            if not asks and key is not None:
                size = size_of(tensor)
                values = np.empty(size // 4, np.float32)
                get(tensor, values.ctypes.data, 0, size)
                self.seen.setdefault(key, []).append(values)
            return key is not None if asks else True

        self._callback = library.ggml_backend_sched_eval_callback(report)
        params.cb_eval = self._callback
