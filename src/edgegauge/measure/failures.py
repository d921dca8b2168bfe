"""How a child failed: its error, and what the kernel counted while it ran.

    kills = MemoryKills(tree)
    try: ...                                       # a child, by way of `child`
    except MeasurementError as error:
        failure = failure_of(error, kills, run=2, phase="decode")

A process that the kernel killed for memory looks like one that somebody killed; only the kernel's
own count tells the two apart.
"""

from __future__ import annotations

from edgegauge.errors import EdgeGaugeError
from edgegauge.host.tree import Tree, fields, integer
from edgegauge.measure.child import failure_kind
from edgegauge.result import Failure

STARTING = "start"
"""The phase before the child's first message."""


class MemoryKills:
    """The kernel's kills for memory, those of control groups included, from now on."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._before = self._since_boot()

    def happened(self) -> bool:
        """Whether there was one since; False where the kernel does not tell."""
        now = self._since_boot()
        return self._before is not None and now is not None and now > self._before

    def _since_boot(self) -> int | None:
        return integer(fields(self._tree.text("proc/vmstat"), " ").get("oom_kill"))


def failure_of(error: EdgeGaugeError, kills: MemoryKills, *, run: int, phase: str) -> Failure:
    """The failure of that run, with what it was doing."""
    reason, kind = str(error), failure_kind(error)
    if kind == "killed" and kills.happened():
        kind = "out of memory"
    if kind == "out of memory" and "memory" not in reason.lower():
        reason = f"the system ran out of memory: {reason}"
    return Failure(run=run, phase=phase, kind=kind, reason=reason)


def described(name: str, failure: Failure) -> str:
    """`tiny.gguf, in the phase 'load': stopped after 3 s, its limit`."""
    doing = "starting" if failure.phase == STARTING else f"in the phase {failure.phase!r}"
    return f"{name}, {doing}: {failure.reason}"
