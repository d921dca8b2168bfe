"""Energy per token where the speed is predicted too: errors and coverage of the whole figure.

The speed of each run is predicted by constants fitted without any Raspberry Pi 5 row, as in
`predictor.evaluate`, and its consumption by constants of the other models. Joules per token are not
published, a run's are; a run's error at the measured times is taken to be that of its answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from power.fit import KEPT, fitted, half_width, joules
from power.rows import DEVICE, IDLE_W, TOKENS, Run
from predictor.fit import Problem
from predictor.rows import Row, kernels_of, own_rows, profiles, read_rows

from edgegauge.device import load
from edgegauge.speed import machine_of, priors
from edgegauge.units import GB

MEASURED, DATE = "raspberry-pi-5", "2026"
"""Its name among the devices of the speed prediction, and when it was measured."""


def predicted_s(runs: Sequence[Run]) -> np.ndarray:
    """Seconds per generated token, by constants that saw no row of this device."""
    profile = profiles()[MEASURED]
    mine = [
        Row(
            MEASURED, machine_of(profile, r.threads), "llama.cpp", r.work, r.model, r.recipe,
            kernels_of(r.work, machine_of(profile, r.threads), DATE), TOKENS, None, TOKENS // 2,
            r.answer_tokens / r.answer_s, DEVICE,
        )
        for r in runs
    ]  # fmt: skip
    problem = Problem([*mine, *read_rows(), *own_rows()])
    others = np.array([row.device != MEASURED for row in problem.rows])
    problem.know_bandwidths([d for d in problem.devices if d != MEASURED])
    x = problem.fit(others)
    x[[at for name, at in problem.parameters.index.items() if "@" in name]] = 0.0
    seconds: np.ndarray = np.exp(-problem.logs(x)[0][0][: len(mine)])
    return seconds


def errors_and_coverage(runs: Sequence[Run]) -> tuple[np.ndarray, float]:
    """ln(predicted / measured) of J/token, and the share within the stated intervals."""
    times = predicted_s(runs)
    low, high = priors()["class"][load(DEVICE).cpu.core_class]["decode_interval"]
    found, inside = np.empty(len(runs)), 0
    for model in {r.model for r in runs}:
        rest = [r for r in runs if r.model != model]
        constants = fitted(KEPT, rest)
        width = half_width(rest)
        for i, run in enumerate(runs):
            if run.model != model:
                continue
            watts = IDLE_W + constants[0] * run.threads
            moved = constants[2] * run.work.weight_bytes / GB
            off = math.log(joules(KEPT, constants, run) / run.joules)
            actual = (watts * run.answer_s / run.answer_tokens + moved) / math.exp(off)
            value = watts * times[i] + moved
            least = math.hypot(math.log(value / (watts * low * times[i] + moved)), width)
            most = math.hypot(math.log((watts * high * times[i] + moved) / value), width)
            found[i] = math.log(value / actual)
            inside += -most <= found[i] <= least
    return found, inside / len(runs)
