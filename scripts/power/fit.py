"""Forms of consumption, fitted to the published runs and judged on those that were held out.

A run is prompts and answers of known length; its joules are the published mean power times the
published times. Each form is a sum of amounts times constants of one device; the constants are the
non-negative ones with the least squares of relative errors. What they are judged by is the energy
of runs of a model, of a recipe, on a number of threads or of a series that the constants never saw.

The form that is kept is `edgegauge.consumption`: idle power is known from a measurement of its own,
each thread adds something while it decodes and more while it reads a prompt, and so does each byte
that comes from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from power.rows import IDLE_W, Run

from edgegauge.calibration_fit import non_negative
from edgegauge.units import GB

Amounts = Callable[[Run], list[float]]
Key = Callable[[Run], object]

LEVEL = 0.8

FORMS: dict[str, tuple[float, Amounts]] = {
    "one wattage": (0.0, lambda r: [r.seconds]),
    "a wattage for prompts, one for answers": (0.0, lambda r: [r.prompt_s, r.answer_s]),
    "joules per byte alone": (0.0, lambda r: [r.answer_gb + r.prompt_gb]),
    "one wattage and joules per byte": (0.0, lambda r: [r.seconds, r.answer_gb + r.prompt_gb]),
    "idle, and watts per thread": (IDLE_W, lambda r: [r.threads * r.seconds]),
    "the same, prompts apart": (
        IDLE_W, lambda r: [r.threads * r.answer_s, r.threads * r.prompt_s]
    ),
    "the same, and joules per byte": (
        IDLE_W,
        lambda r: [r.threads * r.answer_s, r.threads * r.prompt_s, r.answer_gb + r.prompt_gb],
    ),
    "the same, and joules per multiply-add": (
        IDLE_W,
        lambda r: [
            r.threads * r.answer_s, r.threads * r.prompt_s, r.answer_gb + r.prompt_gb,
            r.answer_tokens * sum(r.work.weights.values()) / GB,
        ],
    ),
}  # fmt: skip
"""Name: the power that is known, and the amounts with a constant each. Seconds and threads x
seconds give watts, GB give nJ per byte, 10^9 multiply-adds give nJ each."""

KEPT = "the same, and joules per byte"

HELD: dict[str, Key] = {
    "model": lambda r: r.model, "recipe": lambda r: r.recipe, "threads": lambda r: r.threads,
    "series": lambda r: r.series,
}  # fmt: skip
"""What is held out, one of its values at a time."""


def fitted(form: str, runs: Sequence[Run]) -> np.ndarray:
    """The constants of a form."""
    known, amounts = FORMS[form]
    joules = np.array([r.joules for r in runs])
    shares = np.array([amounts(r) for r in runs]) / joules[:, None]
    rest = np.array([1 - known * r.seconds / r.joules for r in runs])
    scale = np.maximum(shares.max(axis=0), 1e-30)  # what no run asked for costs nothing
    found: np.ndarray = non_negative(shares / scale, rest) / scale
    return found


def joules(form: str, constants: np.ndarray, run: Run) -> float:
    """What a form says of a run."""
    known, amounts = FORMS[form]
    return known * run.seconds + float(constants @ np.array(amounts(run)))


def held_out(form: str, runs: Sequence[Run], key: Key) -> np.ndarray:
    """ln(predicted / measured), each run by constants of runs with another key."""
    found = np.empty(len(runs))
    for value in {key(r) for r in runs}:
        constants = fitted(form, [r for r in runs if key(r) != value])
        for i, run in enumerate(runs):
            if key(run) == value:
                found[i] = np.log(joules(form, constants, run) / run.joules)
    return found


def half_width(runs: Sequence[Run], form: str = KEPT) -> float:
    """Half of the 80 % interval of ln(actual / predicted): that of the model or the series with the
    largest errors, since predictions are for models and circumstances that are not here. A series
    that is most of the runs tells nothing: the others hardly know its prompts."""
    found = 0.0
    for name in ("model", "series"):
        key = HELD[name]
        errors = held_out(form, runs, key)
        for value in {key(r) for r in runs}:
            mine = [abs(e) for e, r in zip(errors, runs, strict=True) if key(r) == value]
            if name == "model" or 2 * len(mine) < len(runs):
                found = max(found, float(np.quantile(mine, LEVEL)))
    return found


def coverage(runs: Sequence[Run], form: str = KEPT) -> float:
    """Share of the runs within the interval that runs of the other models give."""
    inside = 0
    for model in {r.model for r in runs}:
        rest = [r for r in runs if r.model != model]
        width, constants = half_width(rest, form), fitted(form, rest)
        mine = [r for r in runs if r.model == model]
        inside += sum(abs(np.log(joules(form, constants, r) / r.joules)) <= width for r in mine)
    return inside / len(runs)


def summary(errors: np.ndarray) -> tuple[float, float]:
    """Median and 90th percentile of |predicted / measured - 1| in percent."""
    sizes = 100 * np.abs(np.expm1(errors))
    return float(np.quantile(sizes, 0.5)), float(np.quantile(sizes, 0.9))
