"""Held-out errors: each device predicted by constants fitted without any of its rows.

Two ways of predicting it: *profile*, from what its profile states alone, and *one row*, the same
with the device's own parameters set from one of its rows. That row is chosen by what it is, never
by its result: `calibration_row`; but the rule was revised with the errors in view, as the
documentation says. The intervals are the errors of the other devices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from predictor.fit import Problem
from predictor.rows import OWN_MACHINE, PHASES, Row

from edgegauge.measured_row import Prediction, Seen, explained, unlikeness
from edgegauge.recipe import GGUF_RECIPES
from edgegauge.speed import PARTS, Scale

METHODS = ("profile", "one row")

WEIGHT_OF_ALL = 12.0
"""An interval is that of the class's errors and of all errors, which count as so many devices."""

LEVEL = 0.8

ROW_WEIGHT = -0.25
"""What a row of a device of n rows counts in an interval: n to this power, half way in logarithm
from counting rows alike (0) to what a row counts in the fit (-1/2)."""

Errors = dict[str, np.ndarray]
"""Method -> ln(predicted / measured), phases x rows; NaN where there is none."""


def held_out(problem: Problem, say: Callable[[str], None]) -> Errors:
    """Errors of both methods for the published rows; our own, which come last, are only fitted."""
    rows, devices = problem.rows, np.array([row.device for row in problem.rows])
    start = problem.fit(np.ones(len(rows), bool))
    own = [at for name, at in problem.parameters.index.items() if "@" in name]
    errors = {method: np.full((2, len(rows)), np.nan) for method in METHODS}
    for device in problem.devices:
        if device == OWN_MACHINE:
            continue
        problem.know_bandwidths([d for d in problem.devices if d != device])
        x = problem.fit(devices != device, start, steps=8)
        x[own] = 0.0
        mine = np.flatnonzero(devices == device)
        errors["profile"][:, mine] = (problem.logs(x)[0] - problem.measured)[:, mine]
        known = [[int(i) for i in mine if not np.isnan(of[i])] for of in problem.measured]
        # A device of one row has none left to be judged by.
        chosen = [calibration_row(rows, of) if len(of) > 1 else None for of in known]
        moved = problem.logs(adapted(problem, x, device, chosen))[0] - problem.measured
        for phase, (of, at) in enumerate(zip(known, chosen, strict=True)):
            rest = [i for i in of if at not in (None, i)]
            errors["one row"][phase, rest] = moved[phase, rest]
        say(device)
    problem.know_bandwidths(problem.devices)
    published = sum(row.device != OWN_MACHINE for row in rows)
    return {method: found[:, :published] for method, found in errors.items()}


def adapted(
    problem: Problem, x: np.ndarray, device: str, chosen: Sequence[int | None]
) -> np.ndarray:
    """The constants with a device's own parameters moved so that the chosen row of each phase is
    explained, by the package's own code."""
    names = [f"{name}@{device}" for name in ("bandwidth", "decode", "prefill")]
    own = [problem.parameters.index[name] for name in names]
    x = x.copy()

    def predict(phase: int, at: int, scale: Scale) -> Prediction:
        x[own] = np.log([scale.bandwidth, scale.decode, scale.prefill])
        predicted, slope = problem.logs(x)
        b, d, p = slope[phase, at, own]
        return float(predicted[phase, at]), (b, d, p)

    found = explained([
        Seen(PHASES[k], float(problem.measured[k, at]), partial(predict, k, at))
        for k, at in enumerate(chosen)
        if at is not None
    ])  # fmt: skip
    x[own] = np.log([found.bandwidth, found.decode, found.prefill])
    return x


def calibration_row(rows: Sequence[Row], candidates: Sequence[int]) -> int | None:
    """The row most like one that a user measures today: as the package chooses among several, with
    today's kernels and cut of the matrices."""

    def distance(at: int) -> tuple[float, int]:
        row = rows[at]
        most = max(r.machine.threads for r in rows if r.device == row.device)
        both = row.decode is not None and row.prefill is not None
        old = row.replaced + (row.parts < PARTS)
        far = unlikeness(row.work, row.recipe, row.machine.threads, most, both=both)
        return far + 2 * old, at

    return min(candidates, key=distance) if candidates else None


def half_width(rows: Sequence[Row], errors: np.ndarray, name: str, without: str = "") -> float:
    """Half of the 80 % interval of ln(actual / predicted) for a device of a class, from the errors
    of all devices but one, each in units of what was to be expected of a class with so few."""
    judged = [i for i, error in enumerate(errors) if not np.isnan(error)]
    members = Counter(n for n, _ in {(rows[i].machine.name, rows[i].device) for i in judged})
    others = [i for i in judged if rows[i].device != without]
    many = Counter(rows[i].device for i in others)
    weights = {i: float(many[rows[i].device]) ** ROW_WEIGHT for i in others}
    sizes = {i: abs(errors[i]) / doubt(members[rows[i].machine.name] - 1) for i in others}

    def quantile(use: Sequence[int]) -> float:
        ordered = sorted(use, key=sizes.__getitem__)
        below = np.cumsum([weights[i] for i in ordered])
        return sizes[ordered[int(np.searchsorted(below, LEVEL * below[-1]))]]

    mine = [i for i in others if rows[i].machine.name == name]
    count = len({rows[i].device for i in mine})
    share = count / (count + WEIGHT_OF_ALL)
    typical = (1 - share) * quantile(others) + (share * quantile(mine) if mine else 0.0)
    return doubt(count) * typical


def doubt(devices: int) -> float:
    """How much larger the error of one more device of a class is where so many are known: their
    mean is uncertain by 1 / sqrt(their number). What all classes share counts as half a device."""
    return math.sqrt(1 + 1 / (devices + 0.5))


def widths(rows: Sequence[Row], errors: Errors) -> dict[str, dict[str, dict[str, float]]]:
    """Method -> phase -> class -> half width."""
    names = sorted({row.machine.name for row in rows})
    return {
        method: {
            phase: {n: round(half_width(rows, errors[method][k], n), 3) for n in names}
            for k, phase in enumerate(PHASES)
        }
        for method in METHODS
    }


def inside(rows: Sequence[Row], errors: np.ndarray) -> np.ndarray:
    """Whether each row lies in an interval that was made without its device; NaN without error."""
    known: dict[str, float] = {}
    found = np.full(len(rows), np.nan)
    for i in np.flatnonzero(~np.isnan(errors)):
        device = rows[i].device
        if device not in known:
            known[device] = half_width(rows, errors, rows[i].machine.name, device)
        found[i] = abs(errors[i]) <= known[device]
    return found


@dataclass(frozen=True)
class Part:
    """Some of the rows, for a line of the table."""

    name: str
    holds: Callable[[Row], bool]


def parts(rows: Sequence[Row]) -> list[Part]:
    """All rows, by when they were found, by kernels of today and replaced ones, what `fit` offers,
    by engine and by class."""
    named = [Part("all", lambda r: True)]
    named.append(Part("collected first", lambda r: not r.later))
    named.append(Part("found later", lambda r: r.later))
    named.append(Part("kernels of today", lambda r: not r.replaced))
    named.append(Part("kernels since replaced", lambda r: r.replaced))
    named.append(Part("recipes of `fit`", lambda r: r.recipe in GGUF_RECIPES))
    for engine in sorted({r.engine for r in rows}):
        named.append(Part(engine, lambda r, e=engine: r.engine == e))
    for name in sorted({r.machine.name for r in rows}):
        named.append(Part(name, lambda r, n=name: r.machine.name == n))
    return named


def table(rows: Sequence[Row], errors: Errors, rule: np.ndarray) -> list[dict[str, object]]:
    """A line per part: rows, devices, and of each phase and method the median and 90th percentile
    of |predicted / measured - 1| and the coverage of the interval; of the plain rule too."""
    covered = {m: [inside(rows, found) for found in errors[m]] for m in METHODS}
    lines: list[dict[str, object]] = []
    for part in parts(rows):
        line: dict[str, object] = {"part": part.name}
        for k, phase in enumerate(PHASES):
            for method in METHODS:
                found, held = errors[method][k], covered[method][k]
                use = [i for i, r in enumerate(rows) if part.holds(r) and not np.isnan(found[i])]
                if use:
                    line[f"{phase}, {method}"] = summary(found[use]) | {
                        "devices": len({rows[i].device for i in use}),
                        "coverage": round(float(held[use].mean()), 2),
                    }
        use = [i for i, r in enumerate(rows) if part.holds(r) and not np.isnan(rule[i])]
        if use:
            line["decode, bandwidth / size"] = summary(rule[use])
        lines.append(line)
    return lines


def device_coverage(rows: Sequence[Row], errors: Errors) -> dict[str, dict[str, float]]:
    """Method -> phase -> mean over devices of the share of its rows in the interval."""
    found: dict[str, dict[str, float]] = {}
    for method in METHODS:
        found[method] = {}
        for k, phase in enumerate(PHASES):
            held = inside(rows, errors[method][k])
            by_device: dict[str, list[float]] = {}
            for i in np.flatnonzero(~np.isnan(held)):
                by_device.setdefault(rows[i].device, []).append(held[i])
            found[method][phase] = round(float(np.mean([*map(np.mean, by_device.values())])), 2)
    return found


def summary(errors: np.ndarray) -> dict[str, object]:
    """Rows, median and 90th percentile of the absolute error in percent."""
    sizes = 100 * np.abs(np.expm1(errors))
    return {
        "rows": len(errors), "median": round(float(np.quantile(sizes, 0.5)), 1),
        "p90": round(float(np.quantile(sizes, 0.9)), 1),
    }  # fmt: skip


def plain_rule(rows: Sequence[Row]) -> np.ndarray:
    """Errors of theoretical bandwidth / bytes read; NaN where the bandwidth is not known."""
    return np.array([
        math.log(r.machine.theoretical_gb_per_s * 1e9 / r.work.weight_bytes / r.decode)
        if r.decode and r.machine.theoretical_gb_per_s else math.nan
        for r in rows
    ])  # fmt: skip


def noise_floor(rows: Sequence[Row]) -> dict[str, object]:
    """How far two sources disagree on the same device, model, recipe and number of threads."""
    found: dict[str, object] = {}
    for phase in PHASES:
        groups: dict[tuple[object, ...], dict[str, float]] = {}
        for row in rows:
            value = row.decode if phase == "decode" else row.prefill
            if value:
                key = (row.device, row.model, row.recipe, row.machine.threads)
                groups.setdefault(key, {}).setdefault(row.source, value)
        gaps = [
            math.log(a / b)
            for group in groups.values()
            for n, a in enumerate(group.values())
            for b in list(group.values())[:n]
        ]
        if gaps:
            found[phase] = summary(np.array(gaps))
    return found
