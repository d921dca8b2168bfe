"""Verifying encoders against the NumPy reference; each format adds what it knows of its files.

    OnnxEncoderVerifier().verify(job, progress)         # in a process that may crash

As `verify.py` does it for language models: every stored tensor against the checkpoint's; vectors of
some texts against the reference at the stored weights; each part of the graph from the runtime's
own values before it; tokens against those of `tokenizer.json`; and vectors against the reference at
the checkpoint's weights, which is recorded and not judged.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import ConversionError
from edgegauge.evaluate.builtin_text import PASSAGE, SAMPLES
from edgegauge.figure import Figure
from edgegauge.measure.runtimes import runtime_for
from edgegauge.verification import EncoderVerification, TokenizerCheck, VectorAgreement
from edgegauge.verify import EncoderVerificationJob, Progress
from edgegauge_converters.encoder_blueprint import EMBEDDING, HIDDEN, Operation
from edgegauge_converters.encoder_recipe import stored_tensors
from edgegauge_converters.encoder_reference import EncoderReference, Rounding
from edgegauge_converters.encoder_weights import EncoderCheckpoint
from edgegauge_converters.reference import Array, Weights
from edgegauge_converters.rounding import runtime_rounding
from edgegauge_converters.verify import (
    described,
    judge_tokenizer,
    judge_weights,
    part_check,
    weight_check,
)
from edgegauge_converters.verify_reference import (
    FLOOR,
    BothWeights,
    Step,
    allowed,
    place_of,
    relative_error,
    step,
)

LONGEST = 128
"""Tokens of the longest text that is tried."""
SAMPLE_STRIDE = 4
"""Every so many of the texts that tokenizers are tried on is encoded as well."""
RANDOM_LENGTHS = (LONGEST, 17, 5)
"""Tokens of the texts where there is no tokenizer."""


class EncoderRun(Protocol):
    """An artifact in its runtime."""

    def tokenize(self, text: str) -> list[int]:
        """Token ids as the artifact's own tokenizer gives them."""

    def encode(self, tokens: Sequence[int]) -> dict[str, Array]:
        """Values by their names in the blueprint: the stream (tokens, hidden) as far as the runtime
        shows it, and the text's vector (hidden,)."""

    def close(self) -> None:
        """Release the model."""


class EncoderFormatVerifier(ABC):
    """What is common to all formats."""

    floor = FLOOR
    """A relative error that is always allowed."""

    @abstractmethod
    def open(self, job: EncoderVerificationJob, length: int) -> EncoderRun:
        """The artifact, for texts of up to `length` tokens."""

    @abstractmethod
    def weights(self, job: EncoderVerificationJob) -> Weights:
        """The float32 values that the file stores."""

    def computed(self, spec: EncoderSpec) -> EncoderSpec:
        """What the runtime computes where the model is this."""
        return spec

    def verify(self, job: EncoderVerificationJob, progress: Progress) -> EncoderVerification:
        """What was found; ConversionError, naming the place, for an artifact that is broken."""
        started = time.monotonic()
        progress(0.0, "running the artifact")
        length = min(LONGEST, job.spec.positions)
        with closing(self.open(job, length)) as run:
            check = None if job.folder is None else _tokenizer_check(run, job.folder)
            texts = _texts(job, run, length)
            found = [run.encode(tokens) for tokens in texts]
        with ExitStack() as stack:
            original = None
            if job.folder is not None:
                original = stack.enter_context(EncoderCheckpoint(job.folder, job.spec))
            types = stored_tensors(job.spec, job.recipe, job.file_format)
            weights = BothWeights(self.weights(job), original, types)
            type_of = {s.tensor: s.type for s in types}.__getitem__
            rounding = runtime_rounding(job.file_format, type_of)
            own = EncoderReference(self.computed(job.spec), weights.stored)
            expected = _expect(job, own, weights, texts, found, rounding, progress)
        judge_weights(job.path.name, list(weights.errors.values()))
        self._judge(job, expected)
        judge_tokenizer(job.path.name, check)
        return self._verification(job, texts, expected, weights, check, started)

    def _judge(self, job: EncoderVerificationJob, expected: _Expected) -> None:
        error = relative_error(expected.found, expected.exact)
        limit = allowed(expected.noise, self.floor)
        departs = [s for s in expected.steps if not s.excess(self.floor) <= 1]
        if not departs and error <= limit:
            return
        place = "no part by itself"
        if departs:
            place = described(departs[0], lambda point: _place(job.spec, point))
        raise ConversionError(
            f"{job.path.name} does not compute its model: vectors are off by {100 * error:.3g} %, "
            f"rounding explains {100 * limit:.2g} %; the first to depart is {place}"
        )

    def _verification(
        self, job: EncoderVerificationJob, texts: list[list[int]], expected: _Expected,
        weights: BothWeights, check: TokenizerCheck | None, started: float,
    ) -> EncoderVerification:  # fmt: skip
        runtime = runtime_for(job.file_format)
        tokens = sum(map(len, texts))
        source = f"{runtime.name} {runtime.version()}, {len(texts)} texts of {tokens} tokens"
        made = "the runtime's roundings made in the reference"
        parts = part_check(
            expected.steps, self.floor, f"{source}, from its own values before", tokens,
            lambda point: _place(job.spec, point),
        )  # fmt: skip
        assert parts is not None  # the vector is one
        original = None
        if expected.original is not None:
            # A runtime may leave scaling to length 1 to its caller.
            finished = _normalised if job.spec.normalise else np.asarray
            pair = finished(expected.original), finished(expected.found)
            original = _agreement(*pair, source)
        return EncoderVerification(
            runtime=runtime.name,
            runtime_version=runtime.version(),
            texts=len(texts),
            tokens=tokens,
            on="random tokens" if job.folder is None else "built-in text",
            own_weights=_agreement(expected.exact, expected.found, source),
            own_arithmetic=_agreement(expected.rounded, expected.found, source),
            expected_error=Figure(expected.noise, "1", "predicted", made),
            allowed_error=Figure(allowed(expected.noise, self.floor), "1", "predicted", made),
            parts=parts,
            original=original,
            weights=weight_check(list(weights.errors.values())),
            tokenizer=check,
            not_checked=[] if job.folder else ["the original weights: they are random (synthetic)"],
            seconds=time.monotonic() - started,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _texts(job: EncoderVerificationJob, run: EncoderRun, length: int) -> list[list[int]]:
    """Tokens of the texts that are encoded."""
    if job.folder is None:
        random = np.random.RandomState(0)
        sizes = (min(size, length) for size in RANDOM_LENGTHS)
        return [random.randint(0, job.spec.vocab, size).tolist() for size in sizes]
    cut = (run.tokenize(text)[:length] for text in (PASSAGE, *SAMPLES[::SAMPLE_STRIDE]))
    return [tokens for tokens in cut if tokens]


def _tokenizer_check(run: EncoderRun, folder: Path) -> TokenizerCheck:
    """SAMPLES through both tokenizers. An encoder never turns tokens into text."""
    from tokenizers import Tokenizer

    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    original.no_padding()
    original.no_truncation()
    others = [text for text in SAMPLES if run.tokenize(text) != original.encode(text).ids]
    return TokenizerCheck(texts=len(SAMPLES), other_tokens=others, other_text=[])


@dataclass(frozen=True, slots=True)
class _Expected:
    """Vectors (texts, hidden) of the artifact and of each reference, and the parts."""

    found: Array
    exact: Array
    rounded: Array
    original: Array | None
    steps: list[Step]

    @property
    def noise(self) -> float:
        """Relative root mean square that rounding is expected to make."""
        return relative_error(self.rounded, self.exact)


Pass = Iterator[tuple[Operation, Array]]


def _expect(
    job: EncoderVerificationJob, own: EncoderReference, weights: BothWeights,
    texts: Sequence[Sequence[int]], found: Sequence[dict[str, Array]], rounding: Rounding,
    progress: Progress,
) -> _Expected:  # fmt: skip
    """Run every pass over every text side by side, so that each weight is read once."""
    passes: dict[str, list[Pass]] = {
        "exact": [own.values(text) for text in texts],
        "rounded": [own.values(text, rounded=rounding) for text in texts],
        "stepped": [
            own.values(text, rounded=rounding, instead=values)
            for text, values in zip(texts, found, strict=True)
        ],
        "exactly": [
            own.values(text, instead=values) for text, values in zip(texts, found, strict=True)
        ],
    }
    if weights.has_original:
        original = EncoderReference(job.spec, weights.original)
        passes["original"] = [original.values(text) for text in texts]
    last: dict[str, Array] = {}
    steps: list[Step] = []
    total = 2 * job.spec.layers + 2
    with ThreadPoolExecutor(job.threads) as pool:
        while made := {name: rows for name, p in passes.items() if (rows := _advanced(pool, p))}:
            last |= {name: _joined(value for _, value in rows) for name, rows in made.items()}
            point = made["exact"][0][0].output if "exact" in made else ""
            if point in found[0]:
                theirs = _joined(values[point] for values in found)
                steps.append(step(point, theirs, last["stepped"], last["exactly"]))
            progress(min(1.0, 0.1 + 0.9 * len(steps) / total), "computing what it should say")
    vectors = {name: value.reshape(len(texts), -1) for name, value in last.items()}
    theirs = np.stack([values[EMBEDDING] for values in found])
    return _Expected(theirs, vectors["exact"], vectors["rounded"], vectors.get("original"), steps)


def _advanced(pool: ThreadPoolExecutor, passes: Sequence[Pass]) -> list[tuple[Operation, Array]]:
    """The next value of each pass; none where they are at their end."""
    return [item for item in pool.map(lambda each: next(each, None), passes) if item is not None]


def _joined(values: Iterable[Array]) -> Array:
    return np.concatenate(list(values))


def _place(spec: EncoderSpec, point: str) -> str:
    """What makes the value at this point of the stream."""
    if point == EMBEDDING:
        return "the pooling"
    return place_of(f"x{spec.layers}" if point == HIDDEN else point)


def _agreement(expected: Array, computed: Array, source: str) -> VectorAgreement:
    def figure(value: Any) -> Figure:
        return Figure(float(value), "1", "measured", source)

    cosines = (_normalised(expected) * _normalised(computed)).sum(axis=1)
    spread = np.sqrt(np.mean(np.square(expected)))
    return VectorAgreement(
        least_cosine=figure(cosines.min()),
        max_error=figure(np.abs(computed - expected).max() / spread),
        rms_error=figure(relative_error(computed, expected)),
    )


def _normalised(rows: Array) -> Array:
    scaled: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
