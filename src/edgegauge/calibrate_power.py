"""Calibrating what a runtime draws: two synthetic models, each between idle windows of a meter.

    found = calibrate_power(runtime, profile, options, threads=4)
    found.power.decode_w_per_thread      # None: and `found.reason` says why

One model is past the last cache, as models are that people run, the other hardly reads memory
(`calibration_power` tells the joules of bytes by them). Each has an energy run of its own as
`edgegauge measure` makes it (`measure.energy_run`), which takes as long as the meter needs: some
minutes, so it is done on request.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from edgegauge import __version__
from edgegauge.artifact import Artifact
from edgegauge.calibrate import cache_of
from edgegauge.calibration_power import Metered, power_of
from edgegauge.calibration_runs import made
from edgegauge.calibration_shapes import RECIPES, SHAPES
from edgegauge.device import DeviceProfile, InferencePower
from edgegauge.energy import Energy, PhaseName, best_of
from edgegauge.errors import MeasurementError
from edgegauge.figure import Figure
from edgegauge.measure import worker
from edgegauge.measure.energy_run import EnergyOptions, EnergyOutcome, measure_energy
from edgegauge.measure.machine import Machine
from edgegauge.measure.memory import settle_file
from edgegauge.measure.metering import notes_of
from edgegauge.measure.meters import find_meters
from edgegauge.measure.runtimes import Runtime
from edgegauge.measure.turn import turn
from edgegauge.result import Workload
from edgegauge.work import Work, work_of

Progress = Callable[[float, str], None]

LARGE, SMALL = "wide", "deep"
"""Shapes of a calibration: past the last cache, and of hardly any weights."""

PROMPT_TOKENS = {LARGE: 256, SMALL: 16}
"""Few before the small model's answers, so that its keys and values are not much to read either."""
GENERATED_TOKENS = 64
"""Of a round, which is repeated until the windows are long enough."""


@dataclass(slots=True)
class PowerFound:
    """What the meter told; `power` None: why not."""

    power: InferencePower | None = None
    reason: str | None = None
    notes: list[str] = field(default_factory=list)
    """What a reader should know, a line each."""


def check_meters(machine: Machine, options: EnergyOptions) -> None:
    """Raises MeasurementError where no meter can be read, with the reason and what mends it, and
    InputError for a meter of unknown name."""
    found = find_meters(machine, options.live)
    found.close()
    if not found.meters:
        mends = [refused.mend for refused in found.refused if refused.mend]
        raise MeasurementError(
            f"no energy can be measured here: {found.why_none()}",
            hint=mends[0] if len(mends) == 1 else "edgegauge doctor says what mends each of them",
        )


@turn()
def calibrate_power(
    runtime: Runtime,
    profile: DeviceProfile,
    options: EnergyOptions,
    *,
    threads: int,
    machine: Machine | None = None,
    progress: Progress = lambda done, note: None,
) -> PowerFound:
    """Measure here; `profile` tells the size of the cache. Raises what converting raises, and
    InputError where the runtime refuses a model."""
    machine, found = machine or Machine(), PowerFound()
    cache = cache_of(profile)

    def metered(shape: str, phases: tuple[PhaseName, ...], share: float) -> list[Metered]:
        """The energies of a model, which takes its half of the progress from `share` on."""
        progress(share, f"making {shape}")
        artifact, work = _made(shape, runtime.formats[0], cache, Path(folder), threads)
        settle_file(artifact.path)
        load = Workload(
            prompt_tokens=PROMPT_TOKENS[shape], generated_tokens=GENERATED_TOKENS,
            threads=threads, runs=1, repetitions=1,
        )  # fmt: skip
        job = worker.job(runtime, artifact.path.absolute(), load.model_dump())
        outcome = measure_energy(
            job, find_meters(machine, options.live), options, machine, phases=phases,
            progress=lambda done, note: progress(share + done / 2, f"{shape}, {note}"),
        )  # fmt: skip
        _tell(found, shape, outcome)
        return [Metered(energy, work, load, cache) for energy in outcome.energies]

    with tempfile.TemporaryDirectory(prefix="edgegauge-") as folder:
        large = metered(LARGE, ("prefill", "decode"), 0.0)
        best = best_of([each.energy for each in large], _decode_w)
        if best is None or best.decode_w is None:
            found.reason = found.reason or "the meter gave no power while decoding"
            return found
        small = metered(SMALL, ("decode",), 0.5)
    try:
        found.power = power_of(
            next(each for each in large if each.energy is best),
            next((each for each in small if each.energy.source.id == best.source.id), None),
            threads=threads,
            measured=f"{date.today().isoformat()} by edgegauge {__version__}",
        )
    except MeasurementError as error:
        found.reason = str(error)
    return found


def _decode_w(energy: Energy) -> Figure | None:
    return energy.decode_w


def _tell(found: PowerFound, shape: str, outcome: EnergyOutcome) -> None:
    """Keep what is worth saying of one energy run."""
    found.notes += [note for note in notes_of(shape, outcome) if note not in found.notes]
    found.reason = found.reason or outcome.reason


def _made(
    shape: str, file_format: str, cache_bytes: float, folder: Path, threads: int
) -> tuple[Artifact, Work]:
    """A synthetic model of this shape in the format's first recipe, which both have in full."""
    recipe = RECIPES[file_format][0]
    spec = SHAPES[shape].spec(shape, recipe, file_format, cache_bytes)
    artifact = made(spec, recipe, file_format, folder, threads)
    return artifact, work_of(spec, recipe, file_format)
