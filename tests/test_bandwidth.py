"""Measuring how fast memory is read."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from edgegauge.detect import measured_counts
from edgegauge.device import Cluster
from edgegauge.errors import MeasurementError
from edgegauge.host import bandwidth
from edgegauge.host.bandwidth import measure_read, thread_counts
from edgegauge.units import MIB

# Bandwidth


def test_thread_counts() -> None:
    assert thread_counts(1, 1) == [1]
    assert thread_counts(4, 4) == [1, 2, 4]
    assert thread_counts(9, 5) == [1, 2, 4, 5, 8, 9]
    clusters = [Cluster(core="x", count=4), Cluster(core="y", count=2)]
    assert measured_counts(clusters) == [1, 2, 4, 6]


def test_reading_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "WINDOWS", 2)
    monkeypatch.setattr(bandwidth, "MOST_WINDOWS", 2)
    monkeypatch.setattr(bandwidth, "WINDOW_S", 0.02)
    said: list[tuple[int, int]] = []
    found = measure_read(
        [1, 2], cache_bytes=4 * MIB, free_bytes=400 * MIB, order=[],
        progress=lambda done, threads: said.append((done, threads)),
    )  # fmt: skip
    assert said == [(0, 1), (1, 2)]
    assert found.buffer_bytes == 64 * MIB
    assert set(found.gb_per_s) == {1, 2}
    # Wide bounds: one thread of a slow core under load, to more than any memory of today.
    assert all(0.05 < rate < 2000 for rate in found.gb_per_s.values())
    assert found.cached_gb_per_s > 0.05


def test_every_byte_of_the_slices_is_read_once_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads share the buffer without overlap, and go on where the last window stopped."""
    monkeypatch.setattr(bandwidth, "WINDOW_S", 0.005)
    calls: list[tuple[int, int]] = []
    lock = threading.Lock()
    reader = bandwidth._Reader(8 * MIB)
    try:

        def note(address: int, byte: int, length: int) -> None:
            with lock:
                calls.append((address - reader.address, length))

        reader._memchr = note  # type: ignore[assignment]
        bandwidth._best(reader, 2, MIB, 8 * MIB, [])
    finally:
        reader.close()
    offsets = {offset for offset, _ in calls}
    assert offsets == {n * MIB for n in range(8)}
    first = [offset for offset, _ in calls if offset < 4 * MIB]
    assert all((b - a) % (4 * MIB) == MIB for a, b in pairwise(first))


def test_the_buffer_is_several_times_the_caches_or_there_is_no_figure() -> None:
    assert bandwidth._buffer_bytes(100 * MIB, 4000 * MIB) == 400 * MIB
    assert bandwidth._buffer_bytes(MIB // 2, 329 * MIB) == 64 * MIB  # Raspberry Pi Zero 2 W
    with pytest.raises(MeasurementError, match="get past the caches"):
        bandwidth._buffer_bytes(100 * MIB, 300 * MIB)
    with pytest.raises(MeasurementError, match="only 20"):
        bandwidth._buffer_bytes(MIB, 20_000_000)
