"""Calibrating: short runs of synthetic models on this machine, and the costs fitted to them.

    found = calibrate("llama.cpp", installed_runtimes()["llama.cpp"], profile, threads=4)
    found.calibration.decode["Q4_0"]         # Coefficient(value=1.1e-11, error=4e-13)

Five shapes tell costs apart: SMALL fits the last-level cache, so that products count and
memory does not; WIDE and NARROW are past it, with rows that suit every block length and with rows
that do not; DEEP and SHALLOW are all layers, many and few, and hardly any weights. SMALL and NARROW
are also given long prompts, for attention: one has a key head for each query head, the other one
for three.

Models are made in a temporary folder, one after the other, and measured by `measure` as any
artifact is: one child process per run. All are run there and back again; other programs can only
make a run slower, so the fastest run of each counts, and where two disagree it is run again.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median

from edgegauge import __version__
from edgegauge.artifact import Artifact, Origin
from edgegauge.calibration_fit import Timing, fitted
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.device import Calibration, DeviceProfile
from edgegauge.errors import MissingDependency
from edgegauge.measure.machine import Machine
from edgegauge.measure.manager import measure_grid
from edgegauge.measure.results import error_of
from edgegauge.measure.runtimes import Runtime, registered
from edgegauge.measure.turn import turn
from edgegauge.model import ModelSpec
from edgegauge.recipe import tensor_bytes
from edgegauge.result import FailedResult, Result, Run, Workload
from edgegauge.units import MB, MIB
from edgegauge.work import Work, work_of

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done, between runs only."""

SHORT, LONG = 64, 640
"""Prompt lengths; the long one is more than a runtime computes at once."""
GENERATED = 24
REPETITIONS = 2
LEAST_PAST, MOST_PAST = 48 * MB, 400 * MB
"""Bounds of the size of a model that is past the last-level cache."""
PAST_CACHES = 3
UNKNOWN_CACHE = 4 * MIB
"""Taken for the last-level cache where a profile has none."""
AGREE = 0.03
"""Two runs that differ by less than this share are not repeated."""
MOST_APART, MOST_DOUBTED = 0.25, 0.5
"""Shares of the workloads that may fail to repeat, and of the runs that may be disturbed."""
MOST_RUNS = 4
MOST_S = 100.0
"""No run is repeated any more once a runtime has taken so long."""
RUN_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder's widths; `layers` None: as many as make it `caches` times the cache."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    layers: int | None = None
    caches: float = PAST_CACHES

    def spec(self, name: str, recipe: str, file_format: str, cache_bytes: float) -> ModelSpec:
        """The model, as long as this recipe makes it large enough."""
        if self.layers is not None:
            return self._spec(name, self.layers)
        few, more = (tensor_bytes(self._spec(name, n), recipe, file_format) for n in (8, 16))
        layer = (more - few) / 8
        past = min(max(self.caches * cache_bytes, LEAST_PAST), MOST_PAST)
        return self._spec(name, max(2, math.ceil((past - (few - 8 * layer)) / layer)))

    def _spec(self, name: str, layers: int) -> ModelSpec:
        return ModelSpec(
            id=f"calibration-{name}", family="llama", layers=layers, hidden=self.hidden,
            intermediate=self.intermediate, heads=self.heads, kv_heads=self.kv_heads, head_dim=64,
            vocab=self.vocab, tied=True, context=2048, norm_eps=1e-5, rope_theta=10_000.0,
        )  # fmt: skip


SHAPES = {
    "small": Shape(256, 768, 4, 4, 16384, layers=8),
    "wide": Shape(1024, 2816, 16, 4, 8192),
    "narrow": Shape(576, 1536, 9, 3, 4096, caches=PAST_CACHES / 2),
    "deep": Shape(64, 128, 1, 1, 512, layers=32),
    "shallow": Shape(64, 128, 1, 1, 512, layers=4),
}

RECIPES = {
    "gguf": ("q8_0", "q4_0", "q4_k_m", "f16"),
    "onnx": ("int8", "int4", "int4_128", "f32"),
    "tflite": ("int8", "int4", "int4_row", "f32"),
}
"""Format: three recipes that are run in full, and one that is run small."""

NARROW_RECIPE = {"gguf": "q4_k_m", "onnx": "int8", "tflite": "int8"}
"""The recipe that has other types in rows of 576, if any has."""


def plan(file_format: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Shape, recipe and prompt lengths of every model that is run."""
    *full, plain = RECIPES[file_format]
    yield "shallow", full[0], (SHORT,)
    yield "deep", full[0], (SHORT,)
    yield "small", plain, (SHORT,)
    for recipe in full:
        yield "small", recipe, (SHORT, LONG)
    for recipe in full:
        yield "wide", recipe, (2 * SHORT,)
    yield "narrow", NARROW_RECIPE[file_format], (SHORT, LONG)


@dataclass(slots=True)
class Point:
    """One model under one workload, and the times of its runs so far: (decode, prefill)."""

    artifact: Artifact
    work: Work
    workload: Workload
    times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the two fastest runs agree, by both times."""
        return len(self.times) > 1 and all(b <= (1 + AGREE) * a for a, b, *_ in self._ordered())

    def _ordered(self) -> tuple[list[float], list[float]]:
        decodes, prefills = zip(*self.times, strict=True)
        return sorted(decodes), sorted(prefills)

    def timing(self) -> Timing:
        """The fastest times, and how far the second fastest are from them."""
        (decode, next_decode, *_), (prefill, next_prefill, *_) = self._ordered()
        apart = max(next_decode / decode, next_prefill / prefill) - 1
        load = self.workload
        return Timing(
            work=self.work, prompt_tokens=load.prompt_tokens,
            depth=load.prompt_tokens + load.generated_tokens // 2,
            decode_s=decode, prefill_s=prefill, noise=apart / math.sqrt(2),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibration, and what disturbed it."""

    calibration: Calibration
    notes: list[str]


def installed_runtimes() -> dict[str, Runtime]:
    """The runtimes whose packages are here, by the names of their entry points."""
    found = {}
    for name, runtime in registered():
        try:
            runtime.version()
        except MissingDependency:
            continue
        found[name] = runtime
    return found


def disk_bytes(file_format: str, cache_bytes: float) -> int:
    """Bytes of all models of one format, which are on disk together."""
    return sum(
        tensor_bytes(SHAPES[shape].spec(shape, recipe, file_format, cache_bytes), recipe,
                     file_format)
        for shape, recipe, _ in plan(file_format)
    )  # fmt: skip


def cache_of(profile: DeviceProfile) -> float:
    """Bytes of the last-level cache."""
    size = profile.cpu.l3_cache_mb or profile.cpu.l2_cache_mb
    return size * MIB if size else float(UNKNOWN_CACHE)


@turn()
def calibrate(
    name: str,
    runtime: Runtime,
    profile: DeviceProfile,
    *,
    threads: int,
    machine: Machine | None = None,
    progress: Progress = lambda done, note: None,
) -> Calibrated:
    """Calibrate a runtime of `installed_runtimes` here; `profile` tells the size of the cache.

    Raises what converting and measuring raise.
    """
    cache = cache_of(profile)
    with tempfile.TemporaryDirectory(prefix="edgegauge-") as folder:
        points = list(_make(runtime.formats[0], cache, Path(folder), threads, progress))
        spoiled = settle(points, runtime, machine or Machine(), progress)
    timings = [point.timing() for point in points]
    decode, prefill = fitted(name, timings, cache)
    runs = sum(len(point.times) for point in points)
    calibration = Calibration(
        runtime_version=runtime.version(), threads=threads, cache_bytes=cache,
        decode=decode.coefficients, prefill=prefill.coefficients,
        decode_residual=decode.residual, prefill_residual=prefill.residual,
        trustworthy=not spoiled,
        source=f"measured on this machine on {date.today().isoformat()} by edgegauge "
        f"{__version__}: {runs} runs of {len(set(p.artifact.path for p in points))} synthetic "
        f"models",
    )  # fmt: skip
    return Calibrated(calibration, spoiled)


def _make(
    file_format: str, cache_bytes: float, folder: Path, threads: int, progress: Progress
) -> Iterator[Point]:
    """Make every model of the plan."""
    converter = converter_for(file_format)
    for shape, recipe, prompts in plan(file_format):
        progress(0.0, f"making {shape} in {recipe}")
        spec = SHAPES[shape].spec(shape, recipe, file_format, cache_bytes)
        origin = Origin(kind="config", reference=spec.id, synthetic=True)
        job = ConversionJob(
            spec=spec, folder=None, origin=origin, recipe=recipe, output=folder, threads=threads
        )
        artifact = converter.convert(job, lambda done, note: None)
        work = work_of(spec, recipe, file_format)
        yield from points_of(artifact, work, prompts, threads)


def points_of(artifact: Artifact, work: Work, prompts: Sequence[int], threads: int) -> list[Point]:
    """One point of this artifact for each prompt length."""
    base = Workload(generated_tokens=GENERATED, threads=threads, runs=1, repetitions=REPETITIONS)
    return [
        Point(artifact, work, base.model_copy(update={"prompt_tokens": tokens}))
        for tokens in prompts
    ]


def settle(
    points: Sequence[Point], runtime: Runtime, machine: Machine, progress: Progress
) -> list[str]:
    """Run all points there and back, then those again that do not repeat.

    Returns what spoiled the runs, if too many never repeat. Raises what measuring raises.
    """
    started = time.monotonic()
    runs = doubted = 0
    notes: list[str] = []
    for number in range(MOST_RUNS):
        late = time.monotonic() - started > MOST_S
        waiting = [p for p in points if number < 2 or not (p.agrees or late)]
        for done, point in enumerate(waiting if number % 2 == 0 else waiting[::-1]):
            share = min(1.0, (number + done / len(waiting)) / 2)
            progress(share, f"{point.artifact.name}, {point.workload.prompt_tokens} tokens")
            result = _measured(point, runtime, machine)
            point.times.append(_times(result.samples[0]))
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


def _times(run: Run) -> tuple[float, float]:
    """Median seconds per generated token and per prompt, over the rounds."""
    gaps = [math.fsum(r.inter_token_s) / len(r.inter_token_s) for r in run.rounds]
    return median(gaps), median(r.prefill_s for r in run.rounds)
