"""Result files: what a measurement found, complete enough to be reported or doubted in a year.

Format history:
    1  first version

Raw samples are stored; the summary can be recomputed from them (`measure.statistics`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from edgegauge.document import Document, parse, read_json_object
from edgegauge.emulation import Emulation
from edgegauge.energy import Energy
from edgegauge.errors import InputError
from edgegauge.figure import Figure

Seconds = Annotated[float, Field(ge=0, le=1e9)]
"""A duration that can be one: a file may hold anything, and sums must stay finite."""


class Tool(Document):
    """The program that measured and the runtime it drove."""

    edgegauge: str
    runtime: str
    runtime_version: str


class ArtifactFacts(Document):
    """The artifact that ran. `recipe` is None for a file that nobody described."""

    name: str
    model: str
    recipe: str | None
    format: Literal["gguf", "onnx", "tflite"]
    file_bytes: int
    sha256: str | None
    """None where a result was imported and the file is not here to be hashed."""
    parameters: int | None = None
    effective_bits: float | None = None
    synthetic: bool = False


class PromptSource(Document):
    """A text that the prompts were cut from; the text itself stays out of the result."""

    name: str
    sha256: str


class Workload(Document):
    """What each run does. Tokens and counts; `depth` tokens are in the cache before the clock."""

    mode: Literal["burst", "sustained"] = "burst"
    """sustained: decoding goes on until its rate is steady, and that rate is the result."""
    prompt: PromptSource | None = None
    """None: random tokens."""
    parallel: int = Field(default=1, ge=1, le=256)
    """Sequences decoded side by side, each with its own prompt and depth."""

    prompt_tokens: int = Field(default=128, gt=0, le=1_000_000)
    generated_tokens: int = Field(default=64, gt=1, le=1_000_000)
    depth: int = Field(default=0, ge=0, le=1_000_000)
    threads: int = Field(gt=0, le=1024)
    runs: int = Field(default=3, gt=0, le=1000)
    """Child processes."""
    repetitions: int = Field(default=3, gt=0, le=10_000)
    """Timed prefill-then-decode rounds in each child, after one untimed round; at least so many:
    short rounds are repeated until half a second is timed."""
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens of context that one sequence of a round takes."""
        return self.depth + self.prompt_tokens + self.generated_tokens


class Round(Document):
    """One timed prefill and decode: seconds, the first token apart from the gaps after it.

    With several sequences side by side each gap is one step of all of them.
    """

    prefill_s: Seconds
    ttft_s: Seconds
    """Prefill plus choosing the first token."""
    inter_token_s: list[Seconds]
    start_s: float | None = None
    """When it began, on the monotonic clock."""


class Phase(Document):
    """Memory of the child at the end of a phase, and its peak within it; bytes."""

    rss_bytes: int
    anonymous_bytes: int | None
    """Cannot be reclaimed: caches, scratch space, repacked weights. None outside Linux."""
    file_bytes: int | None
    """Pages of files, the mapped weights among them; the system may drop and re-read them."""
    swap_bytes: int | None
    pss_bytes: int | None = None
    """Like RSS, with pages that other processes map too divided by their number."""
    footprint_bytes: int | None = None
    """macOS: phys_footprint, which its memory limits count; mapped weights are not in it."""
    peak_rss_bytes: int | None
    """VmHWM since the phase began; None where the kernel cannot reset it."""


class ChildRun(Document):
    """What is known of a child process, whatever it timed."""

    load_s: float | None
    """None: not timed, in a sustained run."""
    phases: dict[str, Phase]
    """import (interpreter and libraries, no model), load, then the work, in this order."""
    peak_rss_bytes: int | None = None
    """The largest resident size of the whole process."""
    major_faults: int | None = None
    """Pages read from storage while it was timed; the untimed work before has touched them all."""
    involuntary_switches: int | None = None
    """Times the scheduler took the CPU away while it was timed."""
    runtime_facts: dict[str, Any] = {}

    @property
    def passes(self) -> int:
        """Passes over the weights that were timed."""
        raise NotImplementedError


class Run(ChildRun):
    """A child that timed rounds of a language model; its phases end with prefill and decode."""

    rounds: list[Round]

    @property
    def passes(self) -> int:
        """One for each prompt, one for each token after the first."""
        return sum(1 + len(timed.inter_token_s) for timed in self.rounds)


class Repetitions(Document):
    """One test of another tool, which times prompts and decoding apart and in one process."""

    test: Literal["prefill", "decode"]
    tokens: int = Field(gt=0)
    """Of each repetition."""
    depth: int = Field(ge=0)
    """Tokens in the context before each."""
    seconds: list[float] = Field(min_length=1)


class Percentiles(Document):
    """Order statistics; a percentile the sample is too small for is None.

    The 90th needs 29 values and the 99th 299. `max` is always there.
    """

    p50: Figure
    p90: Figure | None = None
    p99: Figure | None = None
    max: Figure | None = None
    samples: int

    @property
    def tail(self) -> Figure:
        """The 99th percentile, or the largest seen where the sample is too small for one.

        The maximum of a small sample may lie below the true 99th percentile; a limit checked
        against it is checked against the worst that was seen.
        """
        return self.p99 or self.max or self.p50


class Failure(Document):
    """A run that did not end well."""

    run: int
    """Counted from 0."""
    phase: str
    """What the child was doing: import, load, prefill, decode, ..."""
    kind: Literal["killed", "crashed", "out of memory", "timeout", "failed"]
    reason: str


class MemorySummary(Document):
    """Peaks over all phases and runs; anonymous memory cannot be reclaimed, file pages can."""

    outcome: Literal["fits", "thrashes", "out of memory"] | None = None
    """thrashes: weights were re-read from storage, or swap was used, while tokens were timed."""
    peak_rss_bytes: Figure | None
    peak_anonymous_bytes: Figure | None
    peak_file_bytes: Figure | None
    phases: dict[str, Phase] = {}


class Sustained(Document):
    """Decoding until the rate is steady: what is left of the first rate, and when."""

    burst_tok_per_s: Figure
    """The median rate of the first 30 s, or until the first throttling."""
    plateau_tok_per_s: Figure | None
    """None where the time ran out before the rate was steady."""
    drop_percent: Figure | None
    """From burst to plateau."""
    time_to_plateau_s: float | None
    peak_temperature_c: float | None
    throttled: bool | None
    """None where the machine does not tell."""


class Summary(Document):
    """The figures of a result (design contract 4).

    Of a result that was imported from another tool, what that tool does not tell is None.
    """

    prefill_tok_per_s: Figure | None
    decode_tok_per_s: Figure | None
    ttft_s: Percentiles | None
    inter_token_s: Percentiles | None
    tpot_s: Percentiles | None = None
    """Mean gap of each round: (last token - first token) / (generated tokens - 1)."""
    stall_share: Figure | None = None
    """Share of decoding time spent in gaps longer than three medians."""
    load_s: Figure | None
    memory: MemorySummary
    sustained: Sustained | None = None
    energy_j_per_token: Figure | None = None
    """Total energy per generated token of the best source; `Result.energy` has the rest."""
    energy_reason: str | None = None
    """Why there is no energy figure."""
    battery: dict[str, Figure] | None = None


class Result(Document):
    """A result file."""

    format: Literal[1] = 1
    tool: Tool
    artifact: ArtifactFacts
    host: dict[str, Any]
    """cpu_model, kernel, ...; `before` and `after` hold what may change during a run."""
    workload: Workload
    samples: list[Run]
    imported: list[Repetitions] = []
    """In place of samples, where another tool measured."""
    failures: list[Failure] = []
    energy: list[Energy] = []
    """One entry per source, the best first."""
    summary: Summary
    emulation: Emulation | None = None
    """Where it ran under another device's limits. The rates above are this host's all the same."""
    warnings: list[str] = []
    trustworthy: bool = True
    created: str


class FailedResult(Document):
    """What is written where no run ended well: the facts, and how each run failed."""

    format: Literal[1] = 1
    tool: Tool
    artifact: ArtifactFacts
    host: dict[str, Any]
    workload: Workload
    failures: list[Failure] = Field(min_length=1)
    emulation: Emulation | None = None
    warnings: list[str] = []
    created: str


def result_from(value: dict[str, Any], where: str) -> Result | FailedResult:
    """A result document, of whichever of the two kinds it is; InputError with every problem."""
    if "samples" not in value and "failures" in value:
        return parse(value, FailedResult, where)
    return parse(value, Result, where)


def read_result(path: Path) -> Result:
    """The result file at `path`; InputError, with the reason, where no run of it ended well."""
    found = result_from(read_json_object(path), str(path))
    if isinstance(found, FailedResult):
        last = found.failures[-1]
        raise InputError(
            f"{path} holds no figures, because its measurement failed: {last.reason}",
            hint="measure again",
        )
    return found
