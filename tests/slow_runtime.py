"""The runtime of a file's format, made slower: what a paired comparison has to find.

A child finds it by its import path when PYTHONPATH holds this folder. The environment variable
EDGEGAUGE_SLOWER says by how much: with 0.05, each call that computes is followed by 5 % of its time
in a busy loop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgegauge.measure.runtimes import Session, runtime_for

VARIABLE = "EDGEGAUGE_SLOWER"


class SlowRuntime:
    """Opens what the runtime of the file's format opens."""

    name = "slowed"
    formats = ("gguf", "onnx", "tflite")

    def version(self) -> str:
        return os.environ[VARIABLE]

    def prepare(self) -> None:
        """`open` knows which runtime."""

    def open(self, path: Path, **options: Any) -> Session:
        inner = runtime_for(path.suffix[1:])
        inner.prepare()
        return SlowSession(inner.open(path, **options), float(os.environ[VARIABLE]))


class SlowSession:
    """A session whose every step and prefill takes longer."""

    def __init__(self, inner: Session, slower: float) -> None:
        self._inner = inner
        self._slower = slower

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prefill(self, tokens: Sequence[int]) -> None:
        self._stretched(self._inner.prefill, tokens)

    def step(self, token: int) -> None:
        self._stretched(self._inner.step, token)

    def _stretched(self, call: Any, argument: Any) -> None:
        clock = time.thread_time_ns
        started = clock()
        call(argument)
        ended = clock()
        until = ended + self._slower * (ended - started)
        while clock() < until:
            pass
