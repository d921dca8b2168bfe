"""Advice: what would make a candidate that fails meet its limits.

    case = Case(device=device, spec=spec, recipe="q8_0", context=8192)
    for advice in advise(case, limits, ["q4_0", "q4_k_m"]):
        advice.kind, advice.value       # "context", 3072
        advice.verdict.passes           # what predicting again with it says

The prediction turned round: of each kind of change, the smallest that mends a broken limit.
Contexts, prompts and bandwidths are bisected, since more of them is always worse or always better;
recipes, threads and micro-batches are few and all tried. Nothing is returned unchecked: every piece
of advice carries the verdict of predicting with it, mends at least one limit and breaks none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgegauge.budget import Budget
from edgegauge.choose import Verdict, verdict
from edgegauge.device import DeviceProfile
from edgegauge.figure import Figure
from edgegauge.fit import candidate_of
from edgegauge.footprint import UBATCH
from edgegauge.model import ModelSpec
from edgegauge.predict import DEFAULT_PROMPT_TOKENS, Prediction, Predictor
from edgegauge.recipe import Recipe, tensor_bytes

Kind = Literal["recipe", "context", "micro_batch", "prompt", "threads", "bandwidth"]

TIME_LIMITS = {
    "ttft_p99_s", "decode_tok_per_s", "prefill_tok_per_s", "energy_j_per_token", "battery_h",
}  # fmt: skip
"""Limits that a faster execution may mend."""

FASTEST = 16.0
"""Largest factor on a device's bandwidth that is looked at."""

SMALLEST_MICRO_BATCH = 32
"""Below it llama.cpp computes prompts hardly faster than one token at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A candidate and the circumstances that it is judged in."""

    device: DeviceProfile
    spec: ModelSpec
    recipe: Recipe
    """As `recipe.resolve` gives it."""
    file_format: str = "gguf"
    context: int
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS
    threads: int | None = None
    ubatch: int = UBATCH
    memory_speed: float = 1.0
    """Factor on the device's memory bandwidth."""
    quality: Figure | None = None

    def predict(self) -> Prediction:
        """The prediction of this case."""
        predictor = Predictor(
            self.device, prompt_tokens=self.prompt_tokens, context=self.context,
            threads=self.threads, ubatch=self.ubatch, memory_speed=self.memory_speed,
        )  # fmt: skip
        return predictor.predict(self.spec, self.recipe, self.file_format)

    def verdict(self, limits: Budget) -> Verdict:
        """The case against `limits`."""
        return verdict(candidate_of(self.predict(), self.quality), limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One change, and how the candidate fares with it."""

    kind: Kind
    value: float | str
    """Recipe, tokens of context or prompt, tokens of a micro-batch, threads, or the theoretical
    memory bandwidth in GB/s of a device that is otherwise the same."""
    mends: list[str]
    """Limits that are met with the change and were not before."""
    verdict: Verdict
    """Of the changed case."""

    @property
    def change(self) -> str:
        """`context 3072`."""
        return SAYS[self.kind].format(self.value)


SAYS: dict[Kind, str] = {
    "recipe": "recipe {}",
    "context": "context {}",
    "micro_batch": "micro-batch {}",
    "prompt": "prompt {}",
    "threads": "threads {}",
    "bandwidth": "memory {:.3g} GB/s",
}


Change = tuple[Kind, float | str, Case]


def advise(case: Case, limits: Budget, recipes: Sequence[str]) -> list[Advice]:
    """What makes the case meet limits that it breaks; changes after which it passes come first.

    `recipes` are those of its format that may take the place of its own.
    """
    broken = _broken(case.verdict(limits))
    found = []
    for kind, value, changed in _changes(case, limits, recipes, broken):
        after = changed.verdict(limits)
        left = _broken(after)
        if left < broken:
            mends = sorted(broken - left)
            found.append(Advice(kind=kind, value=value, mends=mends, verdict=after))
    return sorted(found, key=lambda advice: not advice.verdict.passes)


def _broken(judged: Verdict) -> set[str]:
    return {broken.limit for broken in judged.broken}


def _changes(
    case: Case, limits: Budget, recipes: Sequence[str], broken: set[str]
) -> Iterator[Change]:
    """Of each kind of change, the one to check."""
    if broken:
        yield from _other_recipe(case, limits, recipes)
    if "memory" in broken:
        span = case.prompt_tokens, case.context
        yield from _shorter(lambda n: replace(case, context=n), limits, "context", "memory", span)
        yield from _smaller_micro_batch(case, limits)
    if "ttft_p99_s" in broken:
        span = 1, case.prompt_tokens
        yield from _shorter(
            lambda n: replace(case, prompt_tokens=n), limits, "prompt", "ttft_p99_s", span
        )
    if broken & TIME_LIMITS:
        yield from _other_threads(case, limits)
    if "decode_tok_per_s" in broken:
        yield from _more_bandwidth(case, limits)


def _other_recipe(case: Case, limits: Budget, recipes: Sequence[str]) -> Iterator[Change]:
    """The recipe that leaves the fewest limits broken; the widest of equals."""
    others = [recipe for recipe in recipes if recipe != case.recipe]
    widest = sorted(others, key=lambda r: -tensor_bytes(case.spec, r, case.file_format))
    cases = [replace(case, recipe=recipe) for recipe in widest]
    best = min(cases, key=lambda c: len(c.verdict(limits).broken), default=None)
    if best is not None:
        yield "recipe", str(best.recipe), best


def _shorter(
    at: Callable[[int], Case], limits: Budget, kind: Kind, limit: str, span: tuple[int, int]
) -> Iterator[Change]:
    """The longest context that fits into memory, or prompt whose first token is in time."""
    tokens = largest(lambda n: limit not in _broken(at(n).verdict(limits)), *span)
    if tokens is not None:
        yield kind, tokens, at(tokens)


def largest(good: Callable[[int], bool], low: int, high: int) -> int | None:
    """The largest of low..high that is good, where all below a good one are; None for none."""
    if low > high or not good(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good(middle) else (low, middle - 1)
    return low


def _smaller_micro_batch(case: Case, limits: Budget) -> Iterator[Change]:
    """The largest smaller micro-batch whose buffers fit into memory."""
    tokens = case.ubatch // 2
    while tokens >= SMALLEST_MICRO_BATCH:
        changed = replace(case, ubatch=tokens)
        if "memory" not in _broken(changed.verdict(limits)):
            yield "micro_batch", tokens, changed
            return
        tokens //= 2


def _other_threads(case: Case, limits: Budget) -> Iterator[Change]:
    """The number of threads that leaves the fewest limits broken; the smallest of equals."""
    cases = [replace(case, threads=n) for n in range(1, case.device.cores + 1)]
    best = min(cases, key=lambda c: len(c.verdict(limits).broken))
    yield "threads", best.threads or 0, best


def _more_bandwidth(case: Case, limits: Budget) -> Iterator[Change]:
    """The bandwidth from which on it decodes fast enough, to 1 %; nothing where none does, or where
    the device's own is not known."""
    stated = case.device.memory.bandwidth_gb_per_s

    def at(percent: int) -> Case:
        return replace(case, memory_speed=percent / 100)

    def slow(percent: int) -> bool:
        return "decode_tok_per_s" in _broken(at(percent).verdict(limits))

    most = round(100 * FASTEST)
    if stated is not None and not slow(most):
        enough = (largest(slow, 100, most) or 100) + 1
        yield "bandwidth", stated.value * enough / 100, at(enough)
