"""A sweep: every cell of a sweep file measured once, however often it is killed on the way.

    chosen = cells(read_toml(path, Sweep), path.parent)
    summary = execute(chosen, path.parent, Path("edgegauge-sweep"), talk=talk)

Artifacts and results are `steps` with content-addressed names, so a cell that is finished is never
measured again, and another sweep in the same folder shares what both need. A cell that fails is a
file too, and the others go on:

    failed/<model>-<recipe>-<format>-<hash>.json

It stays failed until its model or this machine's runtime changes, or until it is to be retried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from glob import escape
from pathlib import Path
from typing import Literal, Protocol

from edgegauge import __version__
from edgegauge.artifact import Artifact, FileFormat
from edgegauge.document import Document, read_json, write_json
from edgegauge.errors import EdgeGaugeError, InputError, RunTimeout
from edgegauge.figure import Figure
from edgegauge.measure.host import cpu_model
from edgegauge.measure.results import now
from edgegauge.plan import locate
from edgegauge.result import Result, Workload, read_result
from edgegauge.steps import Measurement, Wanted, conversion, digest, fingerprint
from edgegauge.sweep_cells import Cell, Cells
from edgegauge.sweep_pace import Pace, conversion_s
from edgegauge.tflite_spans import CONTEXT

Progress = Callable[[float, str], None]


class Talk(Protocol):
    """Hears what a sweep is doing; the command line draws it, tests record it."""

    def __call__(self, cell: int, cells: int, what: str, note: str, left_s: float) -> None:
        """`what` begins for this cell, or `note` says how it was left; `left_s` is an estimate."""


class CellFailure(Document):
    """The file of a cell that failed."""

    format: Literal[1] = 1
    cell: str
    reason: str
    hint: str | None
    timeout: bool
    created: str


class CellRow(Document):
    """A cell, and what became of it."""

    model: str
    recipe: str
    format: FileFormat
    runtime: str
    threads: int
    prompt_tokens: int
    generated_tokens: int
    depth: int
    parallel: int
    result: str | None = None
    """The result file, relative to the sweep's folder."""
    trustworthy: bool | None = None
    prefill_tok_per_s: Figure | None = None
    decode_tok_per_s: Figure | None = None
    ttft_s: Figure | None = None
    """The median."""
    peak_rss_bytes: Figure | None = None
    failure: CellFailure | None = None


class SweepSummary(Document):
    """What `sweep.json` holds; the results have all the rest."""

    format: Literal[1] = 1
    cells: list[CellRow]
    left_out: list[str]
    """Why other combinations are no cells."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """A cell before a sweep: how long it takes by estimate, and whether its result is there."""

    cell: Cell
    seconds: float
    finished: bool


def forecast(chosen: Cells, base: Path, folder: Path) -> list[Forecast]:
    """Every cell; a conversion is in the seconds of the first cell that needs it."""
    return list(_Work(base, folder, chosen.cells).forecast(0))


def execute(
    chosen: Cells,
    base: Path,
    folder: Path,
    *,
    retry_failed: bool = False,
    talk: Talk,
    progress: Progress = lambda done, note: None,
) -> SweepSummary:
    """Measure every cell that is not measured yet, inside `folder`; paths are relative to `base`.

    `progress` hears the notes of each measurement, its share done counted over all cells. Whatever
    goes wrong with one cell is told in its row.
    """
    work = _Work(
        base, folder, chosen.cells, talk=talk, progress=progress, retry_failed=retry_failed
    )
    rows = [work.row(number, cell) for number, cell in enumerate(chosen.cells)]
    summary = SweepSummary(cells=rows, left_out=chosen.left_out)
    write_json(folder / "sweep.json", summary.model_dump(mode="json"))
    return summary


Key = tuple[str | None, ...]
"""What tells one cell from another of the same machine and state of its model."""


def _key(cell: Cell) -> Key:
    wanted, tool = cell.wanted, cell.runtime
    load = cell.workload.model_dump_json()
    return cell.spec.id, wanted.recipe, wanted.format, tool.name, tool.version(), load


def _results(folder: Path) -> dict[Key, Result]:
    """The readable results in the folder."""
    found: dict[Key, Result] = {}
    for path in folder.glob("results/*.measure.json"):
        with suppress(InputError):
            result = read_result(path)
            facts, tool = result.artifact, result.tool
            load = result.workload.model_dump_json()
            found[facts.model, facts.recipe, facts.format, tool.runtime, tool.runtime_version,
                  load] = result  # fmt: skip
    return found


def _silent(cell: int, cells: int, what: str, note: str, left_s: float) -> None:
    """Nobody hears it."""


@dataclass(slots=True)
class _Work:
    """The cells of one call, in order."""

    base: Path
    folder: Path
    cells: Sequence[Cell]
    talk: Talk = _silent
    progress: Progress = lambda done, note: None
    retry_failed: bool = False
    _artifacts: dict[Wanted, Artifact | EdgeGaugeError] = field(default_factory=dict)
    _finished: set[Key] = field(default_factory=set)
    _pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        results = _results(self.folder)
        for cell in self.cells:
            if result := results.get(_key(cell)):
                self._learn(cell, result)

    def _learn(self, cell: Cell, result: Result) -> None:
        self._finished.add(_key(cell))
        self._pace.add(cell, result)

    def forecast(self, first: int) -> Iterator[Forecast]:
        """From this cell on."""
        there = set(self._artifacts)
        for cell in self.cells[first:]:
            finished = _key(cell) in self._finished
            seconds = 0.0 if finished else self._pace.seconds(cell)
            if cell.wanted not in there and not any(self.folder.glob(_artifact_pattern(cell))):
                seconds += conversion_s(cell.spec)
            there.add(cell.wanted)
            yield Forecast(cell, seconds, finished)

    def row(self, number: int, cell: Cell) -> CellRow:
        """Measure the cell, unless that was done or failed before."""
        path = self._failure_path(cell)
        if path.exists() and not self.retry_failed:
            self._say(number, cell.text, "failed before")
            return _row(cell, failure=read_json(path, CellFailure))
        path.unlink(missing_ok=True)
        try:
            step = self._measurement(number, cell)
            result = step.result(lambda done, note: self._note(number, done, note))
        except EdgeGaugeError as error:
            failure = CellFailure(
                cell=cell.text, reason=str(error), hint=error.hint,
                timeout=isinstance(error, RunTimeout), created=now(),
            )  # fmt: skip
            write_json(path, failure.model_dump(mode="json"))
            self._say(number, cell.text, f"failed: {failure.reason}")
            return _row(cell, failure=failure)
        self._learn(cell, result)
        return _row(cell, str(step.path.relative_to(self.folder)), result)

    def _measurement(self, number: int, cell: Cell) -> Measurement:
        artifact = self._artifact(number, cell)
        step = Measurement(self.folder, artifact, cell.workload, cell.runtime)
        self._say(number, cell.text, "measured before" if step.finished else "")
        return step

    def _artifact(self, number: int, cell: Cell) -> Artifact:
        """The artifact of the cell, made once; of one that failed, the error again."""
        if cell.wanted not in self._artifacts:
            try:
                self._artifacts[cell.wanted] = self._converted(number, cell)
            except EdgeGaugeError as error:
                self._artifacts[cell.wanted] = error
        made = self._artifacts[cell.wanted]
        if isinstance(made, EdgeGaugeError):
            raise made
        return made

    def _converted(self, number: int, cell: Cell) -> Artifact:
        # A TFLite file fixes its context: room for the largest cell, where the usual is too little.
        most = max(c.workload.context for c in self.cells if c.wanted == cell.wanted)
        room = most if cell.wanted.format == "tflite" and most > CONTEXT else None
        step = conversion(cell.wanted, self.base, self.folder, room)
        if not step.finished:
            self._say(number, f"convert {cell.candidate}", "")
        return step.artifact()

    def _failure_path(self, cell: Cell) -> Path:
        model = Path(locate(cell.wanted.reference, self.base))
        state = fingerprint(model) if model.exists() else []
        key = digest("cell", __version__, state, asdict(cell.wanted), _key(cell), cpu_model())
        return self.folder / "failed" / f"{cell.candidate.replace(' ', '-')}-{key}.json"

    def _say(self, number: int, what: str, note: str) -> None:
        left_s = sum(one.seconds for one in self.forecast(number))
        self.talk(number + 1, len(self.cells), what, note, left_s)

    def _note(self, number: int, done: float, note: str) -> None:
        self.progress((number + done) / len(self.cells), f"{self.cells[number].text}, {note}")


def _artifact_pattern(cell: Cell) -> str:
    """Of the artifacts of a candidate, whole ones."""
    return f"artifacts/{escape(cell.candidate.replace(' ', '-'))}-{'?' * 10}"


def _row(
    cell: Cell, path: str | None = None, result: Result | None = None,
    failure: CellFailure | None = None,
) -> CellRow:  # fmt: skip
    load, summary = cell.workload, result.summary if result else None
    shape = load.model_dump(include=CellRow.model_fields.keys() & Workload.model_fields.keys())
    return CellRow(
        model=cell.spec.id,
        recipe=cell.wanted.recipe,
        format=cell.wanted.format,
        runtime=cell.runtime.name,
        **shape,
        result=path,
        trustworthy=result.trustworthy if result else None,
        prefill_tok_per_s=summary.prefill_tok_per_s if summary else None,
        decode_tok_per_s=summary.decode_tok_per_s if summary else None,
        ttft_s=summary.ttft_s.p50 if summary and summary.ttft_s else None,
        peak_rss_bytes=summary.memory.peak_rss_bytes if summary else None,
        failure=failure,
    )
