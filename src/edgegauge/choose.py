"""Choosing: candidates against a budget, the Pareto frontier, and the smallest that passes.

    choice = choose(candidates, budget)
    choice.recommended              # smallest on disk among those that pass, or None
    print(explain_choice(choice))

Pure: no files, no clock. Limits are checked cheapest to know first (memory, file size, time to
first token, decode, prefill, energy, battery, quality), and every limit that is not met is kept. A
limit whose figure is missing is not met: nothing is assumed in its favour.

**Frontier.** Over quality (more is better), decode speed (more), energy per token (less) and peak
memory (less). A dominates B when

* both know the same axes: what is unknown cannot be shown to be worse;
* on every axis A is no worse: its value and both ends of its interval are at least as good;
* on at least one axis A is clearly better: the two intervals do not touch.

Memory is `needed_memory_bytes` where it is known: a prediction tells apart the pages that may be
dropped; otherwise it is the peak of resident memory, as a measurement gives it.

Comparing the ends as well as the values makes this a strict partial order, so the frontier does not
depend on the order of the candidates or on the presence of dominated ones. It is taken over the
candidates that pass, or over all of them where none passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgegauge.budget import Budget
from edgegauge.figure import Figure, Kind
from edgegauge.units import format_quality, format_quantity

Key = tuple[str, str, str]
"""What tells candidates apart: model, recipe, format."""

FRONTIER_AXES = {
    "quality": True,
    "decode_tok_per_s": True,
    "energy_j_per_token": False,
    "memory_bytes": False,
}
"""Figure key -> whether more is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A (model, recipe, format) and what is known of it.

    Figure keys: decode_tok_per_s, prefill_tok_per_s, ttft_s, peak_memory_bytes, energy_j_per_token,
    battery_h, tokens_per_charge, conversations_per_charge, added_drain_percent_per_hour, quality,
    perplexity, and for predictions needed_memory_bytes; a missing key means the same as None.
    `quality` is on the budget's metric, and `ttft_s` is the 99th percentile wherever one is known.
    """

    model: str
    recipe: str
    format: str
    parameters: int
    file_bytes: int
    effective_bits: float
    figures: Mapping[str, Figure | None]

    @property
    def key(self) -> Key:
        """(model, recipe, format)."""
        return (self.model, self.recipe, self.format)

    def figure(self, name: str) -> Figure | None:
        """The figure of this name, None where unknown; also `file_bytes` and `memory_bytes`."""
        if name == "memory_bytes":
            return self.figures.get("needed_memory_bytes") or self.figures.get("peak_memory_bytes")
        if name != "file_bytes":
            return self.figures.get(name)
        decode = self.figures.get("decode_tok_per_s")
        measured = decode is not None and decode.kind == "measured"
        kind: Kind = "measured" if measured else "predicted"
        return Figure(float(self.file_bytes), "bytes", kind, "sum of the stored tensors")


@dataclass(frozen=True, slots=True)
class Broken:
    """A limit that is not met, in the unit of its figure; `figure` None: nothing is known."""

    limit: str
    required: float
    figure: Figure | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A candidate against a budget.

    `broken` holds every limit that is not met, cheapest first; `unknown` names those of them that
    have no figure; `uncertain` names the limits, met or not, that lie inside a figure's interval.
    """

    candidate: Candidate
    passes: bool
    broken: list[Broken]
    unknown: list[str]
    uncertain: list[str]
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """All verdicts in the order given, the frontier, and the smallest candidate that passes."""

    verdicts: list[Verdict]
    frontier: set[Key]
    recommended: Candidate | None


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit of a budget: the figure it bounds, on which side, and how to say so."""

    name: str
    figure: str
    at_most: bool
    noun: str
    says: str

    def met_by(self, value: float, required: float) -> bool:
        """Whether a value is on the right side; exactly at the limit passes."""
        return value <= required if self.at_most else value >= required


_LIMITS = (
    _Limit("memory", "memory_bytes", True, "memory", "needs {0} of memory"),
    _Limit("file_size", "file_bytes", True, "file size", "is {0} on disk"),
    _Limit("ttft_p99_s", "ttft_s", True, "time to first token", "first token after {0}"),
    _Limit("decode_tok_per_s", "decode_tok_per_s", False, "decode speed", "decodes at {0}"),
    _Limit(
        "prefill_tok_per_s", "prefill_tok_per_s", False, "prefill speed", "reads prompts at {0}"
    ),
    _Limit("energy_j_per_token", "energy_j_per_token", True, "energy per token", "takes {0}"),
    _Limit("battery_h", "battery_h", False, "battery time", "lasts {0} on battery"),
    _Limit("quality", "quality", False, "quality", "scores {0}"),
)


def _required(budget: Budget, name: str) -> float | None:
    if name == "quality":
        return None if budget.quality is None else budget.quality.at_least
    value: float | None = getattr(budget, name)
    return value


def verdict(candidate: Candidate, budget: Budget) -> Verdict:
    """Check every limit of the budget; figures are compared by value, intervals only noted."""
    broken, unknown, uncertain = [], [], []
    for limit in _LIMITS:
        required = _required(budget, limit.name)
        if required is None:
            continue
        figure = candidate.figure(limit.figure)
        if figure is None:
            unknown.append(limit.name)
            broken.append(Broken(limit.name, required, None))
            continue
        if not limit.met_by(figure.value, required):
            broken.append(Broken(limit.name, required, figure))
        if limit.met_by(figure.least, required) != limit.met_by(figure.most, required):
            uncertain.append(limit.name)
    metric = budget.quality.metric if budget.quality else None
    return Verdict(candidate, not broken, broken, unknown, uncertain, metric)


def dominates(a: Candidate, b: Candidate) -> bool:
    """Whether `a` is no worse than `b` on every axis and clearly better on one (see above)."""
    return _dominates(_position(a), _position(b))


_Position = tuple[tuple[float, float, float] | None, ...]
"""Per axis the lower end, the value and the upper end, negated where less is better."""


def _position(candidate: Candidate) -> _Position:
    ends: list[tuple[float, float, float] | None] = []
    for axis, more_is_better in FRONTIER_AXES.items():
        figure = candidate.figure(axis)
        if figure is None:
            ends.append(None)
        elif more_is_better:
            ends.append((figure.least, figure.value, figure.most))
        else:
            ends.append((-figure.most, -figure.value, -figure.least))
    return tuple(ends)


def _dominates(a: _Position, b: _Position) -> bool:
    clearly = False
    for x, y in zip(a, b, strict=True):
        if x is None and y is None:
            continue
        if x is None or y is None or x[0] < y[0] or x[1] < y[1] or x[2] < y[2]:
            return False
        clearly = clearly or x[0] > y[2]
    return clearly


def frontier_of(candidates: Sequence[Candidate]) -> set[Key]:
    """Keys of the candidates that no other one dominates; empty only for no candidates."""
    positions = [(c.key, _position(c)) for c in candidates]
    return {key for key, p in positions if not any(_dominates(q, p) for _, q in positions)}


def choose(candidates: Iterable[Candidate], budget: Budget) -> Choice:
    """Verdict on each candidate, the frontier, and the smallest on disk that passes.

    Ties in size go to the lower energy per token (unknown last), then to the name.
    """
    verdicts = [verdict(c, budget) for c in candidates]
    passing = [v.candidate for v in verdicts if v.passes]
    frontier = frontier_of(passing or [v.candidate for v in verdicts])
    return Choice(verdicts, frontier, min(passing, key=_smallness, default=None))


def _smallness(candidate: Candidate) -> tuple[float, bool, float, Key]:
    energy = candidate.figure("energy_j_per_token")
    joules = energy.value if energy else 0.0
    return (candidate.file_bytes, energy is None, joules, candidate.key)


def explain(verdict: Verdict) -> str:
    """One sentence: why the candidate fails (every limit, first one first), or how it passes.

    What is unknown is a reason only where nothing known is: a model that does not fit into memory
    has no speed to speak of.
    """
    if verdict.passes:
        return _passing(verdict)
    known = [broken for broken in verdict.broken if broken.figure is not None]
    return "; ".join(_reason(broken, verdict) for broken in known or verdict.broken)


def _passing(verdict: Verdict) -> str:
    if not verdict.uncertain:
        return "meets every limit"
    doubts = []
    for name in verdict.uncertain:
        limit = next(x for x in _LIMITS if x.name == name)
        figure = verdict.candidate.figure(limit.figure)
        assert figure is not None, "an uncertain limit has a figure"
        low, high = (format_quantity(v, figure.unit) for v in (figure.least, figure.most))
        doubts.append(f"{limit.noun} may be anything from {low} to {high}")
    return f"meets every limit, but {' and '.join(doubts)}"


def _noun(name: str) -> str:
    return next(limit.noun for limit in _LIMITS if limit.name == name)


def _reason(broken: Broken, verdict: Verdict) -> str:
    limit = next(x for x in _LIMITS if x.name == broken.limit)
    bound = "allowed" if limit.at_most else "required"
    on = f" on {verdict.metric}" if limit.name == "quality" and verdict.metric else ""
    if broken.figure is None:
        return f"{limit.noun}{on} is not known"
    mark = "~" if broken.figure.kind == "predicted" else ""
    unit = broken.figure.unit
    write = format_quality if limit.name == "quality" else format_quantity
    seen = limit.says.format(mark + write(broken.figure.value, unit))
    doubt = " (uncertain)" if broken.limit in verdict.uncertain else ""
    return f"{seen}{on}, {write(broken.required, unit)} {bound}{doubt}"


def explain_choice(choice: Choice) -> str:
    """The recommendation and how the rest fared, in two or three plain sentences."""
    passing = sum(v.passes for v in choice.verdicts)
    total = len(choice.verdicts)
    if choice.recommended is None:
        return (
            f"Nothing fits: none of {total} candidates meets every limit. {_main_obstacle(choice)}"
        )
    best = choice.recommended
    size = format_quantity(best.file_bytes, "bytes")
    text = (
        f"Recommended: {best.model} at {best.recipe} ({best.format}, {size}), the smallest of "
        f"{passing} that {'meets' if passing == 1 else 'meet'} every limit, out of {total}."
    )
    chosen = next(v for v in choice.verdicts if v.candidate.key == best.key)
    return f"{text} It {_passing(chosen)}." if chosen.uncertain else text


def _main_obstacle(choice: Choice) -> str:
    """How often each limit was the first to break, commonest first."""
    first = [v.broken[0].limit for v in choice.verdicts if v.broken]
    counts = sorted({(-first.count(name), name) for name in first})
    parts = [f"{_noun(name)} stops {-count}" for count, name in counts]
    return f"First limit broken: {', '.join(parts)}." if parts else "There were no candidates."
