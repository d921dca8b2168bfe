"""The search behind `--recipe auto`: a type for each group of weights, as small as a limit allows.

    with begin(job, goal, progress) as search:           # measures what each type costs each group
        search.recipe("auto-kl0.01", 0.01)          # a RecipeFile

1. Weights are grouped (`auto_groups.py`), by as many stretches of layers as EFFORT affords.
2. Each group is stored in each type of the format by itself, and the KL divergence from the model's
   own weights is measured on the first positions of the text (`sensitivity.py`).
3. Types are chosen as if divergences added up (`auto_choice.py`). They nearly do while they are
   small, since errors that have nothing to do with each other add up in their squares. How far they
   do not is measured on the whole mixture, on the positions that verification will run; the choice
   is made again with its limit moved by that, until it holds and little is left over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgegauge.auto import Goal
from edgegauge.convert import ConversionJob, Progress
from edgegauge.document import parse
from edgegauge.errors import InputError, MissingDependency
from edgegauge.evaluate.builtin_text import NAME, PASSAGE
from edgegauge.evaluate.intervals import ratio_half_width
from edgegauge.figure import Figure
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import StoredTensor, shipped_names, stored_as, stored_tensors
from edgegauge.recipe_file import Found, RecipeFile
from edgegauge.units import format_quantity

try:
    from tokenizers import Tokenizer

    from edgegauge_converters.auto_choice import Cost, choose
    from edgegauge_converters.auto_groups import Group, groups_of, recipe_of
    from edgegauge_converters.plain_rows import PlainRows
    from edgegauge_converters.reference import Weights
    from edgegauge_converters.sensitivity import Passes
    from edgegauge_converters.verify import positions_for
    from edgegauge_converters.verify_run import GREEDY_SHARE
    from edgegauge_converters.weights import Checkpoint
    from edgegauge_converters.workers import available_threads
except ImportError as error:
    raise MissingDependency("--recipe auto", "onnx") from error

CANDIDATES = {
    "gguf": ("F16", "Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q4_K", "Q4_0"),
    "onnx": ("F32", "INT8/128", "INT4/16", "INT4/32", "INT4/64", "INT4/128"),
    "tflite": ("F32", "INT8", "INT4/32", "INT4/64", "INT4/128"),
}
"""Types that are tried; those that do not fit a row are replaced as in every recipe."""

EMBEDDING_CANDIDATES = {"tflite": ("F32", "INT8", "INT4")}
"""Types that are tried for an embedding, where not all are possible."""

EFFORT = 10**12
"""Multiplications to measure sensitivities with: about a minute on two cores."""
LEAST_STRETCHES = 3

POSITIONS = (64, 256)
"""At least and at most: what each group is measured on."""
POSITION_BUDGET = 2**33
"""Positions times parameters, where that lies between them."""

ROUNDS = 8
"""Mixtures that are measured as a whole to meet one limit."""
NEAR = 0.97
"""A mixture that takes this share of the limit leaves little over."""

BLOCKS = 8
"""Parts of the text whose means the interval is made of."""


@contextmanager
def begin(job: ConversionJob, goal: Goal, progress: Progress) -> Iterator[AutoSearch]:
    """Measure the sensitivities of a model; InputError for its files or the text."""
    assert job.folder is not None  # synthetic weights have no answers to keep
    tokens = tokens_of(job.folder, goal.text or PASSAGE, positions_of(job.spec)[0])
    with Checkpoint(job.folder, job.spec) as checkpoint:
        weights = PlainRows(checkpoint, job.spec)
        threads = job.threads or available_threads()
        yield AutoSearch(job.spec, weights, goal, tokens, threads, progress)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Types of all matrices, their bytes, and the KL divergence after each token, in nats."""

    types: dict[Tensor, str]
    bytes: int
    kl: list[float]

    @property
    def mean(self) -> float:
        """Nats, over all positions."""
        return math.fsum(self.kl) / len(self.kl)


class AutoSearch:
    """What types cost the groups of one model, and the recipes that follow."""

    def __init__(
        self, spec: ModelSpec, weights: Weights, goal: Goal, tokens: list[int], threads: int,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.spec, self._goal = spec, goal
        file_format = goal.file_format
        groups = groups_of(spec, file_format, stretches_of(spec, file_format))
        starts = sorted({group.start for group in groups if group.start is not None})
        few = tokens[: positions_of(spec)[1]]
        passes = Passes(spec, weights, file_format, few, starts, threads)
        self.options = _measured(spec, file_format, groups, passes, progress)
        self._whole = Passes(spec, weights, file_format, tokens, [], threads)

    def recipe(self, id: str, max_kl: float) -> RecipeFile:
        """The smallest mixture found within `max_kl` nats; InputError naming the least there is.

        Never larger than a shipped recipe that is within it too.
        """
        least = self.mixture(self._types(0.0))
        if least.mean > max_kl:
            raise InputError(
                f"no mixture keeps the KL divergence within {max_kl:g} nat: with the widest types "
                f"of {self._goal.file_format} it is {least.mean:.3g}",
                hint="give a larger --max-kl",
            )
        found = [least, *self._shipped, *self._searched(max_kl)]
        return self._recipe(id, min((m for m in found if m.mean <= max_kl), key=lambda m: m.bytes))

    def mixture(self, types: dict[Tensor, str]) -> Mixture:
        """What these types of all matrices make together."""
        size = sum(self._stored(tensor, type).bytes for tensor, type in types.items())
        return Mixture(types, size, self._whole.divergences([types])[0])

    def _searched(self, max_kl: float) -> Iterator[Mixture]:
        """Mixtures from both sides of the limit, nearer and nearer to it."""
        low, high, limit = 0.0, math.inf, max_kl
        for _ in range(ROUNDS):
            tried = self.mixture(self._types(limit))
            yield tried
            if tried.mean <= max_kl:
                low = limit
            else:
                high = limit
            if NEAR * max_kl <= tried.mean <= max_kl or high <= low / NEAR:
                return
            limit *= max_kl / max(tried.mean, max_kl / 8)
            if not low < limit < high:
                limit = math.sqrt(low * high) if low else high / 2

    @cached_property
    def _shipped(self) -> list[Mixture]:
        """The format's own recipes; not where they tell apart what is stored once."""
        file_format = self._goal.file_format
        if file_format == "gguf" and self.spec.layer_repeats > 1:
            return []
        made = []
        for name in shipped_names(file_format):
            stored = stored_tensors(self.spec, name, file_format)
            types = {s.tensor: s.type for s in stored if not s.tensor.is_vector}
            made.append(self.mixture(types))
        return made

    def _types(self, limit: float) -> dict[Tensor, str]:
        """The type of every matrix that the choice under this limit gives it."""
        chosen = choose(self.options, limit)
        return {
            tensor: self._stored(tensor, type).type
            for group, type in chosen.items()
            for tensor in group.tensors
        }

    def _stored(self, tensor: Tensor, type: str) -> StoredTensor:
        return stored_as(tensor, type, self._goal.file_format)

    def _recipe(self, id: str, found: Mixture) -> RecipeFile:
        spec, goal = self.spec, self._goal
        text = "the given text" if goal.text else NAME
        half = half_width(found.kl)
        figure = Figure(
            found.mean, "nat", "predicted", f"NumPy reference, {len(found.kl)} positions of {text}",
            max(0.0, found.mean - half), found.mean + half,
        )  # fmt: skip
        fields = {
            "id": id, "format": goal.file_format, "about": "found by --recipe auto",
            "found": Found(model=spec.id, kl=figure), **recipe_of(spec, found.types),
        }  # fmt: skip
        return parse(fields, RecipeFile, "the search")


def _measured(
    spec: ModelSpec, file_format: str, groups: Sequence[Group], passes: Passes, progress: Progress
) -> dict[Group, dict[str, Cost]]:
    """What each type costs each group by itself."""
    types = {group: types_of(group, file_format) for group in groups}
    total = sum(len(found) for found in types.values())
    done, started = 0, time.monotonic()

    def tell(count: int) -> None:
        left = (time.monotonic() - started) / (done + count) * (total - done - count)
        note = f"{done + count} of {total} types of groups, about {format_quantity(left, 's')} left"
        progress((done + count) / total, note)

    options: dict[Group, dict[str, Cost]] = {}
    for group, found in types.items():
        variants = [dict.fromkeys(group.tensors, type) for type in found]
        measured = passes.divergences(variants, group.start, tell)
        done += len(variants)
        options[group] = {
            type: Cost(group.bytes(type, spec, file_format), math.fsum(kl) / len(kl))
            for type, kl in zip(found, measured, strict=True)
        }
    return options


def types_of(group: Group, file_format: str) -> list[str]:
    """The types that a group may have, each once; all its tensors have rows of one length."""
    tensor = group.tensors[0]
    tried = CANDIDATES[file_format]
    if tensor.role == "token_embd":
        tried = EMBEDDING_CANDIDATES.get(file_format, tried)
    return list(dict.fromkeys(stored_as(tensor, type, file_format).type for type in tried))


def positions_of(spec: ModelSpec) -> tuple[int, int]:
    """Positions that a whole mixture is measured on, and each group by itself."""
    verified, _ = positions_for(spec)
    many = verified - max(1, verified // GREEDY_SHARE)
    least, most = POSITIONS
    return many, min(many, max(least, min(most, POSITION_BUDGET // spec.parameters)))


def stretches_of(spec: ModelSpec, file_format: str) -> int:
    """Stretches that layers are cut into: what EFFORT affords, up to each layer by itself."""
    _, positions = positions_of(spec)
    kinds = len(groups_of(spec, file_format, 1)) * len(CANDIDATES[file_format])
    cost = kinds * positions * spec.parameters / 2  # on average half of the layers are run
    return min(spec.layers, max(LEAST_STRETCHES, int(EFFORT / cost)))


def tokens_of(folder: Path, text: str, count: int) -> list[int]:
    """The first tokens of the text, repeated if need be; InputError without a tokenizer.json."""
    path = folder / "tokenizer.json"
    try:
        ids = Tokenizer.from_file(str(path)).encode(text).ids
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"auto reads its text with tokenizer.json: {error} @ {path}") from None
    if not ids:
        raise InputError("the text has no token")
    made: list[int] = (ids * (count // len(ids) + 1))[:count]
    return made


def half_width(kl: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean.

    Neighbouring positions depend on each other, so it is that of the means of BLOCKS parts of the
    text (batch means).
    """
    size = -(-len(kl) // BLOCKS)
    parts = [kl[start : start + size] for start in range(0, len(kl), size)]
    half = ratio_half_width([math.fsum(part) for part in parts], [len(part) for part in parts])
    return half or 0.0
