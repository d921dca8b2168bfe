"""Sweep files, and the cells that they come to on this machine.

    format = 1
    models = ["ladder:ladder-1m", "hf:owner/name"]
    recipes = ["int8", "int4"]
    formats = ["gguf", "onnx"]
    runtimes = ["llama.cpp", "onnxruntime"]
    threads = [1, 2]
    prompt_tokens = [128, 512]
    depth = [0, 1024]

A cell is one model at one recipe of one format, executed by one runtime under one workload. What
cannot be is left out before anything runs, with a sentence for each reason. Paths are relative to
the sweep's own folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from edgegauge.artifact import FileFormat
from edgegauge.convert import prepare
from edgegauge.document import Document
from edgegauge.errors import EdgeGaugeError, InputError, MissingDependency
from edgegauge.measure.host import default_threads
from edgegauge.measure.manager import grid, name_of
from edgegauge.measure.runtimes import Runtime, registered
from edgegauge.model import ModelSpec
from edgegauge.plan import locate
from edgegauge.result import Workload
from edgegauge.steps import Wanted, candidates

MOST_CELLS = 2000
Tokens = Annotated[int, Field(gt=0, le=1_000_000)]


class Sweep(Document):
    """A sweep file; every combination of its lists is a cell."""

    format: Literal[1] = 1
    models: list[str] = Field(min_length=1, max_length=200)
    """What `edgegauge convert` takes (folders, `hf:owner/name`, catalog ids), or `ladder:NAME`."""
    recipes: list[str] = Field(min_length=1, max_length=20)
    """`int8`, `int4`, or names of a format's own; a format that has not got one is left out."""
    formats: list[FileFormat] = Field(default=list(get_args(FileFormat)), min_length=1)
    """All three, where none are given."""
    runtimes: list[str] | None = Field(default=None, min_length=1)
    """`llama.cpp`, `onnxruntime`, `litert`; all that are installed, where none are given."""
    threads: list[Annotated[int, Field(gt=0, le=1024)]] | None = Field(default=None, min_length=1)
    """As many as there are physical cores, where none are given."""
    prompt_tokens: list[Tokens] = Field(default=[128], min_length=1)
    """Lengths of the prompt."""
    depth: list[Annotated[int, Field(ge=0, le=1_000_000)]] = Field(default=[0], min_length=1)
    """Tokens that are in the context before the prompt."""
    parallel: list[Annotated[int, Field(ge=1, le=256)]] = Field(default=[1], min_length=1)
    """Sequences that are decoded side by side."""
    generated_tokens: int = Field(default=64, gt=1, le=1_000_000)
    """Of each sequence."""
    runs: int = Field(default=3, gt=0, le=100)
    """Child processes for each cell."""
    repetitions: int = Field(default=3, gt=0, le=1000)
    """Timed rounds in each of them, at least."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured once."""

    wanted: Wanted
    spec: ModelSpec
    runtime: Runtime
    workload: Workload

    @property
    def candidate(self) -> str:
        """`smollm2-135m int8 onnx`."""
        return f"{self.spec.id} {self.wanted.recipe} {self.wanted.format}"

    @property
    def text(self) -> str:
        """The cell in a few words."""
        threads = self.workload.threads
        counted = f"{threads} thread{'s' * (threads > 1)}"
        return f"{self.candidate}, {self.runtime.name}, {counted}, {name_of(self.workload)}"


@dataclass(frozen=True, slots=True)
class Cells:
    """What a sweep comes to here, and sentences on what of it was left out."""

    cells: list[Cell]
    left_out: list[str]


def cells(sweep: Sweep, base: Path) -> Cells:
    """Every cell that can be run here, those of one artifact together; `base` is as in `locate`.

    Of a hub model the configuration is fetched. Raises InputError for names that do not exist, for
    a sweep that is too large, and where nothing is left.
    """
    axes: list[Sequence[object]] = [
        sweep.models, sweep.recipes, sweep.formats, sweep.threads or [0], sweep.prompt_tokens,
        sweep.depth, sweep.parallel,
    ]  # fmt: skip
    if (number := prod(len(axis) for axis in axes)) > MOST_CELLS:
        raise InputError(f"{number} cells are more than {MOST_CELLS}: divide the sweep")
    chosen = candidates(sweep.models, sweep.formats, sweep.recipes)
    runtimes, left_out = _runtimes(sweep)
    specs, unreadable = _specs(chosen.candidates, base)
    possible: list[Cell] = []
    impossible: Counter[str] = Counter()
    for cell in _product(chosen.candidates, specs, runtimes, _workloads(sweep)):
        if reason := _impossible(cell):
            impossible[reason] += 1
        else:
            possible.append(cell)
    counted = [f"{reason} ({n} cell{'s' * (n > 1)} left out)" for reason, n in impossible.items()]
    left_out = [*chosen.left_out, *left_out, *unreadable, *counted]
    if not possible:
        raise InputError("no cell of the sweep can be run here", left_out)
    return Cells(possible, left_out)


def _runtimes(sweep: Sweep) -> tuple[list[Runtime], list[str]]:
    """The runtimes that are wanted and installed, and why others are left out."""
    there = dict(registered())
    wanted = list(there) if sweep.runtimes is None else list(dict.fromkeys(sweep.runtimes))
    if unknown := [name for name in wanted if name not in there]:
        raise InputError(f"no runtime {', '.join(unknown)}; there are: {', '.join(there)}")
    found, left_out = [], []
    for runtime in (there[name] for name in wanted):
        try:
            runtime.version()
        except MissingDependency as missing:
            if sweep.runtimes is not None:  # else its format is left out, which is told already
                left_out.append(f"no {runtime.name} cells: {missing}; {missing.hint}")
        else:
            found.append(runtime)
    executed = {name for runtime in found for name in runtime.formats}
    none = [name for name in sweep.formats if sweep.runtimes and name not in executed]
    left_out += [f"no {name} cells: none of the sweep's runtimes executes it" for name in none]
    return found, left_out


def _specs(wanted: Sequence[Wanted], base: Path) -> tuple[dict[str, ModelSpec], list[str]]:
    """The architecture of each model, and why that of others cannot be read."""
    specs, unreadable = {}, []
    for one in {one.reference: one for one in wanted}.values():
        try:
            reference = locate(one.reference, base)
            specs[one.reference] = prepare(reference, one.recipe, one.format, synthetic=True).spec
        except EdgeGaugeError as error:
            unreadable.append(f"no {one.reference} cells: {error}")
    return specs, unreadable


def _workloads(sweep: Sweep) -> list[Workload]:
    return [
        workload
        for threads in dict.fromkeys(sweep.threads or [default_threads()])
        for workload in grid(
            Workload(
                threads=threads, generated_tokens=sweep.generated_tokens, runs=sweep.runs,
                repetitions=sweep.repetitions,
            ),
            prompt_tokens=sweep.prompt_tokens, depth=sweep.depth, parallel=sweep.parallel,
        )
    ]  # fmt: skip


def _product(
    wanted: Sequence[Wanted],
    specs: dict[str, ModelSpec],
    runtimes: Sequence[Runtime],
    workloads: Sequence[Workload],
) -> Iterator[Cell]:
    for one in wanted:
        if spec := specs.get(one.reference):
            for runtime in runtimes:
                if one.format in runtime.formats:
                    yield from (Cell(one, spec, runtime, load) for load in workloads)


def _impossible(cell: Cell) -> str | None:
    load, spec = cell.workload, cell.spec
    if load.context > spec.context:
        return f"{load.context} tokens are more than the {spec.context} of {spec.id}'s context"
    if load.parallel > 1 and not cell.runtime.side_by_side:
        return f"{cell.runtime.name} decodes one sequence at a time"
    return None
