"""Work done ahead by a few threads, its results taken in order.

    for key, made in in_order(((key, task) for ...), threads=2): ...

A converter encodes slices of weights this way: NumPy and ggml release the interpreter's lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")


def in_order(
    tasks: Iterable[tuple[Key, Callable[[], Made]]], threads: int
) -> Iterator[tuple[Key, Made]]:
    """Each task's key and result, never more than two tasks of each thread ahead of the taker."""
    waiting: deque[tuple[Key, Future[Made]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for key, task in tasks:
                waiting.append((key, pool.submit(task)))
                if len(waiting) >= 2 * threads:
                    first, ready = waiting.popleft()
                    yield first, ready.result()
            while waiting:
                first, ready = waiting.popleft()
                yield first, ready.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def available_threads() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
