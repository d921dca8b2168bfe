"""A measured row: the speed that one model reached on a device moves its class's prior there.

A profile may hold what somebody measured on this device, for example with llama-bench: a model,
its recipe, threads, tokens per second (`[[measured]]`). The factors by which the device differs
from its class (`Scale`) are then set so that the prior explains the row: each as far as it counts
in the row's time, and not the whole way, since a row is uncertain. Both speeds of a row count: how
fast a prompt is read tells what the cores do, so that the rest of a token's time is memory. A kind
of speed that no row has is left alone. Of several rows the one counts that is most like what people
ask for (`unlikeness`).

`scripts/validate_predictor` judges the same code by published rows: *with one row* in
docs/explanation/prediction.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgegauge.device import DeviceProfile, MeasuredRow
from edgegauge.errors import InputError
from edgegauge.find_model import resolve_model
from edgegauge.speed import ClassSpeed, Estimate, Machine, Scale, class_speed, machine_of, priors
from edgegauge.transfer import transferred
from edgegauge.work import Work, work_of

Phase = Literal["decode", "prefill"]

BANDWIDTH_SPREAD, CORE_SPREAD, PHASE_SPREAD = 0.3, 0.1, 0.05
"""Standard deviations in natural logarithm of what devices of a class differ by: in bandwidth, in
what their cores do, and in each kind of speed alone."""

ROW_NOISE: dict[Phase, float] = {"decode": 0.1, "prefill": 0.2}
"""The same of one row of a device against its others. Prompts differ more, by the kernel that a
weight type has."""

TYPICAL_WEIGHTS = 2e9
"""Multiplied for a token of the models that people ask for most on a device."""

FORMATS = {"llama.cpp": "gguf", "onnxruntime": "onnx", "litert": "tflite"}

Slopes = tuple[float, float, float]
"""Derivatives of the logarithm of a speed by those of a Scale's bandwidth, decode and prefill."""

Prediction = tuple[float, Slopes]
"""Logarithm of a speed in tokens per second, and its slopes."""

STEP = 1e-4


@dataclass(frozen=True, slots=True)
class Seen:
    """A speed that was measured on a device."""

    phase: Phase
    measured: float
    """Logarithm of tokens per second."""
    predict: Callable[[Scale], Prediction]
    """What a device that differs from its class by a scale is expected to reach."""


def explained(seen: Sequence[Seen]) -> Scale:
    """How a device differs from its class by these speeds: the most likely factors, where those of
    devices scatter around 1 and rows around what their device does."""
    at = [0.0, 0.0, 0.0]
    for _ in range(4):  # Little changes after that.
        found, spread = [0.0, 0.0, 0.0], _prior()
        for each in seen:
            predicted, slopes = each.predict(Scale(**_factors(at)))
            away = sum(s * (f - a) for s, f, a in zip(slopes, found, at, strict=True))
            steep = [sum(c * s for c, s in zip(row, slopes, strict=True)) for row in spread]
            noise = ROW_NOISE[each.phase] ** 2
            whole = sum(s * t for s, t in zip(slopes, steep, strict=True)) + noise
            gain = [t / whole for t in steep]
            missing = each.measured - predicted - away
            found = [f + g * missing for f, g in zip(found, gain, strict=True)]
            spread = [
                [c - g * t for c, t in zip(row, steep, strict=True)]
                for row, g in zip(spread, gain, strict=True)
            ]
        at = found
    return Scale(**_factors(at))


def _prior() -> list[list[float]]:
    """Covariance of the logarithms of a device's factors."""
    core, alone = CORE_SPREAD**2, PHASE_SPREAD**2
    bandwidth = [BANDWIDTH_SPREAD**2, 0.0, 0.0]
    return [bandwidth, [0.0, core + alone, core], [0.0, core, core + alone]]


def _factors(logarithms: list[float]) -> dict[str, float]:
    names = ("bandwidth", "decode", "prefill")
    return {n: math.exp(x) for n, x in zip(names, logarithms, strict=True)}


def unlikeness(work: Work, recipe: str, threads: int, most: int, *, both: bool) -> float:
    """How far a row is from one that most people would measure: a model of 2B weights in q4_0 or
    q4_k_m with as many threads as there are fast cores (`most`), both speeds. By what the row is,
    never by its speed."""
    size = abs(math.log(sum(work.weights.values()) / TYPICAL_WEIGHTS))
    other = recipe not in ("q4_0", "q4_k_m")
    return size + 2 * abs(math.log(threads / most)) + 2 * other + (not both)


@dataclass(frozen=True, slots=True)
class RowSpeed:
    """A class prior moved by rows, where there are any of a kind of speed. A SpeedModel."""

    for_decode: ClassSpeed
    for_prefill: ClassSpeed

    @property
    def threads(self) -> int:
        """Threads that the estimates are for."""
        return self.for_decode.threads

    def decode(self, work: Work, depth: int) -> Estimate:
        """Time per generated token with `depth` tokens in the cache."""
        return self.for_decode.decode(work, depth)

    def prefill(self, work: Work, tokens: int) -> Estimate:
        """Time to read a prompt from an empty cache up to the first logits."""
        return self.for_prefill.prefill(work, tokens)

    def with_memory(self, share: float) -> RowSpeed:
        """The same where memory gives this share of its bandwidth."""
        return RowSpeed(self.for_decode.with_memory(share), self.for_prefill.with_memory(share))


def measured_speed(profile: DeviceProfile, machine: Machine, runtime: str) -> RowSpeed | None:
    """The prior moved by a row of this runtime or else of llama.cpp; None without one. InputError
    for a row of an unknown model or recipe."""
    found = [_Row(profile, at, row) for at, row in enumerate(profile.measured or [])]
    rows = [r for r in found if r.stated.runtime == runtime]
    rows = rows or [r for r in found if r.stated.runtime == "llama.cpp"]
    if not rows:
        return None
    untouched = transferred(profile, machine, runtime) or class_speed(machine, runtime)
    chosen: dict[Phase, _Row] = {}
    for phase in ROW_NOISE:
        known = [row for row in rows if row.rate(phase)]
        if known:
            chosen[phase] = min(known, key=_Row.unlikeness)
    scale = explained([row.seen(phase) for phase, row in chosen.items()])
    speed = class_speed(machine, runtime, scale)
    moved = {p: _moved(p, row, speed, machine, runtime) for p, row in chosen.items()}
    return RowSpeed(moved.get("decode", untouched), moved.get("prefill", untouched))


def row_problems(profile: DeviceProfile) -> list[str]:
    """What is wrong with the measured rows beside their form: unknown models and recipes."""
    problems = []
    for at, row in enumerate(profile.measured or []):
        try:
            _Row(profile, at, row)
        except InputError as error:
            problems.append(str(error))
    return problems


class _Row:
    """A row with its work."""

    def __init__(self, profile: DeviceProfile, at: int, stated: MeasuredRow) -> None:
        self.profile, self.stated = profile, stated
        try:
            spec = resolve_model(stated.model).spec
            self.work = work_of(spec, stated.recipe, FORMATS[stated.runtime])
        except InputError as error:
            text = f"measured.{at}: {error} @ {profile.id}"
            raise InputError(text, hint=error.hint) from None

    def unlikeness(self) -> float:
        """`unlikeness` of this row."""
        both = bool(self.stated.decode_tok_per_s and self.stated.prefill_tok_per_s)
        most = self.profile.cpu.fast_cores
        threads = self.stated.threads
        return unlikeness(self.work, self.stated.recipe, threads, most, both=both)

    def rate(self, phase: Phase) -> float | None:
        """Tokens per second."""
        stated = self.stated
        return stated.decode_tok_per_s if phase == "decode" else stated.prefill_tok_per_s

    def seen(self, phase: Phase) -> Seen:
        """This speed, which the row has."""
        rate = self.rate(phase)
        assert rate is not None
        return Seen(phase, math.log(rate), lambda scale: self.predict(phase, scale))

    def predict(self, phase: Phase, scale: Scale) -> Prediction:
        """Of a phase's speed in this row, on a device that differs from its class by `scale`."""
        machine = machine_of(self.profile, self.stated.threads)

        def logarithm(of: Scale) -> float:
            model = class_speed(machine, self.stated.runtime, of)
            if phase == "decode":
                return -math.log(model.decode_s(self.work, self.stated.depth))
            tokens = self.stated.prompt_tokens
            return math.log(tokens / model.prefill_s(self.work, tokens))

        value, more = logarithm(scale), math.exp(STEP)
        nearby = (
            replace(scale, bandwidth=scale.bandwidth * more),
            replace(scale, decode=scale.decode * more),
            replace(scale, prefill=scale.prefill * more),
        )
        b, d, p = ((logarithm(of) - value) / STEP for of in nearby)
        return value, (b, d, p)


def _moved(
    phase: Phase, row: _Row, speed: ClassSpeed, machine: Machine, runtime: str
) -> ClassSpeed:
    """A moved prior that names the row of a speed, with the interval of the method. Another runtime
    than llama.cpp keeps its own, for which nobody published enough rows."""
    stated = row.stated
    what = f"{stated.model} {stated.recipe}, {stated.threads} threads, {row.rate(phase):g} tok/s"
    source = f"{speed.source}; moved by one row: {what} ({stated.source})"
    moved = replace(speed, source=source)
    if runtime != "llama.cpp":
        return moved
    low, high = priors()["class"][machine.name][f"measured_{phase}_interval"]
    if phase == "decode":
        return replace(moved, decode_interval=(low, high))
    return replace(moved, prefill_interval=(low, high))
