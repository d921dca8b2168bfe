"""An artifact on this host under a device's limits, one child at a time.

    emulator = Emulator(profile, artifact)
    seen = emulator.observe(job, 0, emulator.app_bytes, timeout_s=60)

Each child runs in a control group of its own with so much memory, less the pages of the runtime's
libraries (they are in this host's page cache, at nobody's charge), without swap, and on as many
processors as the device has, if there are as many here.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

from edgegauge.artifact import Artifact
from edgegauge.device import DeviceProfile
from edgegauge.emulate.group import Limits, confined, usable_place
from edgegauge.emulate.libraries import library_bytes
from edgegauge.emulate.places import DELEGATE
from edgegauge.emulate.verdict import Observed, verdict_of
from edgegauge.errors import EdgeGaugeError, InputError
from edgegauge.host.cpu import linux_cpu
from edgegauge.host.memory import linux_memory
from edgegauge.host.tree import Tree, fields
from edgegauge.measure import page_cache
from edgegauge.measure.child import Message
from edgegauge.measure.series import attempt
from edgegauge.memory import Outcome
from edgegauge.result import Failure, Run
from edgegauge.units import MIB, format_bytes

READ_AHEAD_KB = page_cache.READ_AHEAD_KB
LEAST_LIMIT_BYTES = 8 * MIB
"""Below this not even a process can be started."""
WHOLE = 0.9
"""Share of the model's cached pages that must be charged to the run."""
FOREIGN = "run it in a Linux virtual machine or on a CI runner; `edgegauge fit` predicts anywhere"
NO_GROUP = (
    "pages of files are not limited: that weights are read again and again is not seen",
    "memory shared without a file is not limited: XNNPACK keeps packed weights in such",
    "memory that is reserved and never touched counts as if it were used",
)
"""How limits of a process differ from those of a device."""


class Emulator:
    """Runs children of one artifact under the limits of a device."""

    def __init__(
        self, profile: DeviceProfile, artifact: Artifact, tree: Tree | None = None
    ) -> None:
        if sys.platform != "linux":
            raise InputError("limits of a device can be imposed on Linux only", hint=FOREIGN)
        self.profile = profile
        self.artifact = artifact
        self.tree = tree or Tree()
        self.place, self._refusals = usable_place(self.tree)
        self.app_bytes = round(profile.app_memory_bytes)
        """What one application may use on the device."""
        self.cpus, self.features = _processor(self.tree)
        del self.cpus[profile.cores :]
        self.libraries_bytes: int | None = None
        """Known once a child is to be started; 0 where nothing but the process is limited."""
        self.observed: defaultdict[str, list[Observed]] = defaultdict(list)
        """Workload, as in the job: what `attempt` saw."""
        self._read_ahead = page_cache.read_ahead_setting(artifact.path)
        self._swap_is_off = True

    def threads(self) -> int:
        """Threads by default: the device's fast cores, as far as there are as many here."""
        return min(self.profile.cpu.fast_cores, len(self.cpus))

    def attempt(
        self, job: Message, index: int, *, tree: Tree, timeout_s: float | None
    ) -> Run | Failure:
        """One child under the device's limits, for `measure_grid`."""
        del tree  # it is `self.tree`
        seen = self.observe(job, index, self.app_bytes, timeout_s=timeout_s)
        self.observed[str(job["workload"])].append(seen)
        if isinstance(seen.ended, Failure):
            return seen.ended
        source = f"{seen.ended.runtime_facts['source']}, this host's, limited as {self.profile.id}"
        facts = {**seen.ended.runtime_facts, "source": source}
        return seen.ended.model_copy(update={"runtime_facts": facts})

    def observe(
        self, job: Message, index: int, memory_bytes: int, *, timeout_s: float | None
    ) -> Observed:
        """One child that may use `memory_bytes`, libraries included, and what was counted."""
        if self.libraries_bytes is None:
            self.libraries_bytes = library_bytes(job) if self.place else 0
        limit = max(memory_bytes - self.libraries_bytes, LEAST_LIMIT_BYTES)
        settings = {str(self._read_ahead): str(READ_AHEAD_KB)} if self._read_ahead else {}
        page_cache.drop(self.artifact.paths)
        limits = Limits(limit, tuple(self.cpus), settings)
        with confined(self.place, limits, self.tree) as cage:
            started = time.monotonic()
            ended = attempt(job, index, tree=self.tree, timeout_s=timeout_s, within=cage.within)
            seconds = time.monotonic() - started
            counted, self._swap_is_off = cage.counted(), cage.swap_is_off
            cached = page_cache.cached_bytes(self.artifact.path)
        if isinstance(ended, Failure) and counted.oom_kills:
            reason = f"the kernel ended it at the limit of {format_bytes(memory_bytes)}"
            ended = ended.model_copy(update={"kind": "out of memory", "reason": reason})
        charged = counted.file_bytes
        whole = None if cached is None or charged is None else charged >= WHOLE * cached
        return Observed(ended=ended, counted=counted, seconds=seconds, whole=whole)

    def verdict(self, runs: list[Observed], memory_bytes: int) -> tuple[Outcome | None, str]:
        """The verdict on runs under this limit, and what it was seen by."""
        return verdict_of(
            runs, memory_bytes=memory_bytes, file_bytes=self.artifact.bytes,
            grouped=self.place is not None,
        )  # fmt: skip

    def not_enforced(self) -> Iterator[str]:
        """Limits of the device that are not imposed here, in words."""
        if self.place is None:
            yield from NO_GROUP
            tried = f" ({'; '.join(self._refusals)})" if self._refusals else ""
            yield f"there is no control group to use here{tried}; one way to get one: {DELEGATE}"
        elif not self._swap_is_off and fields(self.tree.text("proc/swaps"), " "):
            yield "swap is not limited by this kernel's control groups"
        if self.place and self._read_ahead and not os.access(self._read_ahead, os.W_OK):
            kb = self._read_ahead.read_text().strip()
            yield (
                f"the disk reads {kb} kB ahead instead of {READ_AHEAD_KB}: near the limit it may "
                f"thrash here and not there; as root: echo {READ_AHEAD_KB} > {self._read_ahead}"
            )
        if len(self.cpus) < self.profile.cores:
            yield f"{len(self.cpus)} processors instead of {self.profile.cores}: there are no more"
        memory = linux_memory(self.tree)
        if memory and memory.app_bytes < self.app_bytes:
            yield (
                f"this host has {format_bytes(memory.app_bytes)} to give, and the device "
                f"{format_bytes(self.app_bytes)}: running out of memory here says nothing of it"
            )


def _processor(tree: Tree) -> tuple[list[int], list[str]]:
    """The usable processors, one of each core first, and the instruction sets."""
    try:
        facts = linux_cpu(tree)
    except EdgeGaugeError:  # a processor that no core class describes
        facts = None
    allowed = sorted(os.sched_getaffinity(0))
    if facts is None:
        return allowed, []
    return facts.order or allowed, list(facts.features)
