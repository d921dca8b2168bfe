"""Lanes: every piece done once, in order, and never two at a time in one session."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fake_session import FakeSession

from edgegauge.evaluate.lanes import opened, side_by_side


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pieces_come_back_in_order_and_sessions_are_not_shared(count: int) -> None:
    sessions = [FakeSession() for _ in range(count)]
    busy: set[int] = set()
    lock = threading.Lock()
    used: set[int] = set()

    def work(session: Any, piece: int) -> int:
        with lock:
            assert id(session) not in busy
            busy.add(id(session))
            used.add(id(session))
        time.sleep(0.002 * (piece % 3))
        with lock:
            busy.remove(id(session))
        return piece * piece

    assert list(side_by_side(sessions, work, range(40))) == [n * n for n in range(40)]
    assert len(used) == count


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_in_a_lane_is_an_error_of_all(count: int) -> None:
    done = []

    def work(session: Any, piece: int) -> None:
        if piece == 2:
            raise ValueError("broken")
        time.sleep(0.005)
        done.append(piece)

    with pytest.raises(ValueError, match="broken"):
        list(side_by_side([FakeSession() for _ in range(count)], work, range(1000)))
    assert len(done) < 100


def test_sessions_are_closed_even_where_opening_one_fails() -> None:
    closed = []

    class Closing(FakeSession):
        def close(self) -> None:
            closed.append(self)

    with opened(2, Closing):
        assert not closed
    assert len(closed) == 2
    made = [Closing()]
    with pytest.raises(IndexError), opened(2, made.pop):
        pass
    assert len(closed) == 3
