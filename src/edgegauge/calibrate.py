"""Calibrating: short runs of synthetic models on this machine, and the costs fitted to them.

    found = calibrate("llama.cpp", installed_runtimes()["llama.cpp"], profile, threads=4)
    found.calibration.decode["Q4_0"]         # Coefficient(value=1.1e-11, error=4e-13)

The models (`calibration_shapes.py`) are made in a temporary folder and run there and back again
(`calibration_runs.py`); `calibration_fit.py` turns their times into costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from edgegauge import __version__
from edgegauge.calibration_fit import calibration_of
from edgegauge.calibration_runs import Point, Progress, made, points_of, settle
from edgegauge.calibration_shapes import SHAPES, plan
from edgegauge.device import Calibration, DeviceProfile
from edgegauge.errors import MissingDependency
from edgegauge.measure.machine import Machine
from edgegauge.measure.runtimes import Runtime, registered
from edgegauge.measure.turn import turn
from edgegauge.recipe import tensor_bytes
from edgegauge.units import MIB
from edgegauge.work import work_of

UNKNOWN_CACHE = 4 * MIB
"""Taken for the last-level cache where a profile has none."""


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
    runs = sum(len(point.times) for point in points)
    models = len({point.artifact.path for point in points})
    calibration = calibration_of(
        name, [point.timing() for point in points], runtime_version=runtime.version(),
        threads=threads, cache_bytes=cache, trustworthy=not spoiled,
        source=f"measured on this machine on {date.today().isoformat()} by edgegauge "
        f"{__version__}: {runs} runs of {models} synthetic models",
    )  # fmt: skip
    return Calibrated(calibration, spoiled)


def _make(
    file_format: str, cache_bytes: float, folder: Path, threads: int, progress: Progress
) -> Iterator[Point]:
    """Make every model of the plan."""
    for shape, recipe, prompts in plan(file_format):
        progress(0.0, f"making {shape} in {recipe}")
        spec = SHAPES[shape].spec(shape, recipe, file_format, cache_bytes)
        artifact = made(spec, recipe, file_format, folder, threads)
        work = work_of(spec, recipe, file_format)
        yield from points_of(artifact, work, prompts, threads)
