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
candidates that pass, or over all of them where none passes, and computed when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import ge
from typing import NamedTuple, Protocol

from edgegauge.budget import Budget
from edgegauge.figure import Figure
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


class Figures(Protocol):
    """What is known of a candidate: a dict, or something that makes a figure when asked."""

    def get(self, name: str, /) -> Figure | None:
        """The figure of this name; None where there is none."""


class Candidate(NamedTuple):
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
    figures: Figures
    on_disk: bool = False
    """Whether `file_bytes` is the size of files, and not of the tensors they will hold."""

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
        size = float(self.file_bytes)
        if self.on_disk:
            return Figure(size, "bytes", "measured", "size of the files")
        return Figure(size, "bytes", "predicted", "sum of the stored tensors")


class Broken(NamedTuple):
    """A limit that is not met, in the unit of its figure; `figure` None: nothing is known."""

    limit: str
    required: float
    figure: Figure | None


class Verdict(NamedTuple):
    """A candidate against a budget.

    `broken` holds every limit that is not met, cheapest first; `uncertain` names the limits, met or
    not, that lie inside a figure's interval; `metric` is what the budget's quality counts.
    """

    candidate: Candidate
    broken: list[Broken]
    uncertain: list[str]
    metric: str | None = None

    @property
    def passes(self) -> bool:
        """Whether every limit is met."""
        return not self.broken

    @property
    def unknown(self) -> list[str]:
        """The broken limits that have no figure."""
        return [broken.limit for broken in self.broken if broken.figure is None]


@dataclass(frozen=True)
class Choice:
    """All verdicts in the order given, and the smallest candidate that passes."""

    verdicts: list[Verdict]
    recommended: Candidate | None

    @cached_property
    def frontier(self) -> set[Key]:
        """Keys of the candidates on the frontier."""
        passing = [v.candidate for v in self.verdicts if v.passes]
        return frontier_of(passing or [v.candidate for v in self.verdicts])


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a budget: the figure it bounds, on which side, and how to say so."""

    name: str
    figure: str
    at_most: bool
    noun: str
    says: str

    def judge(self, figure: Figure, required: float) -> tuple[bool, bool]:
        """Whether the value is on the right side (exactly at the limit passes), and whether the
        ends of the interval lie on different sides."""
        least, most = figure.least, figure.most
        if self.at_most:
            return figure.value <= required, least <= required < most
        return figure.value >= required, least < required <= most

    def describe(self, required: float, figure: Figure | None, metric: str | None = None) -> str:
        """`needs ~1.2 GB of memory, 900 MB allowed`; `metric` is what quality counts."""
        on = f" on {metric}" if self.name == "quality" and metric else ""
        if figure is None:
            return f"{self.noun}{on} is not known"
        mark = "~" if figure.kind == "predicted" else ""
        write = format_quality if self.name == "quality" else format_quantity
        seen = self.says.format(mark + write(figure.value, figure.unit))
        bound = "allowed" if self.at_most else "required"
        return f"{seen}{on}, {write(required, figure.unit)} {bound}"


LIMITS = {
    limit.name: limit
    for limit in (
        Limit("memory", "memory_bytes", True, "memory", "needs {0} of memory"),
        Limit("file_size", "file_bytes", True, "file size", "is {0} on disk"),
        Limit("ttft_p99_s", "ttft_s", True, "time to first token", "first token after {0}"),
        Limit("decode_tok_per_s", "decode_tok_per_s", False, "decode speed", "decodes at {0}"),
        Limit(
            "prefill_tok_per_s", "prefill_tok_per_s", False, "prefill speed",
            "reads prompts at {0}",
        ),
        Limit("energy_j_per_token", "energy_j_per_token", True, "energy per token", "takes {0}"),
        Limit("battery_h", "battery_h", False, "battery time", "lasts {0} on battery"),
        Limit("quality", "quality", False, "quality", "scores {0}"),
    )
}  # fmt: skip
"""Every limit that a budget may set, the cheapest to know first."""


Required = tuple[Limit, float]
"""A limit that a budget sets, and what it requires."""


def required_by(budget: Budget) -> list[Required]:
    """The limits that a budget sets, in the order of LIMITS."""
    required = budget.model_dump() | {"quality": budget.quality and budget.quality.at_least}
    return [(x, required[x.name]) for x in LIMITS.values() if required[x.name] is not None]


def verdict(candidate: Candidate, budget: Budget) -> Verdict:
    """Check every limit of the budget; figures are compared by value, intervals only noted."""
    return _verdict(candidate, required_by(budget), _metric(budget))


def _metric(budget: Budget) -> str | None:
    return budget.quality.metric if budget.quality else None


def _verdict(candidate: Candidate, checks: list[Required], metric: str | None) -> Verdict:
    broken, uncertain = [], []
    for limit, required in checks:
        figure = candidate.figure(limit.figure)
        met, in_doubt = limit.judge(figure, required) if figure else (False, False)
        if not met:
            broken.append(Broken(limit.name, required, figure))
        if in_doubt:
            uncertain.append(limit.name)
    return Verdict(candidate, broken, uncertain, metric)


_Position = tuple[float, ...]
"""For each known axis the lower end, the value and the upper end, negated where less is better."""


def _position(candidate: Candidate) -> tuple[tuple[str, ...], _Position]:
    """The axes that are known, and where the candidate is on them."""
    axes: list[str] = []
    ends: list[float] = []
    for axis, more_is_better in FRONTIER_AXES.items():
        figure = candidate.figure(axis)
        if figure is not None:
            axes.append(axis)
            ends += (
                (figure.least, figure.value, figure.most)
                if more_is_better
                else (-figure.most, -figure.value, -figure.least)
            )
    return tuple(axes), tuple(ends)


def dominates(a: Candidate, b: Candidate) -> bool:
    """Whether `a` is no worse than `b` on every axis and clearly better on one (see above)."""
    (axes, mine), (others, theirs) = _position(a), _position(b)
    return axes == others and _dominates(mine, theirs)


def _dominates(a: _Position, b: _Position) -> bool:
    """For positions on the same axes; clearly better is a lower end above the other's upper end."""
    if not all(map(ge, a, b)):
        return False
    return any(low > high for low, high in zip(a[::3], b[2::3], strict=True))


def frontier_of(candidates: Iterable[Candidate]) -> set[Key]:
    """Keys of the candidates that no other one dominates; empty only for no candidates.

    Whoever dominates comes first where positions are sorted downwards, and whoever is dominated is
    so by a member of the frontier. So each is compared with the members found before it.
    """
    found: dict[tuple[str, ...], list[tuple[_Position, Key]]] = {}
    for candidate in candidates:
        axes, position = _position(candidate)
        found.setdefault(axes, []).append((position, candidate.key))
    frontier: set[Key] = set()
    for comparable in found.values():
        members: list[_Position] = []
        for position, key in sorted(comparable, reverse=True):
            if not any(_dominates(member, position) for member in members):
                members.append(position)
                frontier.add(key)
    return frontier


def choose(candidates: Iterable[Candidate], budget: Budget) -> Choice:
    """Verdict on each candidate, and the smallest on disk that passes.

    Ties in size go to the lower energy per token (unknown last), then to the name.
    """
    checks, metric = required_by(budget), _metric(budget)
    verdicts = [_verdict(candidate, checks, metric) for candidate in candidates]
    passing = [v.candidate for v in verdicts if v.passes]
    return Choice(verdicts, min(passing, key=_smallness, default=None))


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
        limit = LIMITS[name]
        figure = verdict.candidate.figure(limit.figure)
        assert figure is not None, "an uncertain limit has a figure"
        low, high = (format_quantity(v, figure.unit) for v in (figure.least, figure.most))
        doubts.append(f"{limit.noun} may be anything from {low} to {high}")
    return f"meets every limit, but {' and '.join(doubts)}"


def _reason(broken: Broken, verdict: Verdict) -> str:
    said = LIMITS[broken.limit].describe(broken.required, broken.figure, verdict.metric)
    return f"{said} (uncertain)" if broken.limit in verdict.uncertain else said


def explain_choice(choice: Choice) -> str:
    """The recommendation and how the rest fared, in two or three plain sentences."""
    passing = sum(v.passes for v in choice.verdicts)
    total = len(choice.verdicts)
    if choice.recommended is None:
        return (
            f"Nothing fits: none of {total} candidates meets every limit. {_main_obstacles(choice)}"
        )
    best = choice.recommended
    size = format_quantity(best.file_bytes, "bytes")
    text = (
        f"Recommended: {best.model} at {best.recipe} ({best.format}, {size}), the smallest of "
        f"{passing} that {'meets' if passing == 1 else 'meet'} every limit, out of {total}."
    )
    chosen = next(v for v in choice.verdicts if v.candidate.key == best.key)
    return f"{text} It {_passing(chosen)}." if chosen.uncertain else text


def _main_obstacles(choice: Choice) -> str:
    parts = [f"{noun} stops {count}" for noun, count in obstacles(choice).items()]
    return f"First limit broken: {', '.join(parts)}." if parts else "There were no candidates."


def obstacles(choice: Choice) -> dict[str, int]:
    """How many candidates each limit was the first to stop, in words, commonest first."""
    first = Counter(v.broken[0].limit for v in choice.verdicts if v.broken)
    commonest = sorted(first.items(), key=lambda item: (-item[1], item[0]))
    return {LIMITS[name].noun: count for name, count in commonest}
