"""Readings that failed in a row: a few leave a gap, more are the end of a meter.

A bus that is busy or a command that timed out once must not cost a run of ten minutes, and must not
be read as zero either.
"""

from __future__ import annotations

from edgegauge.measure.meters import MeterLost

LIMIT = 3
"""Failures in a row after which a meter is lost."""


class Misses:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self._count = 0

    def seen(self) -> None:
        """A reading succeeded."""
        self._count = 0

    def missed(self, what: str) -> None:
        """A reading failed; raises MeterLost when that happened `LIMIT` times in a row."""
        self._count += 1
        if self._count >= LIMIT:
            raise MeterLost(f"{what} {LIMIT} times in a row")
