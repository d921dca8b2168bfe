"""Lanes: several sessions of one artifact that work side by side, each on one thread.

A small model gains little from several threads, because they wait for each other after every layer,
and loses much where another program takes one of their cores. So its work is divided instead of
its layers: each lane has a context of its own and takes the next piece when it is free. Native code
runs without Python's lock, and the weights are mapped from one file.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TypeVar

from edgegauge.measure.runtimes import Session

Piece = TypeVar("Piece")
Done = TypeVar("Done")


@contextmanager
def opened(count: int, open_one: Callable[[], Session]) -> Iterator[list[Session]]:
    """`count` sessions, closed at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(open_one())) for _ in range(count)]


def side_by_side(
    sessions: Sequence[Session], work: Callable[[Session, Piece], Done], pieces: Iterable[Piece]
) -> Iterator[Done]:
    """`work(session, piece)` for every piece, in their order, each with a session of its own."""
    if len(sessions) == 1:
        yield from (work(sessions[0], piece) for piece in pieces)
        return
    free: queue.SimpleQueue[Session] = queue.SimpleQueue()
    for session in sessions:
        free.put(session)

    def borrowed(piece: Piece) -> Done:
        session = free.get()
        try:
            return work(session, piece)
        finally:
            free.put(session)

    with ThreadPoolExecutor(len(sessions)) as pool:
        try:
            yield from pool.map(borrowed, pieces)
        finally:
            pool.shutdown(cancel_futures=True)
