"""Calibrations of a machine and models that they did not see: the runs, and the errors.

    run_missing("litert", 1, path)             # runs that the file lacks, kept one by one
    judged("litert", stored_runs(path))        # predicted against measured, by unseen workload

`tests/data/calibration` has a file for each machine, and that a line for each process: of the
models of a calibration (`calibration_shapes.py`) and of twelve others in three recipes with two
prompt lengths. Both are run by the same code, there and back again until the two fastest runs
agree. The calibration is made again from its runs whenever it is asked for, so that its arithmetic
may change.
"""

from __future__ import annotations

import csv
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from statistics import median

from memory_here import SHAPES as SMALLER
from memory_here import spec_of as catalog_spec

from edgegauge.calibrate import cache_of, installed_runtimes
from edgegauge.calibration import CalibratedSpeed
from edgegauge.calibration_fit import Timing, calibration_of
from edgegauge.calibration_runs import (
    Point,
    agree,
    made,
    points_of,
    settle,
    timing_of,
    workload_of,
)
from edgegauge.calibration_shapes import RECIPES, SHAPES, plan
from edgegauge.detect import detect
from edgegauge.device import Calibration
from edgegauge.measure.machine import Machine
from edgegauge.measure.turn import turn
from edgegauge.model import ModelSpec
from edgegauge.speed import Estimate
from edgegauge.work import work_of

MACHINES = Path(__file__).resolve().parents[1] / "tests" / "data" / "calibration"

UNSEEN = (
    *SMALLER, "stories42m", "stories110m", "smollm2-135m", "gemma-3-270m", "smollm2-360m",
    "qwen1.5-0.5b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-1b-pt",
    "tinyllama-1.1b-intermediate-step-1431k-3t",
)  # fmt: skip
"""33M to 1.1B parameters of the four families."""
PROMPTS = (64, 384)
PHASES = ("decode", "prefill")
FORMATS = {"llama.cpp": "gguf", "onnxruntime": "onnx", "litert": "tflite"}


@dataclass(frozen=True)
class Run:
    """One process: the model (a key of SHAPES or an id), its size, and the times in seconds."""

    runtime: str
    version: str
    date: str
    threads: int
    cache_bytes: int
    model: str
    recipe: str
    prompt_tokens: int
    weight_bytes: int
    decode_s: float
    prefill_s: float

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The workload."""
        return self.runtime, self.model, self.recipe, self.prompt_tokens


@dataclass(frozen=True)
class Judged:
    """One unseen workload: predicted / measured time of each phase, and what else is told of it."""

    runtime: str
    model: str
    recipe: str
    prompt_tokens: int
    measured: dict[str, float]
    """Phase: seconds."""
    ratio: dict[str, float]
    inside: dict[str, bool]
    """Whether the 80 % interval holds what was measured."""
    repeats: bool


def spec_of(model: str, recipe: str, file_format: str, cache_bytes: float) -> ModelSpec:
    """The shape of a calibration's or of an unseen model."""
    if model in SHAPES:
        return SHAPES[model].spec(model, recipe, file_format, cache_bytes)
    return catalog_spec(model)


def workloads(file_format: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Model, recipe and prompt lengths of all that is run: the calibration first."""
    yield from plan(file_format)
    *recipes, _ = RECIPES[file_format]
    for model in UNSEEN:
        for recipe in recipes:
            yield model, recipe, PROMPTS


def stored_machines() -> dict[str, list[Run]]:
    """The runs of each machine, by its name."""
    return {path.stem: stored_runs(path) for path in sorted(MACHINES.glob("*.csv"))}


def stored_runs(path: Path) -> list[Run]:
    """The runs of a file; none where there is no file."""
    if not path.exists():
        return []
    types = {"threads": int, "cache_bytes": int, "prompt_tokens": int, "weight_bytes": int,
             "decode_s": float, "prefill_s": float}  # fmt: skip
    with path.open(newline="") as stream:
        return [Run(**{k: types.get(k, str)(v) for k, v in line.items()})
                for line in csv.DictReader(stream)]  # fmt: skip


def append(run: Run, path: Path) -> None:
    """Add a run at the end of the file."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Run)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(run))


@turn()
def run_missing(runtime_name: str, threads: int, path: Path) -> None:
    """Make all models of a runtime in a temporary folder and run what the file lacks."""
    known = stored_runs(path)
    runtime = installed_runtimes()[runtime_name]
    cache = int(cache_of(detect(measure=None).profile))
    with tempfile.TemporaryDirectory(prefix="edgegauge-") as folder:
        points: list[Point] = []
        names: dict[int, tuple[str, str]] = {}
        for model, recipe, prompts in workloads(runtime.formats[0]):
            spec = spec_of(model, recipe, runtime.formats[0], cache)
            artifact = made(spec, recipe, runtime.formats[0], Path(folder), threads)
            work = work_of(spec, recipe, runtime.formats[0])
            for point in points_of(artifact, work, prompts, threads):
                key = (runtime_name, model, recipe, point.workload.prompt_tokens)
                point.times += [(r.decode_s, r.prefill_s) for r in known if r.key == key]
                points.append(point)
                names[id(point)] = model, recipe

        def keep(point: Point) -> None:
            decode_s, prefill_s = point.times[-1]
            append(
                Run(
                    runtime_name, runtime.version(), date.today().isoformat(), threads, cache,
                    *names[id(point)], point.workload.prompt_tokens,
                    point.work.weight_bytes, round(decode_s, 8), round(prefill_s, 8),
                ),
                path,
            )  # fmt: skip

        settle(points, runtime, Machine(), lambda done, note: print(note, flush=True),
               most_s=math.inf, keep=keep)  # fmt: skip


def timings(runs: Sequence[Run]) -> dict[tuple[str, str, str, int], tuple[Timing, bool]]:
    """Workload: its time by the fastest of its runs, and whether the two fastest agree."""
    found = {}
    for key in dict.fromkeys(run.key for run in runs):
        mine = [run for run in runs if run.key == key]
        runtime, model, recipe, tokens = key
        spec = spec_of(model, recipe, FORMATS[runtime], mine[0].cache_bytes)
        work = work_of(spec, recipe, FORMATS[runtime])
        if work.weight_bytes != mine[0].weight_bytes:
            raise SystemExit(f"{model} {recipe} has changed since it was run: run it again")
        times = [(run.decode_s, run.prefill_s) for run in mine]
        found[key] = timing_of(work, workload_of(tokens, mine[0].threads), times), agree(times)
    return found


def calibrated(runtime: str, runs: Sequence[Run]) -> Calibration:
    """The calibration that a runtime's runs of the calibration's models give."""
    mine = [run for run in runs if run.runtime == runtime and run.model in SHAPES]
    found = [timing for timing, _ in timings(mine).values()]
    return calibration_of(
        runtime, found, runtime_version=mine[0].version, threads=mine[0].threads,
        cache_bytes=mine[0].cache_bytes, source=f"{len(mine)} runs of {mine[0].date}",
    )  # fmt: skip


def judged(runtime: str, runs: Sequence[Run]) -> list[Judged]:
    """What a runtime's calibration says of the models that it did not see."""
    speed = CalibratedSpeed(runtime, calibrated(runtime, runs))
    rows = []
    unseen = [run for run in runs if run.runtime == runtime and run.model not in SHAPES]
    for (_, model, recipe, tokens), (timing, repeats) in timings(unseen).items():
        said = {
            "decode": speed.decode(timing.work, timing.depth),
            "prefill": speed.prefill(timing.work, timing.prompt_tokens),
        }
        took = {"decode": timing.decode_s, "prefill": timing.prefill_s}
        rows.append(
            Judged(
                runtime, model, recipe, tokens, took,
                {phase: said[phase].seconds / took[phase] for phase in PHASES},
                {phase: _inside(took[phase], said[phase]) for phase in PHASES}, repeats,
            )
        )  # fmt: skip
    return rows


def _inside(measured_s: float, estimate: Estimate) -> bool:
    return estimate.low <= measured_s <= estimate.high


def summary_of(rows: Sequence[Judged], phase: str) -> dict[str, float]:
    """Of |predicted / measured - 1|, of its logarithm, and how many lie in the interval."""
    errors = sorted(abs(row.ratio[phase] - 1) for row in rows)
    logs = [math.log(row.ratio[phase]) for row in rows]
    return {
        "rows": len(rows),
        "median": median(errors),
        "p90": errors[math.ceil(0.9 * len(errors)) - 1],
        "spread": math.sqrt(sum(log * log for log in logs) / len(logs)),
        "coverage": sum(row.inside[phase] for row in rows) / len(rows),
        "repeats": sum(row.repeats for row in rows) / len(rows),
    }


def report(machines: Mapping[str, Sequence[Run]]) -> str:
    """Markdown: the errors by machine and runtime, then a line for each runtime and model."""
    rows = {
        (machine, runtime): judged(runtime, runs)
        for machine, runs in machines.items()
        for runtime in runtimes_of(runs)
    }
    lines = [
        "| machine | runtime | workloads, runs | decode: median, 90th percentile | in the interval "
        "| prefill: median, 90th percentile | in the interval |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (machine, runtime), mine in rows.items():
        count = sum(r.runtime == runtime and r.model not in SHAPES for r in machines[machine])
        cells = [machine, runtime, f"{len(mine)}, {count}"]
        for phase in PHASES:
            found = summary_of(mine, phase)
            cells.append(f"{found['median']:.1%}, {found['p90']:.1%}")
            cells.append(f"{found['coverage']:.0%}")
        lines.append(f"| {' | '.join(cells)} |")
    heads = [f"{machine}: {phase}" for machine in machines for phase in PHASES]
    lines += ["", f"| runtime | model | recipes | {' | '.join(heads)} |",
              f"|---|---|---|{'---:|' * len(heads)}"]  # fmt: skip
    for runtime in FORMATS:
        mine = [rows.get((machine, runtime), []) for machine in machines]
        lines += [_line(runtime, mine, model) for model in UNSEEN]
    return "\n".join(lines)


def runtimes_of(runs: Sequence[Run]) -> list[str]:
    """The runtimes that a machine's runs are of."""
    return [name for name in FORMATS if any(run.runtime == name for run in runs)]


def _line(runtime: str, machines: Sequence[Sequence[Judged]], model: str) -> str:
    """Percent by machine and phase: recipes in order; of each the short and the long prompt."""
    *recipes, _ = RECIPES[FORMATS[runtime]]
    cells = [runtime, model, ", ".join(recipes)]
    for rows in machines:
        for phase in PHASES:
            texts = []
            for recipe in recipes:
                mine = [r.ratio[phase] for r in rows if (r.model, r.recipe) == (model, recipe)]
                texts.append(" / ".join(f"{100 * (ratio - 1):+.0f}" for ratio in mine))
            cells.append(", ".join(filter(None, texts)))
    return f"| {' | '.join(cells)} |"
