"""From runs under limits to a verdict: fits, thrashes, out of memory, or cannot tell.

    out of memory   a run was killed by the kernel at the limit, or was refused memory
    thrashes        a run read the model from storage again while tokens were timed, or so slowly
                    that it was stopped after it had re-read more than the whole file
    fits            every run ended, and none of the above

A run that failed in another way tells nothing. Without a control group nothing limits the pages of
files; a run then fits if all that was resident, pages of files included, stayed below the limit.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

from edgegauge.emulate.group import Counted
from edgegauge.measure.memory_outcome import outcome
from edgegauge.memory import Outcome
from edgegauge.result import Failure, Run
from edgegauge.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A run under limits: what became of it, and what its group counted."""

    ended: Run | Failure
    counted: Counted
    seconds: float
    whole: bool | None
    """Whether all pages of the model were charged to it; None where that cannot be seen."""

    @property
    def refaulted_bytes(self) -> int | None:
        """Read again after it had been evicted."""
        pages = self.counted.refaulted_pages
        return None if pages is None else pages * mmap.PAGESIZE

    @property
    def faults_per_token(self) -> float | None:
        """Major faults by token of the timed rounds; a prompt is one pass as a token is."""
        if isinstance(self.ended, Failure) or self.ended.major_faults is None:
            return None
        return self.ended.major_faults / self.ended.passes


def verdict_of(
    runs: Sequence[Observed], *, memory_bytes: int, file_bytes: int, grouped: bool
) -> tuple[Outcome | None, str]:
    """The verdict on runs of one configuration and what it was seen by.

    `file_bytes` is the artifact's size; `grouped` whether a control group limited the run.
    """
    failures = [run for run in runs if isinstance(run.ended, Failure)]
    for run in failures:
        if run.counted.oom_kills:
            phase = run.ended.phase if isinstance(run.ended, Failure) else ""
            return "out of memory", f"killed by the kernel at the limit, in the phase {phase!r}"
        if isinstance(run.ended, Failure) and run.ended.kind == "out of memory":
            return "out of memory", run.ended.reason
        if (run.refaulted_bytes or 0) > file_bytes:
            text = f"re-read {format_bytes(run.refaulted_bytes or 0)} before it was stopped"
            return "thrashes", text
    if failures:
        return None, "a run failed for another reason than memory"
    ended = [run.ended for run in runs if isinstance(run.ended, Run)]
    if not grouped:
        return _without_group(ended, memory_bytes)
    # What was re-read in all is no sign: most of it may be files that were read to be copied.
    found = outcome(ended)
    faults = max((run.faults_per_token or 0.0 for run in runs), default=0.0)
    return found, f"{faults:.3g} major faults by token in the timed rounds of the worst run"


def _without_group(runs: Sequence[Run], memory_bytes: int) -> tuple[Outcome | None, str]:
    peak = max((run.peak_rss_bytes or 0 for run in runs), default=0)
    seen = f"{format_bytes(peak)} were resident at most, pages of files included"
    if 0 < peak <= memory_bytes:
        return "fits", seen
    return None, f"{seen}: without a control group nothing tells whether it fits or thrashes"
