"""The choice of types under a limit: always within it, and how near it comes to the best."""

from __future__ import annotations

import itertools
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from edgegauge_converters.auto_choice import Cost, choose

Table = dict[str, dict[str, Cost]]


def total(options: Table, chosen: dict[str, str]) -> tuple[int, float]:
    costs = [options[group][type] for group, type in chosen.items()]
    return sum(c.bytes for c in costs), math.fsum(c.kl for c in costs)


def best(options: Table, limit: float) -> int:
    """The fewest bytes of all choices within the limit."""
    sizes = [
        total(options, dict(zip(options, types, strict=True)))
        for types in itertools.product(*options.values())
    ]
    return min(size for size, kl in sizes if kl <= limit)


def typical(seed: int, groups: int) -> Table:
    """Groups of different size and sensitivity; a bit less costs four times the divergence."""
    draw = random.Random(seed)
    made: Table = {}
    for group in range(groups):
        size, sensitivity = draw.choice([1, 2, 4, 9]) * 1000, 10 ** draw.uniform(-5, -3)
        made[f"g{group}"] = {
            f"b{bits}": Cost(
                int(size * bits / 8), sensitivity * 4.0 ** (8 - bits) * draw.uniform(0.5, 2)
            )
            for bits in (4, 5, 6, 8)
        }
    return made


def test_it_is_near_the_best_of_all_choices() -> None:
    """The gap that docs/explanation/recipes.md states."""
    gaps = []
    for seed in range(60):
        options = typical(seed, 6)
        least = sum(min(c.kl for c in costs.values()) for costs in options.values())
        limit = least * 10 ** random.Random(seed).uniform(0.2, 2)
        size, kl = total(options, choose(options, limit))
        assert kl <= limit
        gaps.append(size / best(options, limit) - 1)
    assert sorted(gaps)[len(gaps) // 2] == 0
    assert max(gaps) <= 0.05


def test_useless_types_are_not_chosen() -> None:
    options = {"a": {"wide": Cost(100, 0.0), "worse": Cost(90, 0.5), "small": Cost(50, 0.1)}}
    assert choose(options, 1.0) == {"a": "small"}
    assert choose(options, 0.05) == {"a": "wide"}


def test_what_cannot_be_met_gives_the_least() -> None:
    options = {"a": {"wide": Cost(100, 0.2), "small": Cost(50, 0.3)}}
    assert choose(options, 0.1) == {"a": "wide"}


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 50), st.floats(0, 1)), min_size=1, max_size=4
        ),
        min_size=1, max_size=4,
    ),
    st.floats(0, 3),
)  # fmt: skip
def test_it_stays_within_the_limit(groups: list[list[tuple[int, float]]], limit: float) -> None:
    options = {
        f"g{n}": {f"t{m}": Cost(*cost) for m, cost in enumerate(costs)}
        for n, costs in enumerate(groups)
    }
    least = sum(min(c.kl for c in costs.values()) for costs in options.values())
    _, kl = total(options, choose(options, limit))
    assert kl <= max(limit, least) + 1e-9
