"""Readings that failed in a row: a few leave a gap, more are the end of a meter.

A bus that is busy or a command that timed out once must not cost a run of ten minutes, and must not
be read as zero either.
"""

from __future__ import annotations

from edgegauge.measure.meters import MeterLost

LIMIT = 3
"""Failures in a row after which a meter is lost, unless it says otherwise."""


class Misses:
    """Counts failures in a row."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._in_a_row = 0
        self.all = 0
        """Failures so far."""

    def seen(self) -> None:
        """A reading succeeded."""
        self._in_a_row = 0

    def missed(self, what: str) -> None:
        """A reading failed; raises MeterLost when that happened as often in a row as allowed."""
        self.all += 1
        self._in_a_row += 1
        if self._in_a_row >= self._limit:
            raise MeterLost(f"{what} {self._limit} times in a row")
