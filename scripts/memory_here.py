"""Anonymous memory of fresh processes on one machine, beside what is predicted for them.

    for row in missing_rows("onnx", MODELS, stored_rows()):   # a minute for each model
        append(row)
    print(report(stored_rows()))

Rows are kept in tests/data/memory_here.csv, so that a killed run goes on where it stopped and tests
can compare them with today's predictions. Delete a row to have it measured again.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import product
from pathlib import Path

from edgegauge import catalog
from edgegauge.artifact import Origin
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.detect import detect
from edgegauge.footprint import Footprint, footprint
from edgegauge.measure.child import Message
from edgegauge.measure.memory import status
from edgegauge.measure.runtimes import runtime_for
from edgegauge.measure.worker import job
from edgegauge.memory_llama_cpp import TOKEN_BYTES, VOCABULARY_BYTES, instruction_set
from edgegauge.model import ModelSpec
from edgegauge.recipe import resolve
from edgegauge.result import Workload
from edgegauge.units import MB

ROWS = Path(__file__).resolve().parents[1] / "tests" / "data" / "memory_here.csv"
CHILD = Path(__file__).with_name("memory_child.py")

SHAPES = {
    "qwen3-33m": ("qwen3-0.6b", {"layers": 8, "hidden": 384, "intermediate": 1152, "heads": 6,
                                 "kv_heads": 3, "head_dim": 64, "vocab": 49_152}),
    "gemma3-56m": ("gemma-3-270m", {"layers": 12, "hidden": 512, "intermediate": 1536,
                                    "head_dim": 128, "vocab": 49_152}),
}  # fmt: skip
"""Small models of families whose catalog begins higher."""

MODELS = (
    "qwen3-33m", "stories42m", "gemma3-56m", "stories110m", "mobilellm-ls-350m", "smollm2-360m",
    "qwen1.5-0.5b", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-1b-pt", "mobilellm-1b",
    "tinyllama-1.1b-intermediate-step-1431k-3t",
)  # fmt: skip
"""No constant was fitted to them; docs/explanation/memory.md says what a look at them changed."""

RECIPES = {
    "gguf": ("q4_0", "q4_k_m", "q8_0"), "onnx": ("int4", "int8", "int4_e8"),
    "tflite": ("int4", "int8", "int4_row"),
}  # fmt: skip
PROMPTS = ((128, 0), (256, 512))
"""Tokens of the prompt, and tokens in the context before it."""
GENERATED = 8
EVERY_S = 0.002
"""How often the memory of a process is looked at."""

RELATIVE, ABSOLUTE_BYTES = 0.03, 10 * MB
"""What a prediction may be off."""


@dataclass(frozen=True)
class Row:
    """One process: memory at the end of each phase and at its highest, anonymous, in bytes."""

    format: str
    model: str
    recipe: str
    prompt_tokens: int
    depth_tokens: int
    isa: str
    runtime: str
    import_bytes: int
    load_bytes: int
    prefill_bytes: int
    decode_bytes: int
    peak_bytes: int

    @property
    def measured_bytes(self) -> int:
        """The most that was seen: the watch may miss a moment, the end of a phase is sure."""
        return max(self.peak_bytes, self.load_bytes, self.prefill_bytes, self.decode_bytes)

    @property
    def footprint(self) -> Footprint:
        """What is predicted for it. Synthetic artifacts have a plain vocabulary, or none."""
        spec, prompt = spec_of(self.model), self.prompt_tokens + self.depth_tokens
        needs = footprint(
            spec, self.recipe, file_format=self.format, features=[self.isa],
            context=prompt + GENERATED, prompt_tokens=prompt,
        )  # fmt: skip
        plain = VOCABULARY_BYTES + TOKEN_BYTES * spec.vocab if self.format == "gguf" else 0
        return replace(needs, tokenizer_bytes=plain)

    @property
    def more_bytes(self) -> int:
        """Predicted beyond measured."""
        return self.footprint.anonymous_bytes - self.measured_bytes

    @property
    def error(self) -> float:
        """Predicted / measured - 1."""
        return self.more_bytes / self.measured_bytes


@cache
def spec_of(model: str) -> ModelSpec:
    """The shape of a catalog id or of a key of SHAPES."""
    base, changes = SHAPES.get(model, (model, {}))
    return catalog.load()[base].spec.model_copy(update={"id": model, **changes})


def stored_rows(path: Path = ROWS) -> list[Row]:
    """The rows of a file; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [_row(line) for line in csv.DictReader(stream)]


def _row(line: dict[str, str]) -> Row:
    texts = ("format", "model", "recipe", "isa", "runtime")
    return Row(**{k: v if k in texts else int(v) for k, v in line.items()})  # type: ignore[arg-type]


def missing_rows(file_format: str, models: Sequence[str], known: Sequence[Row]) -> Iterator[Row]:
    """Measure what is not known yet, one model after the other in a temporary folder."""
    there_are = {row_key(row) for row in known}
    for model, recipe in product(models, RECIPES[file_format]):
        prompts = [
            p for p in PROMPTS
            if (file_format, model, recipe, *p) not in there_are
            and sum(p) + GENERATED <= spec_of(model).context
        ]  # fmt: skip
        if prompts:
            with _artifact(model, recipe, file_format) as path:
                for prompt, depth in prompts:
                    yield _measured(file_format, model, recipe, path, prompt, depth)


def row_key(row: Row) -> tuple[str, str, str, int, int]:
    """What was measured."""
    return row.format, row.model, row.recipe, row.prompt_tokens, row.depth_tokens


def append(row: Row, path: Path = ROWS) -> None:
    """Add a row at the end of the file."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


@contextmanager
def _artifact(model: str, recipe: str, file_format: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        asked = ConversionJob(
            spec=spec_of(model), folder=None,
            origin=Origin(kind="catalog", reference=model, synthetic=True),
            recipe=resolve(recipe, file_format), output=Path(folder),
        )  # fmt: skip
        yield converter_for(file_format).convert(asked, lambda done, note: None).path


def _measured(
    file_format: str, model: str, recipe: str, path: Path, prompt: int, depth: int
) -> Row:
    runtime = runtime_for(file_format)
    # One thread: threads that wait for each other are slow where others work too.
    load = Workload(
        prompt_tokens=prompt, depth=depth, generated_tokens=GENERATED, threads=1,
        repetitions=1, runs=1,
    )  # fmt: skip
    phases, peak_bytes = _phases(job(runtime, path, load.model_dump()))
    ends = {f"{name}_bytes": phase["anonymous_bytes"] for name, phase in phases.items()}
    return Row(
        format=file_format, model=model, recipe=recipe, prompt_tokens=prompt, depth_tokens=depth,
        isa=instruction_set(_features()), runtime=f"{runtime.name} {runtime.version()}",
        peak_bytes=peak_bytes, **ends,
    )  # fmt: skip


def _phases(asked: Message) -> tuple[dict[str, dict[str, int]], int]:
    """Do a job in a fresh process: memory at the end of its phases, and the most that was seen."""
    command, pipe = [sys.executable, "-P", str(CHILD)], subprocess.PIPE
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child,
        _watched(child.pid) as highest,
    ):
        answers, said = child.communicate(json.dumps(asked))
    if child.returncode:
        raise SystemExit(f"the process ended with status {child.returncode}: {said[-2000:]}")
    return json.loads(answers.splitlines()[-1])["phases"], highest[0]


@cache
def _features() -> list[str]:
    return list(detect(measure=None).profile.cpu.features)


@contextmanager
def _watched(pid: int) -> Iterator[list[int]]:
    """The most anonymous memory of a process within the block, as the only entry."""
    highest, ended = [0], threading.Event()
    root = Path("/proc") / str(pid)

    def watch() -> None:
        while not ended.wait(EVERY_S):
            told = status(root)
            highest[0] = max(highest[0], told.get("RssAnon", 0) + told.get("RssShmem", 0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        ended.set()
        thread.join()


def report(rows: Sequence[Row]) -> str:
    """Markdown: for each format how many rows are within the bounds, then a line for each model."""
    lines = [
        "| format | rows | median error | largest | within 3 % | within 10 MB | within either |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    formats = [f for f in RECIPES if any(row.format == f for row in rows)]
    lines += [_summary([row for row in rows if row.format == f]) for f in formats]
    lines += [
        "",
        "| format | model | recipes | 128 tokens, MB | error, % | 768 tokens, MB | error, % |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    return "\n".join(lines + [_line(rows, f, model) for f in formats for model in MODELS])


def _summary(rows: Sequence[Row]) -> str:
    errors = [abs(row.error) for row in rows]
    near = [error <= RELATIVE for error in errors]
    small = [abs(row.more_bytes) <= ABSOLUTE_BYTES for row in rows]
    either = sum(map(max, near, small))
    return (
        f"| {rows[0].format} | {len(rows)} | {statistics.median(errors):.1%} | {max(errors):.1%} "
        f"| {sum(near)} | {sum(small)} | {either} |"
    )


def _line(rows: Sequence[Row], file_format: str, model: str) -> str:
    cells = [file_format, model, ", ".join(RECIPES[file_format])]
    for _, depth in PROMPTS:
        found = [r for r in rows if row_key(r)[:2] == (file_format, model)]
        found = [row for row in found if row.depth_tokens == depth]
        cells.append(", ".join(f"{row.measured_bytes / MB:.0f}" for row in found))
        cells.append(", ".join(f"{100 * row.error:+.1f}" for row in found))
    return f"| {' | '.join(cells)} |"
