"""The budget as command-line options, shared by the commands that judge candidates.

@budget_options
def command(limits: BudgetFlags, ...) -> None:
    budget = limits.apply(Budget())
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from edgegauge.budget import DEFAULT_METRIC, Budget, merge
from edgegauge.errors import InputError

_LIMITS = {
    "memory": ("--memory", "SIZE", "Peak memory at most, for example 900MB."),
    "file_size": ("--file-size", "SIZE", "Size on disk at most."),
    "decode_tok_per_s": ("--decode", "TOK/S", "Generated tokens per second at least."),
    "prefill_tok_per_s": ("--prefill", "TOK/S", "Prompt tokens per second at least."),
    "ttft_p99_s": ("--ttft", "SECONDS", "Time to first token at most (99th percentile)."),
    "energy_j_per_token": ("--energy", "J", "Energy per generated token at most."),
    "battery_h": ("--battery-hours", "HOURS", "Hours of decoding on one charge at least."),
}
_SIZES = {"memory", "file_size"}


@dataclass(frozen=True, slots=True)
class BudgetFlags:
    """The limits given on the command line; None where the option was not used."""

    limits: dict[str, Any]
    min_quality: float | None
    quality_metric: str | None

    def metric(self, base: Budget) -> str:
        """The quality metric in force: the option's, else the budget's, else the default."""
        return self.quality_metric or (base.quality.metric if base.quality else DEFAULT_METRIC)

    def apply(self, base: Budget) -> Budget:
        """`base` with these limits in place of its own; InputError where they make no sense."""
        overrides = dict(self.limits)
        metric = self.metric(base)
        if self.min_quality is not None:
            overrides["quality"] = {"metric": metric, "at_least": self.min_quality}
        elif base.quality is not None and metric != base.quality.metric:
            raise InputError(
                f"the budget's quality floor is on {base.quality.metric}, not on {metric}",
                hint=f"give the floor on {metric} with --min-quality",
            )
        return merge(base, overrides)


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the budget options; they reach the command as one argument, `limits: BudgetFlags`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any, min_quality: float | None, quality_metric: str | None, **kw: Any
    ) -> Any:
        limits = {name: kw.pop(name) for name in _LIMITS}
        return function(*args, limits=BudgetFlags(limits, min_quality, quality_metric), **kw)

    decorated: Callable[..., Any] = click.option(
        "--quality-metric", metavar="NAME", help=f"Published score to use [{DEFAULT_METRIC}]."
    )(wrapped)
    decorated = click.option(
        "--min-quality", type=float, metavar="SCORE", help="Score at least, on the quality metric."
    )(decorated)
    for name, (flag, metavar, text) in reversed(_LIMITS.items()):
        decorated = click.option(
            flag, name, type=str if name in _SIZES else float, metavar=metavar, help=text
        )(decorated)
    return decorated
