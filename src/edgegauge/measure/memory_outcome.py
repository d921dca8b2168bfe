"""Did the model stay in memory while tokens were timed? The two outcomes of a run that ended.

`thrashes` means that pages went to storage and came back: tokens waited for a disk, and the rate is
that of the disk. Out of memory is no outcome of a run that ended, but a failure. Any of these says
that it thrashed:

    swap        part of the model's process was swapped out at the end of a phase
    faults      a run read more than 10 + 0.1 x tokens pages from storage in its timed rounds; the
                untimed round before them has touched every page. Ten are code that runs for the
                first time; 0.1 a token, at 1 ms each from an SD card, take 0.1 ms of a token
    refaults    the kernel re-read more of what it had evicted (workingset_refault_file of
                /proc/vmstat) than two loads of the model's file pages per run would explain
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Literal

from edgegauge.result import ChildRun

FREE_FAULTS = 10
FAULTS_PER_TOKEN = 0.1
LOADS_PER_RUN = 2


def outcome(
    runs: Sequence[ChildRun], *, refaulted_pages: int | None = None
) -> Literal["fits", "thrashes"] | None:
    """The outcome of these runs; None where the system tells neither faults nor swap.

    `refaulted_pages` is how many the whole system re-read from before the first run to after the
    last.
    """
    known = refaulted_pages is not None or any(
        run.major_faults is not None or swapped_bytes(run) is not None for run in runs
    )
    if not known:
        return None
    thrashed = any(swapped_bytes(run) or refaulting(run) for run in runs)
    return "thrashes" if thrashed or reread(runs, refaulted_pages) else "fits"


def swapped_bytes(run: ChildRun) -> int | None:
    """Most bytes of the child that were swapped out at the end of a phase."""
    return max(
        (p.swap_bytes for p in run.phases.values() if p.swap_bytes is not None), default=None
    )


def refaulting(run: ChildRun) -> bool:
    """Whether a run read the model from storage again while it was timed."""
    return (run.major_faults or 0) > FREE_FAULTS + FAULTS_PER_TOKEN * run.passes


def reread(runs: Sequence[ChildRun], refaulted_pages: int | None) -> bool:
    """Whether the system re-read more than loading the model explains."""
    files = [p.file_bytes for run in runs for p in run.phases.values() if p.file_bytes is not None]
    explained = LOADS_PER_RUN * len(runs) * max(files, default=0)
    return bool(explained) and (refaulted_pages or 0) * mmap.PAGESIZE > explained
