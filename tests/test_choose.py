"""Laws of choosing: what is recommended passes, the frontier is well defined, reasons are true."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgegauge.budget import Budget, QualityFloor
from edgegauge.choose import (
    Candidate,
    choose,
    dominates,
    explain,
    explain_choice,
    frontier_of,
    verdict,
)
from edgegauge.figure import Figure

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

UNITS = {
    "decode_tok_per_s": "tok/s", "prefill_tok_per_s": "tok/s", "ttft_s": "s",
    "peak_memory_bytes": "bytes", "energy_j_per_token": "J/token", "battery_h": "h", "quality": "%",
}  # fmt: skip


def candidate(name="m", file_bytes=1000, kind="predicted", **values):
    figures = {}
    for key, value in values.items():
        low, at, high = value if isinstance(value, tuple) else (None, value, None)
        figures[key] = None if at is None else Figure(at, UNITS[key], kind, "test", low, high)
    return Candidate(
        model=name, recipe="q4_0", format="gguf", parameters=1, file_bytes=file_bytes,
        effective_bits=4.5, figures=figures,
    )  # fmt: skip


@st.composite
def figure(draw, key):
    if draw(st.booleans()) and draw(st.booleans()):
        return None
    value = draw(st.integers(1, 20))
    spread = draw(st.integers(0, 4))
    return Figure(value, UNITS[key], "predicted", "drawn", value - spread, value + spread)


@st.composite
def candidates(draw):
    count = draw(st.integers(1, 9))
    return [
        Candidate(
            model=f"m{i}",
            recipe="q4_0",
            format="gguf",
            parameters=1,
            effective_bits=4.5,
            file_bytes=draw(st.integers(1, 5)),
            figures={key: draw(figure(key)) for key in UNITS},
        )
        for i in range(count)
    ]


budgets = st.builds(
    Budget,
    memory=st.none() | st.integers(1, 20),
    decode_tok_per_s=st.none() | st.integers(1, 20).map(float),
    energy_j_per_token=st.none() | st.integers(1, 20).map(float),
    quality=st.none() | st.builds(QualityFloor, at_least=st.integers(0, 15).map(float)),
)


@law
@given(candidates(), budgets)
def test_the_recommended_one_passes_and_is_the_smallest(found, budget):
    choice = choose(found, budget)
    passing = [v.candidate for v in choice.verdicts if v.passes]
    if choice.recommended is None:
        assert not passing
    else:
        assert choice.recommended in passing
        assert choice.recommended.file_bytes == min(c.file_bytes for c in passing)


@law
@given(candidates(), budgets, st.randoms())
def test_order_does_not_matter(found, budget, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    one, other = choose(found, budget), choose(shuffled, budget)
    assert (one.frontier, one.recommended) == (other.frontier, other.recommended)


@law
@given(candidates(), budgets)
def test_the_frontier_is_not_empty_and_passes_where_something_does(found, budget):
    choice = choose(found, budget)
    assert choice.frontier
    passing = {v.candidate.key for v in choice.verdicts if v.passes}
    assert choice.frontier <= (passing or {c.key for c in found})


@law
@given(candidates(), budgets)
def test_removing_a_dominated_candidate_changes_nothing(found, budget):
    choice = choose(found, budget)
    passing = {v.candidate.key for v in choice.verdicts if v.passes}
    for dropped in found:
        dominated = dropped.key not in choice.frontier
        if dominated and (dropped.key in passing or not passing):
            rest = choose([c for c in found if c.key != dropped.key], budget)
            assert rest.frontier == choice.frontier


@law
@given(candidates())
def test_the_frontier_is_whom_nobody_dominates(found):
    undominated = {c.key for c in found if not any(dominates(other, c) for other in found)}
    assert frontier_of(found) == undominated


@law
@given(candidates())
def test_dominance_is_a_strict_order(found):
    for a in found:
        assert not dominates(a, a)
        for b in found:
            assert not (dominates(a, b) and dominates(b, a))
            for c in found:
                assert not (dominates(a, b) and dominates(b, c)) or dominates(a, c)


def test_overlapping_intervals_do_not_dominate():
    fast = candidate("fast", decode_tok_per_s=(8, 12, 16), quality=50)
    slow = candidate("slow", decode_tok_per_s=(7, 10, 13), quality=50)
    assert not dominates(fast, slow)
    assert dominates(candidate(decode_tok_per_s=(14, 15, 16), quality=50), slow)


def test_an_unknown_figure_is_not_shown_to_be_worse():
    known = candidate("known", decode_tok_per_s=100, quality=50)
    unknown = candidate("unknown", decode_tok_per_s=1)
    assert not dominates(known, unknown) and not dominates(unknown, known)


def test_every_broken_limit_is_listed_cheapest_first():
    budget = Budget(
        memory=512_000_000, file_size=500, ttft_p99_s=0.5, decode_tok_per_s=10,
        prefill_tok_per_s=100, energy_j_per_token=0.5, battery_h=4,
        quality=QualityFloor(at_least=45),
    )  # fmt: skip
    bad = candidate(
        peak_memory_bytes=612e6, ttft_s=1.2, decode_tok_per_s=3, prefill_tok_per_s=30,
        energy_j_per_token=0.7, battery_h=2, quality=40,
    )  # fmt: skip
    found = verdict(bad, budget)
    assert [b.limit for b in found.broken] == [
        "memory", "file_size", "ttft_p99_s", "decode_tok_per_s", "prefill_tok_per_s",
        "energy_j_per_token", "battery_h", "quality",
    ]  # fmt: skip
    assert explain(found).startswith("needs ~612.0 MB of memory, 512.0 MB allowed; is ~1.00 kB")
    assert explain(found).endswith("scores ~40.0 % on avg8_0shot, 45.0 % required")


def test_exactly_at_the_limit_passes():
    budget = Budget(memory=100, decode_tok_per_s=10)
    assert verdict(candidate(peak_memory_bytes=100, decode_tok_per_s=10), budget).passes


def test_an_unknown_figure_does_not_pass_and_says_so():
    found = verdict(candidate(decode_tok_per_s=20), Budget(decode_tok_per_s=10, battery_h=1))
    assert (found.passes, found.unknown) == (False, ["battery_h"])
    assert explain(found) == "battery time is not known"


def test_what_is_unknown_is_no_reason_beside_what_is_known():
    found = verdict(candidate(peak_memory_bytes=200), Budget(memory=100, decode_tok_per_s=1))
    assert found.unknown == ["decode_tok_per_s"]
    assert explain(found) == "needs ~200 B of memory, 100 B allowed"


@pytest.mark.parametrize(("value", "passes"), [((8, 12, 16), True), ((6, 9, 14), False)])
def test_a_limit_inside_the_interval_is_noted(value, passes):
    found = verdict(candidate(decode_tok_per_s=value), Budget(decode_tok_per_s=10))
    assert (found.passes, found.uncertain) == (passes, ["decode_tok_per_s"])
    assert ("may be anything from 8 tok/s to 16 tok/s" in explain(found)) == passes
    assert explain(found).endswith("(uncertain)") != passes


def test_memory_that_may_be_dropped_does_not_count():
    figures = {
        "peak_memory_bytes": Figure(300, "bytes", "predicted", "all"),
        "needed_memory_bytes": Figure(90, "bytes", "predicted", "part"),
    }
    both = Candidate(
        model="m", recipe="q8_0", format="gguf", parameters=1, file_bytes=1, effective_bits=8.5,
        figures=figures,
    )  # fmt: skip
    assert verdict(both, Budget(memory=100)).passes


def test_a_tie_in_size_goes_to_the_lower_energy():
    frugal = candidate("z", energy_j_per_token=1)
    found = choose([candidate("a"), candidate("b", energy_j_per_token=2), frugal], Budget())
    assert found.recommended is frugal


def test_the_choice_in_words():
    small, big = (
        candidate("small", 10, decode_tok_per_s=5),
        candidate("big", 20, decode_tok_per_s=50),
    )
    assert explain_choice(choose([small, big], Budget(decode_tok_per_s=20))) == (
        "Recommended: big at q4_0 (gguf, 20 B), the smallest of 1 that meets every limit, out of 2."
    )
    text = explain_choice(choose([small, big], Budget(decode_tok_per_s=100)))
    assert text.startswith("Nothing fits: none of 2 candidates meets every limit.")
    assert "decode speed stops 2" in text
    assert "no candidates" in explain_choice(choose([], Budget()))
