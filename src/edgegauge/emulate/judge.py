"""Results of an artifact under a device's limits, with the verdict on its memory.

    (result,) = measure_emulated(emulator, [workload])
    result.emulation.verdict

Running out of memory is a verdict too: a `FailedResult` whose `emulation` says so. The rates in a
result are this host's, and their source says that; those of the device are in
`emulation.expected`, predicted from its profile. Joules there are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgegauge.emulate.emulator import Emulator
from edgegauge.emulate.expect import expected
from edgegauge.emulate.verdict import Observed
from edgegauge.emulation import Emulation
from edgegauge.figure import Figure, Unit
from edgegauge.measure.manager import Progress, measure_grid
from edgegauge.result import FailedResult, Result, Workload

NO_ENERGY = "no joules are given under emulation: this host's power is not the device's"


def measure_emulated(
    emulator: Emulator,
    workloads: Sequence[Workload],
    *,
    prompt_text: str | None = None,
    timeout_s: float | None = None,
    progress: Progress = lambda done, note: None,
) -> list[Result | FailedResult]:
    """`measure_grid` under the limits of a device, without energy; raises what that does."""
    results = measure_grid(
        emulator.artifact, workloads, prompt_text=prompt_text, timeout_s=timeout_s,
        attempt=emulator.attempt, progress=progress,
    )  # fmt: skip
    return [_judged(result, emulator) for result in results]


def _judged(result: Result | FailedResult, emulator: Emulator) -> Result | FailedResult:
    runs = emulator.observed[str(result.workload.model_dump())]
    found = emulation_of(emulator, result.workload, runs)
    update: dict[str, object] = {
        "emulation": found, "warnings": [*result.warnings, *_warnings(found)],
    }  # fmt: skip
    if isinstance(result, Result):
        memory = result.summary.memory.model_copy(update={"outcome": found.verdict})
        update["summary"] = result.summary.model_copy(
            update={"memory": memory, "energy_reason": NO_ENERGY}
        )
    return result.model_copy(update=update)


def emulation_of(emulator: Emulator, workload: Workload, runs: list[Observed]) -> Emulation:
    """What the runs of one configuration found, beside what was expected of it."""
    verdict, reason = emulator.verdict(runs, emulator.app_bytes)
    libraries = emulator.libraries_bytes or 0
    enforced_by = emulator.place.version if emulator.place else "process limits"
    charged = [run.counted.peak_bytes for run in runs]
    stalled = [(run.counted.stalled_s, run.seconds) for run in runs]
    return Emulation(
        device=emulator.profile.id,
        enforced_by=enforced_by,
        not_enforced=list(emulator.not_enforced()),
        memory_bytes=Figure(
            emulator.app_bytes, "bytes", "stated", emulator.profile.memory.app_gb.source
        ),
        libraries_bytes=libraries,
        cores=len(emulator.cpus),
        verdict=verdict,
        reason=reason,
        whole=None if None in (kept := {run.whole for run in runs}) else kept == {True},
        peak_bytes=_most(
            [None if peak is None else peak + libraries for peak in charged], "bytes", enforced_by
        ),
        refaulted_bytes=_most([run.refaulted_bytes for run in runs], "bytes", enforced_by),
        major_faults_per_token=_most([run.faults_per_token for run in runs], "1", "getrusage"),
        stalled_share=_most(
            [None if waited is None else waited / whole for waited, whole in stalled], "1", "PSI"
        ),
        expected=expected(emulator.artifact, workload, emulator.profile, emulator.features),
    )


def _most(values: Sequence[float | None], unit: Unit, source: str) -> Figure | None:
    """The largest value that is known."""
    known = [value for value in values if value is not None]
    return Figure(max(known), unit, "emulated", source) if known else None


def _warnings(found: Emulation) -> Iterator[str]:
    """What the verdict does not cover."""
    for text in found.not_enforced:
        yield f"not as on {found.device}: {text}"
    if found.whole is False:
        yield (
            "part of the model was in memory at somebody else's charge, so the limit was not "
            "whole: end other programs that use the file, and measure again"
        )
    if found.expected and found.expected.outcome != found.expected.device_outcome:
        yield (
            f"this processor packs other weights than that of {found.device}, for which "
            f"{found.expected.device_outcome!r} is predicted, and {found.expected.outcome!r} here"
        )
