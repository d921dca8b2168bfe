"""Measured read bandwidth: how fast threads of this machine can read memory.

Each thread scans its own slice of one buffer with the C library's `memchr`, looking for a byte that
is not there: read-only, vectorised on every common system, in the base install, and without the
interpreter lock. sbc-bench prints the same as "libc memchr scan", so the figures compare; in its
results for three Raspberry Pi 5 (Au3jaA, 4HDw, 8-NK) memchr is within 2 % of a loop of plain loads.

The buffer is several times the last-level cache, and every page of it is written first, since
untouched pages all map to one page of zeros that stays in the cache. Scanning goes on where it
stopped from one window to the next, so that no window starts with what the last one left in the
cache.

The figure is the best window, as in STREAM: other programs can only make reading slower. Two checks
say when it is a lower bound: how much of the window the threads really ran, and how much faster the
same reader is in the cache (if it is not, the core is the limit and not the memory).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edgegauge.errors import MeasurementError
from edgegauge.units import GB, MIB, format_bytes

CACHES = 4
"""The buffer is this many times all L2 and L3 caches together."""
LEAST_BUFFER = 64 * MIB
MOST_BUFFER = 2048 * MIB
SHARE_OF_FREE = 4
"""At most a quarter of the free memory is used."""
CHUNK = 2 * MIB
"""Bytes per call: long beside the call, short beside a window."""
CACHED = 128 * 1024
"""Bytes that fit the L2 cache of every core worth naming."""
WINDOWS = 12
MOST_WINDOWS = 50
"""Tried where other programs keep the CPUs busy, in hope of a quiet one."""
WINDOW_S = 0.06
QUIET = 0.9
"""A window is quiet when every thread ran at least this share of it."""

Progress = Callable[[int, int], None]
"""Called with the number of thread counts done and the one that comes next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """GB/s (10^9 bytes per second) by number of threads, and what to know about them."""

    gb_per_s: dict[int, float]
    cached_gb_per_s: float
    """One thread reading what lies in its cache: the most this reader can show."""
    buffer_bytes: int
    notes: list[str]


def thread_counts(cores: int, fast_cores: int) -> list[int]:
    """Counts worth measuring: powers of two, the fast cores, all cores."""
    powers = [2**n for n in range(cores.bit_length())]
    return sorted({n for n in (*powers, fast_cores, cores) if 0 < n <= cores})


def measure_read(
    counts: Sequence[int],
    *,
    cache_bytes: int,
    free_bytes: int,
    order: Sequence[int] = (),
    progress: Progress = lambda done, threads: None,
) -> Readings:
    """Read bandwidth for each thread count; about a second per count.

    `order` lists CPU numbers, fastest first: n threads stay on the first n where the system lets
    them. Raises MeasurementError where no honest figure can be had.
    """
    size = _buffer_bytes(cache_bytes, free_bytes)
    reader = _Reader(size)
    try:
        best = {}
        for done, threads in enumerate(counts):
            progress(done, threads)
            best[threads] = _best(reader, threads, CHUNK, size, order)
        cached = _best(reader, 1, CACHED, CACHED, order)
    finally:
        reader.close()
    return Readings(
        gb_per_s={threads: window.gb_per_s for threads, window in best.items()},
        cached_gb_per_s=cached.gb_per_s,
        buffer_bytes=size,
        notes=_doubts(best, cached.gb_per_s),
    )


def _buffer_bytes(cache_bytes: int, free_bytes: int) -> int:
    """The buffer's size, a multiple of the page size."""
    wanted = min(max(LEAST_BUFFER, CACHES * cache_bytes), MOST_BUFFER)
    size = min(wanted, free_bytes // SHARE_OF_FREE)
    if size < LEAST_BUFFER // 4 or size < 2 * cache_bytes:
        raise MeasurementError(
            f"read bandwidth not measured: a buffer of {format_bytes(wanted)} is needed to get "
            f"past the caches, and only {format_bytes(free_bytes)} is free"
        )
    return size // CHUNK * CHUNK


@dataclass(frozen=True, slots=True)
class _Window:
    """One timed window of some threads; `busy` is the least share of it that a thread ran."""

    gb_per_s: float
    busy: float


@dataclass(slots=True)
class _Scan:
    """One thread's slice of the buffer, where it is in it, and what its last window gave."""

    start: int
    end: int
    at: int
    bytes: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    cpus: list[int] = field(default_factory=list)


class _Reader:
    """A buffer whose every byte is 1, and a scan for a 2."""

    def __init__(self, size: int) -> None:
        try:
            library = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
            self._memchr = library.memchr
            self._map = mmap.mmap(-1, size)
        except (OSError, AttributeError, MemoryError) as error:
            raise MeasurementError(f"read bandwidth not measured: {error}") from None
        self._memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        self._memchr.restype = ctypes.c_void_p
        self._first = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._first)
        ctypes.memset(self.address, 1, size)

    def close(self) -> None:
        """Give the memory back; the view must go before the map."""
        del self._first
        self._map.close()

    def scan(self, scan: _Scan, chunk: int, barrier: threading.Barrier) -> None:
        """Read chunk after chunk of the slice, round and round, for one window."""
        if scan.cpus:
            _stay_on(scan.cpus)
        barrier.wait()
        read = 0
        ran = time.thread_time()
        start = now = time.perf_counter()
        while now < start + WINDOW_S:
            self._memchr(self.address + scan.at, 2, chunk)
            read += chunk
            scan.at = scan.at + chunk if scan.at + 2 * chunk <= scan.end else scan.start
            now = time.perf_counter()
        scan.bytes, scan.seconds = read, now - start
        scan.busy = (time.thread_time() - ran) / scan.seconds

    def window(self, scans: list[_Scan], chunk: int) -> _Window:
        """All scans at once for one window."""
        barrier = threading.Barrier(len(scans))
        threads = [threading.Thread(target=self.scan, args=(s, chunk, barrier)) for s in scans]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = sum(s.bytes / s.seconds for s in scans) / GB
        return _Window(rate, min(s.busy for s in scans))


def _best(reader: _Reader, threads: int, chunk: int, size: int, order: Sequence[int]) -> _Window:
    """The fastest window of `threads` threads sharing the first `size` bytes."""
    slice_bytes = max(size // threads // chunk, 1) * chunk
    cpus = list(order[:threads]) if len(order) >= threads else []
    starts = [(n * slice_bytes) % size for n in range(threads)]
    scans = [_Scan(s, s + slice_bytes, s, cpus=cpus) for s in starts]
    windows: list[_Window] = []
    while len(windows) < WINDOWS or (
        len(windows) < MOST_WINDOWS and max(w.busy for w in windows) < QUIET
    ):
        windows.append(reader.window(scans, chunk))
    return max(windows, key=lambda w: w.gb_per_s)


def _stay_on(cpus: list[int]) -> None:
    """Keep the calling thread on these CPUs, where the system allows it."""
    if hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, cpus)  # 0 is the calling thread, not the process
        except OSError:
            return


def _doubts(best: dict[int, _Window], cached: float) -> list[str]:
    """Reasons to take the figures for lower bounds."""
    notes = []
    busy = min(w.busy for w in best.values())
    if busy < QUIET:
        notes.append(
            f"The reading threads ran only {100 * busy:.0f} % of the time (other programs, or a "
            "CPU quota), so the read bandwidth is a lower bound."
        )
    if best[min(best)].gb_per_s > 0.8 * cached:
        notes.append(
            "One thread reads its cache hardly faster than the memory, so the core or the C "
            "library limits the read bandwidth: it is a lower bound."
        )
    drops = [b for a, b in pairwise(sorted(best)) if best[b].gb_per_s < 0.9 * best[a].gb_per_s]
    if drops and busy >= QUIET:
        notes.append(f"Reading gets slower from {drops[0]} threads on.")
    return notes
