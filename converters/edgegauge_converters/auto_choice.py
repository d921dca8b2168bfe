"""Choosing a type for each group of weights: the fewest bytes whose divergences add up to a limit.

    choose({"ffn": {"Q8_0": Cost(850, 1e-4), "Q4_0": Cost(450, 9e-3)}, ...}, limit=0.01)

A knapsack with one choice in each group. It is filled greedily: from the types that cost the least
divergence, the change that saves most bytes for the divergence it adds is made again and again, as
long as the sum stays within the limit. Along the convex hull of each group that is the best there
is; at the end up to one change's worth of the limit may be left over. tests/test_auto_choice.py
compares with trying everything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

Group = TypeVar("Group")


class Cost(NamedTuple):
    """What a type costs a group: bytes, and the KL divergence in nats when only it is stored so."""

    bytes: int
    kl: float


Options = Mapping[Group, Mapping[str, Cost]]


def choose(options: Options[Group], limit: float) -> dict[Group, str]:
    """A type for each group; where even the best exceed the limit, those that add up to least."""
    chosen = {group: _best(costs) for group, costs in options.items()}
    spent = math.fsum(options[group][type].kl for group, type in chosen.items())
    while True:
        change = _best_change(options, chosen, limit - spent)
        if change is None:
            return chosen
        group, type = change
        spent += options[group][type].kl - options[group][chosen[group]].kl
        chosen[group] = type


def _best(costs: Mapping[str, Cost]) -> str:
    """The type of least divergence, and of those the smallest."""
    return min(costs, key=lambda type: (costs[type].kl, costs[type].bytes))


def _best_change(
    options: Options[Group], chosen: Mapping[Group, str], left: float
) -> tuple[Group, str] | None:
    """The change to fewer bytes that saves most of them per nat, of those that fit."""
    best, most = None, 0.0
    for group, costs in options.items():
        now = costs[chosen[group]]
        for type, then in costs.items():
            added = then.kl - now.kl
            if then.bytes >= now.bytes or added > left:
                continue
            rate = (now.bytes - then.bytes) / added if added > 0 else math.inf
            if rate > most:
                best, most = (group, type), rate
    return best
