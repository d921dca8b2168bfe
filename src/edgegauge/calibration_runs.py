"""The runs of a calibration: each model there and back again, until its times repeat.

    points = points_of(artifact, work, (64, 640), threads=4)
    spoiled = settle(points, runtime, Machine(), lambda done, note: None)
    points[0].timing().decode_s

A run is a child process of `measure`, as for any artifact. Other programs, and on a shared machine
its other users, can only make a run slower: so the fastest tokens and prompts of the fastest run
count, and where the two fastest runs disagree there is one more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgegauge.artifact import Artifact, Origin
from edgegauge.calibration_fit import Timing
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.measure.machine import Machine
from edgegauge.measure.manager import measure_grid
from edgegauge.measure.results import error_of
from edgegauge.measure.runtimes import Runtime
from edgegauge.model import ModelSpec
from edgegauge.result import FailedResult, Result, Run, Workload
from edgegauge.work import Work

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done, between runs only."""

GENERATED = 24
REPETITIONS = 1
AGREE = 0.03
"""Two runs that differ by less than this share are not repeated."""
MOST_APART, MOST_DOUBTED = 0.25, 0.5
"""Shares of the workloads that may fail to repeat, and of the runs that may be disturbed."""
MOST_RUNS = 6
MOST_S = 180.0
"""No run is repeated any more once a runtime has taken so long."""
FASTEST = 0.1
"""The time of a run is what this share of its tokens, or prompts, stays below: where a machine is
shared the slower ones tell of the others."""
RUN_TIMEOUT_S = 120.0


Times = tuple[float, float]
"""Seconds per generated token, and of the prompt."""


@dataclass(slots=True)
class Point:
    """One model under one workload, and the times of its runs so far."""

    artifact: Artifact
    work: Work
    workload: Workload
    times: list[Times] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether another run would tell nothing new."""
        return agree(self.times)

    def timing(self) -> Timing:
        """The time by all runs."""
        return timing_of(self.work, self.workload, self.times)


def agree(times: Sequence[Times]) -> bool:
    """Whether the two fastest runs agree, by both times."""
    return len(times) > 1 and all(b <= (1 + AGREE) * a for a, b, *_ in _ordered(times))


def timing_of(work: Work, workload: Workload, times: Sequence[Times]) -> Timing:
    """The fastest times, and how far the second fastest are from them; two runs at least."""
    (decode, next_decode, *_), (prefill, next_prefill, *_) = _ordered(times)
    apart = max(next_decode / decode, next_prefill / prefill) - 1
    return Timing(
        work=work, prompt_tokens=workload.prompt_tokens,
        depth=workload.prompt_tokens + workload.generated_tokens // 2,
        decode_s=decode, prefill_s=prefill, noise=apart / math.sqrt(2),
    )  # fmt: skip


def _ordered(times: Sequence[Times]) -> tuple[list[float], list[float]]:
    decodes, prefills = zip(*times, strict=True)
    return sorted(decodes), sorted(prefills)


def made(spec: ModelSpec, recipe: str, file_format: str, folder: Path, threads: int) -> Artifact:
    """A model of this shape with random weights, in a folder. Raises what converting raises."""
    origin = Origin(kind="config", reference=spec.id, synthetic=True)
    job = ConversionJob(
        spec=spec, folder=None, origin=origin, recipe=recipe, output=folder, threads=threads
    )
    return converter_for(file_format).convert(job, lambda done, note: None)


def workload_of(prompt_tokens: int, threads: int) -> Workload:
    """What a run does with a prompt of this length."""
    return Workload(
        prompt_tokens=prompt_tokens, generated_tokens=GENERATED, threads=threads, runs=1,
        repetitions=REPETITIONS,
    )  # fmt: skip


def points_of(artifact: Artifact, work: Work, prompts: Sequence[int], threads: int) -> list[Point]:
    """One point of this artifact for each prompt length."""
    return [Point(artifact, work, workload_of(tokens, threads)) for tokens in prompts]


def settle(
    points: Sequence[Point],
    runtime: Runtime,
    machine: Machine,
    progress: Progress,
    *,
    most_s: float = MOST_S,
    keep: Callable[[Point], None] = lambda point: None,
) -> list[str]:
    """Run all points there and back, then those again that do not repeat.

    `keep` is called after each run; points that have times from before are run as often less.
    Returns what spoiled the runs, if too many never repeat. Raises what measuring raises.
    """
    started = time.monotonic()
    runs = doubted = 0
    notes: list[str] = []
    for number in range(MOST_RUNS):
        late = number > 1 and time.monotonic() - started > most_s
        waiting = [p for p in points if len(p.times) <= number and not (p.agrees or late)]
        for done, point in enumerate(waiting if number % 2 == 0 else waiting[::-1]):
            share = min(0.99, (number + done / len(waiting)) / 2)
            progress(share, f"{point.artifact.name}, {point.workload.prompt_tokens} tokens")
            result = _measured(point, runtime, machine)
            point.times.append(_times(result.samples[0]))
            keep(point)
            runs += 1
            if not result.trustworthy:
                doubted += 1
                notes = result.warnings
    apart = sum(not point.agrees for point in points)
    if apart <= MOST_APART * len(points) and doubted <= MOST_DOUBTED * runs:
        return []
    told = f"{apart} of {len(points)} workloads did not repeat within {100 * AGREE:g} %"
    return [
        f"{told}, and {doubted} of {runs} runs were disturbed: the errors are large; calibrate "
        "again on a quiet machine",
        *notes,
    ]


def _measured(point: Point, runtime: Runtime, machine: Machine) -> Result:
    (result,) = measure_grid(
        point.artifact, [point.workload], runtime=runtime, machine=machine, timeout_s=RUN_TIMEOUT_S
    )
    if isinstance(result, FailedResult):
        raise error_of(result)
    return result


def _times(run: Run) -> Times:
    """What the fastest tokens of all rounds took, and the fastest prompts."""
    gaps = [gap for each in run.rounds for gap in each.inter_token_s]
    return _fastest(gaps), _fastest([each.prefill_s for each in run.rounds])


def _fastest(seconds: list[float]) -> float:
    return sorted(seconds)[int(FASTEST * (len(seconds) - 1))]
