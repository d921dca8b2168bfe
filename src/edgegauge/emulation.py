"""What running under another device's limits found, as a result file holds it.

The verdict is about memory alone, and so are the figures of kind `emulated`. Rates of the device
are `predicted` and never made from the rates that were seen here; joules there are none.
"""

from __future__ import annotations

from typing import Literal

from edgegauge.document import Document
from edgegauge.figure import Figure
from edgegauge.memory import Outcome


class Expected(Document):
    """What is predicted of the same artifact and workload; None where nobody knows its shape."""

    outcome: Outcome
    """On this processor, whose instruction set decides which weights are packed."""
    device_outcome: Outcome
    """On the device's processor."""
    needed_bytes: Figure
    """On this processor: what must stay in memory."""
    anonymous_bytes: Figure
    """On this processor: what must be had at all."""
    decode_tok_per_s: Figure | None = None
    """On the device, like those below: from its profile."""
    prefill_tok_per_s: Figure | None = None
    ttft_s: Figure | None = None


class Boundary(Document):
    """Where the verdict changes, found by repeated runs; an interval is the last two limits."""

    fits_bytes: Figure | None
    """The smallest memory in which it fits; None where it did not in any that was tried."""
    survives_bytes: Figure | None
    """The smallest in which it does not run out of memory, the libraries' pages included."""
    trials: int
    """Runs that it took."""


class Emulation(Document):
    """One configuration under the limits of a device."""

    device: str
    enforced_by: Literal["cgroup v2", "cgroup v1", "process limits"]
    not_enforced: list[str] = []
    """Limits of the device that could not be imposed here, in words."""
    memory_bytes: Figure
    """What one application may use on the device."""
    libraries_bytes: int
    """Pages of the interpreter's and the runtime's files. They are in this host's page cache and
    charged to nobody's run, so the limit was set lower by as much."""
    cores: int
    """Processors that the child had, at most the device's."""
    verdict: Outcome | None
    """None where the limits that could be imposed do not tell."""
    reason: str
    """What the verdict was seen by."""
    whole: bool | None = None
    """Whether all pages of the model were charged to the runs; None where that cannot be seen."""
    peak_bytes: Figure | None = None
    """Most that was charged to a run, and the libraries; page cache counts until it is dropped."""
    refaulted_bytes: Figure | None = None
    """Read again after it had been evicted, in the worst run."""
    major_faults_per_token: Figure | None = None
    """Pages waited for, by token of the timed rounds of the worst run."""
    stalled_share: Figure | None = None
    """Time in which the whole run waited for memory (PSI)."""
    expected: Expected | None = None
    boundary: Boundary | None = None
