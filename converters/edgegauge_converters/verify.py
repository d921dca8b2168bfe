"""Verifying artifacts against the NumPy reference; each format adds what it knows of its files.

    GgufVerifier().verify(job, progress)         # in a process that may crash

1. Every stored tensor against the checkpoint's. A tensor in the place of another, one transposed or
   off by a factor departs by more than its type can.
2. The artifact in its runtime against the reference at the stored weights: the graph. What rounding
   may explain is found by the reference itself (`rounding.py`).
3. Each part of the graph by itself, from the runtime's own values before it: the place of a fault,
   and faults that are lost among the roundings of all parts together.
4. A greedy continuation, made as a user's is, against the logits of the same tokens.
5. The artifact against the reference at the checkpoint's weights: what quantisation costs. This is
   recorded and not judged.

Logits go by a few rows at a time. The number of positions falls with the size of the model, so that
the time does not grow with it beyond what reading every weight takes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from edgegauge.errors import ConversionError, EdgeGaugeError
from edgegauge.evaluate.agreement import Comparison, common_prefix
from edgegauge.figure import Figure
from edgegauge.model import ModelSpec
from edgegauge.recipe import StoredTensor
from edgegauge.verification import (
    Agreement,
    PartCheck,
    TokenizerCheck,
    Verification,
    WeightCheck,
)
from edgegauge.verify import Progress, VerificationJob
from edgegauge_converters.plain_rows import PlainRows
from edgegauge_converters.reference import HEAD_ROWS, Array, Reference, Rounding, Weights
from edgegauge_converters.rounding import runtime_rounding
from edgegauge_converters.verify_reference import (
    FLOOR,
    BothWeights,
    Expected,
    Step,
    TensorError,
    Trace,
    allowed,
    expect,
    place_of,
)
from edgegauge_converters.verify_run import ArtifactRun
from edgegauge_converters.weights import Checkpoint

POSITIONS = 256
LEAST_POSITIONS = 32
BUDGET = 2**37
"""Positions times parameters: 256 positions up to 0.5 billion parameters, 32 from 4 billion on."""
WINDOW_BUDGET = 4 * BUDGET
"""The same where it takes more positions to go beyond a sliding window."""
BEYOND_WINDOW = 32

CHOICE_TOLERANCE = 6
"""A continuation's token may be this many allowed errors below the best of the same logits."""

SHOWN_TENSORS = 3

TRACED_LOGITS_BYTES = 2**26
"""Of the positions that are computed part by part, which are fewer for large vocabularies."""


class FormatVerifier(ABC):
    """What is common to all formats; a format says how its files are read and looked into."""

    floor = FLOOR
    """A relative error that is always allowed."""

    @abstractmethod
    def weights(self, job: VerificationJob) -> Weights:
        """The float32 values that the file stores, in the blueprint's plain form."""

    @abstractmethod
    def stored(self, job: VerificationJob) -> list[StoredTensor]:
        """The tensors of the spec with the types that they are stored in."""

    @abstractmethod
    def trace(self, job: VerificationJob, tokens: Sequence[int]) -> Trace:
        """What the runtime computes of the first of these tokens on the way to their logits."""

    def also(self, job: VerificationJob) -> list[str]:
        """What else is wrong with a broken file, in words."""
        return []

    def rounding(self, job: VerificationJob) -> Rounding:
        """How the runtime rounds what operations read."""
        types = {s.tensor: s.type for s in self.stored(job)}
        return runtime_rounding(job.file_format, types.__getitem__)

    def verify(self, job: VerificationJob, progress: Progress) -> Verification:
        """What was found; ConversionError, naming the place, for an artifact that is broken."""
        started = time.monotonic()
        positions, notes = positions_for(job.spec, job.context)
        progress(0.0, "running the artifact")
        run = ArtifactRun(job, positions)
        with ExitStack() as stack:
            original = None
            if job.folder is not None:
                checkpoint = stack.enter_context(Checkpoint(job.folder, job.spec))
                original = PlainRows(checkpoint, job.spec)
            else:
                notes.append("the original weights: they are random (synthetic)")
            stored = self.weights(job)
            weights = BothWeights(stored, original, self.stored(job))
            rounding = self.rounding(job)
            trace = self._traced(job, run.tokens, notes)
            expected = expect(
                job.spec, weights, run.tokens, rounding, trace, job.threads,
                lambda done: progress(0.1 + 0.6 * done, "computing what it should say"),
            )  # fmt: skip
            found = _compare(job, weights, run, expected, rounding, progress)
            if trace is not None and expected.stepped is not None:
                _compare_traced(job, weights, trace, expected.stepped, rounding, found.traced)
        judge_weights(job.path.name, list(weights.errors.values()))
        limit = allowed(found.noise.rms, self.floor)
        departs = [s for s in expected.steps if not s.excess(self.floor) <= 1]
        if departs or not found.own.rms <= limit:
            place = described(departs[0], place_of) if departs else _elsewhere(found, limit)
            raise ConversionError(
                f"{job.path.name} does not compute its model: logits are off by "
                f"{found.own.rms:.3g} of their standard deviation, rounding explains {limit:.2g}; "
                f"the first to depart is {'; '.join([place, *self.also(job)])}"
            )
        _judge_continuation(job, run, found, limit)
        judge_tokenizer(job.path.name, run.tokenizer)
        made = _verification(run, weights, found, limit, [*notes, *run.not_checked], started)
        return made.model_copy(update={"parts": _parts(run, expected.steps, self.floor, found)})

    def _traced(
        self, job: VerificationJob, tokens: Sequence[int], notes: list[str]
    ) -> Trace | None:
        """A trace; None, noted, where there is no room for one."""
        positions = max(1, TRACED_LOGITS_BYTES // (4 * job.spec.vocab))
        try:
            return self.trace(job, tokens[:positions])
        except (OSError, EdgeGaugeError) as error:
            notes.append(f"each part by itself: {error}")
            return None


def described(step: Step, place: Callable[[str], str]) -> str:
    """A part that departs, in words."""
    return (
        f"{place(step.point)} (off by {100 * step.error:.2g} %, rounding explains "
        f"{100 * step.rounding:.2g} %)"
    )


def _elsewhere(found: _Compared, limit: float) -> str:
    """The place of a departure that is in no part by itself."""
    if not found.traced.kl:
        return "unknown, since its parts could not be looked into"
    if not found.traced.rms <= limit:
        return "the head"
    return "reading a prompt at once: every part by itself computes what it should"


def positions_for(spec: ModelSpec, context: int | None = None) -> tuple[int, list[str]]:
    """How many tokens are run, and what they cannot show; `context`: what the file has room for."""
    room = context or spec.context
    affordable = max(LEAST_POSITIONS, min(POSITIONS, BUDGET // spec.parameters))
    window = spec.sliding_window or 0
    if window + BEYOND_WINDOW <= affordable:
        return min(affordable, room), []
    wanted = window + BEYOND_WINDOW
    if wanted * spec.parameters <= WINDOW_BUDGET and wanted <= room:
        return wanted, []
    return min(affordable, room), [f"what lies beyond the window of {window} tokens"]


@dataclass(slots=True)
class _Compared:
    """The artifact's logits against each reference's, and the references with each other."""

    own: Comparison = field(default_factory=Comparison)
    noise: Comparison = field(default_factory=Comparison)
    rounded: Comparison = field(default_factory=Comparison)
    traced: Comparison = field(default_factory=Comparison)
    """The head by itself."""
    original: Comparison | None = None
    gaps: list[float] = field(default_factory=list)
    """Of each token of the continuation: how far its logit is below the best."""


def _compare(
    job: VerificationJob, weights: BothWeights, run: ArtifactRun, expected: Expected,
    rounding: Rounding,
    progress: Progress,
) -> _Compared:  # fmt: skip
    found = _Compared()
    reference = Reference(job.spec, weights.stored)
    heads = [reference.head(expected.exact), reference.head(expected.rounded, rounding)]
    if expected.original is not None:
        found.original = Comparison()
        heads.append(Reference(job.spec, weights.original).head(expected.original))
    rows = run.rows()
    with ThreadPoolExecutor(job.threads) as pool:
        while piece := list(islice(rows, HEAD_ROWS)):
            computed, first = np.stack(piece), len(found.own.kl)
            made = pool.map(partial(_rows, count=len(piece)), heads)
            exact, rough, *original = made
            pairs = [
                (found.own, exact, computed),
                (found.noise, exact, rough),
                (found.rounded, rough, computed),
            ]
            if found.original is not None:
                pairs.append((found.original, original[0], computed))
            for _ in pool.map(lambda pair: pair[0].add(*pair[1:]), pairs):
                pass
            found.gaps += _gaps(run, first, computed)
            progress(0.7 + 0.3 * len(found.own.kl) / len(run.tokens), "comparing logits")
    return found


def _compare_traced(
    job: VerificationJob, weights: BothWeights, trace: Trace, hidden: Array, rounding: Rounding,
    found: Comparison,
) -> None:  # fmt: skip
    head = Reference(job.spec, weights.stored).head(hidden, rounding)
    for start in range(0, len(trace.tokens), HEAD_ROWS):
        computed = trace.logits[start : start + HEAD_ROWS]
        found.add(_rows(head, len(computed)), computed)


def _rows(head: Iterator[Any], count: int) -> Any:
    """The next rows of logits."""
    return np.stack(list(islice(head, count)))


def _gaps(run: ArtifactRun, first: int, computed: Any) -> list[float]:
    """For the rows from position `first` on that chose a token of the continuation."""
    gaps = []
    for row, position in zip(computed, range(first, first + len(computed)), strict=True):
        index = position - len(run.prompt) + 1
        if 0 <= index < len(run.continuation):
            gaps.append(float(row.max() - row[run.continuation[index]]))
    return gaps


def judge_weights(name: str, errors: list[TensorError]) -> None:
    """ConversionError where a tensor of the file of this name is not the checkpoint's."""
    wrong = [e for e in errors if not e.excess <= 1]
    if not wrong:
        return
    shown = [
        f"{e.name} is {100 * e.error:.3g} % off, its type explains {100 * e.allowed:.2g} %"
        for e in wrong[:SHOWN_TENSORS]
    ]
    raise ConversionError(
        f"{name} does not hold the model's weights: {len(wrong)} of {len(errors)} tensors "
        f"differ, first {'; '.join(shown)}"
    )


def _judge_continuation(
    job: VerificationJob, run: ArtifactRun, found: _Compared, limit: float
) -> None:
    tolerance = CHOICE_TOLERANCE * limit * found.own.std
    for index, gap in enumerate(found.gaps):
        if not gap <= tolerance:
            when = "after the prompt" if index == 0 else f"in step {index}"
            raise ConversionError(
                f"{job.path.name} generates something else than it scores best: {when} it chose a "
                f"token {gap / found.own.std:.3g} standard deviations below the best, rounding "
                f"explains {tolerance / found.own.std:.2g}; the first to depart is "
                f"{'reading a prompt' if index == 0 else 'going on token by token'}"
            )


def judge_tokenizer(name: str, check: TokenizerCheck | None) -> None:
    """ConversionError where most texts give other tokens than the model's own."""
    if check is not None and 2 * len(check.other_tokens) > check.texts:
        raise ConversionError(
            f"{name} has another tokenizer: {len(check.other_tokens)} of {check.texts} "
            f"texts give other tokens than tokenizer.json, first {check.other_tokens[0]!r}"
        )


def _verification(
    run: ArtifactRun, weights: BothWeights, found: _Compared, limit: float, notes: list[str],
    started: float,
) -> Verification:  # fmt: skip
    source = f"{run.name} {run.version}, {len(run.tokens)} positions of {run.on}"

    def agreement(comparison: Comparison) -> Agreement:
        choices = comparison.expected_choices[len(run.prompt) - 1 :]
        prefix = common_prefix(run.continuation, choices)
        return comparison.agreement(source, (prefix, len(run.continuation)))

    def error(value: float) -> Figure:
        return Figure(value, "1", "predicted", "the runtime's roundings made in the reference")

    return Verification(
        runtime=run.name,
        runtime_version=run.version,
        positions=len(run.tokens),
        on=run.on,
        own_weights=agreement(found.own),
        own_arithmetic=agreement(found.rounded),
        expected_error=error(found.noise.rms),
        allowed_error=error(limit),
        original=agreement(found.original) if found.original else None,
        weights=weight_check(list(weights.errors.values())),
        tokenizer=run.tokenizer,
        not_checked=notes,
        seconds=time.monotonic() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _parts(
    run: ArtifactRun, steps: Sequence[Step], floor: float, found: _Compared
) -> PartCheck | None:
    positions = len(found.traced.kl)
    source = f"{run.name} {run.version}, {positions} positions, from its own values before"
    logits = found.traced.agreement(source) if positions else None
    return part_check(steps, floor, source, positions, place_of, logits)


def part_check(
    steps: Sequence[Step], floor: float, source: str, positions: int, place: Callable[[str], str],
    logits: Agreement | None = None,
) -> PartCheck | None:  # fmt: skip
    """The part that departs most; `place` names points of the stream. None without steps."""
    if not steps:
        return None
    worst = max(steps, key=lambda s: s.excess(floor))
    return PartCheck(
        positions=positions,
        parts=len(steps),
        worst=place(worst.point),
        error=Figure(worst.error, "1", "measured", source),
        rounding=Figure(worst.rounding, "1", "predicted", "made in the reference"),
        logits=logits,
    )


def weight_check(errors: list[TensorError]) -> WeightCheck | None:
    """The tensor that is farthest off for its type; None where there is no checkpoint."""
    if not errors:
        return None
    worst = max(errors, key=lambda e: e.excess)
    source = "stored weights against the checkpoint's"
    return WeightCheck(
        tensors=len(errors),
        worst=worst.name,
        error=Figure(worst.error, "1", "measured", source),
        allowed=worst.allowed,
    )
