"""Fitting the constants of edgegauge/speed.py to measurements, all at once.

Every constant is the exponential of a parameter. A parameter has a centre and a spread: what is
plausible before any measurement (a normal prior), which decides where there are few rows. Beside
the constants each device has three parameters of its own (bandwidth, decode rate, prefill rate), so
that what is peculiar to a device with many rows does not pass for its class. The fit minimises the
squared logarithm of predicted / measured, with heavy tails (Student's t with 4 degrees of freedom),
by Levenberg-Marquardt; a device of n rows weighs as much as sqrt(n) rows.

The formulas are those of `edgegauge.speed` in vector form; a test holds the two together.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from predictor.kernels import REFERENCES, Phase, cost, is_counted
from predictor.plausible import (
    ATTENTION_SPREAD,
    CENTRES,
    CLASS_CORES,
    CLASS_SHARES,
    CLASS_SPREAD,
    CLASS_STREAMS,
    DEVICE_SPREAD,
    FIXED,
    HIDDEN_SPREAD,
    KERNEL_SPREAD,
    RUNTIME_F32,
    RUNTIME_SPREAD,
    TYPE_SPREAD,
    UNCOUNTED_SPREAD,
)
from predictor.rows import OWN_MACHINE, PHASES, Row

from edgegauge.footprint import UBATCH
from edgegauge.speed import TOKENS_AT_ONCE, read_again, streamed

NOISE = 0.08
"""Standard deviation of one measurement, in natural logarithm: what is left once the constants and
the device's own parameters are fitted."""

TAIL = 4

RUNTIMES = ("onnxruntime", "litert")
"""Runtimes with kernels of their own; other engines run llama.cpp's or variants of them."""

NONE = -1
"""Index of a parameter that is not there: the zero that is appended to them."""

Vector = np.ndarray


class Parameters:
    """Names, centres and spreads, in order of first mention."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.centres: list[float] = []
        self.spreads: list[float] = []

    def __call__(self, name: str, centre: float, spread: float) -> int:
        """Where this parameter is, which is new if nobody asked for it before."""
        if name not in self.index:
            self.index[name] = len(self.index)
            self.centres.append(math.log(centre))
            self.spreads.append(spread)
        return self.index[name]


class Problem:
    """All rows as arrays, with the parameters that each of them involves."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.parameters = named = Parameters()

        def column(f: Callable[[Row], float]) -> Vector:
            return np.array([f(row) for row in self.rows], dtype=float)

        one = {n: named(n, *v) for n, v in CENTRES.items()}
        self.one = one
        self.bytes = column(lambda r: streamed(r.work.weight_bytes, r.machine.cache_bytes))
        self.layers = column(lambda r: r.work.layers / (r.machine.ghz * 1e9))
        self.cycles = column(lambda r: r.machine.cycles_per_s)
        self.again = column(_read_again)
        self.threads = column(lambda r: r.machine.threads)
        self.kv = column(lambda r: r.work.kv_bytes(r.depth))
        self.attention = column(lambda r: r.work.attention(r.depth))
        self.tokens = column(lambda r: max(1, r.tokens))
        self.passes = column(lambda r: -(-max(1, r.tokens) // UBATCH))
        self.prompt_attention = column(lambda r: r.work.attention(r.tokens / 2) * r.tokens)
        self.measured = np.array([[_log(r.decode), _log(r.prefill)] for r in self.rows]).T
        self.read = column(lambda r: r.machine.read_gb_per_s or np.nan)
        self.has_read = ~np.isnan(self.read)
        self.theoretical = column(lambda r: r.machine.theoretical_gb_per_s or np.nan)
        self.one_thread = column(lambda r: r.machine.one_thread_gb_per_s or 1.0)
        self.memory_terms = self._terms(_memory_terms)
        self.thread_terms = self._terms(_thread_terms)
        self.bandwidth_terms = self._terms(lambda r: [_device(r, "bandwidth")])
        self.layer_terms = self._terms(
            lambda r: [_common("layer"), _class(r, "layer"), _runtime(r, "layer")]
        )
        self.rate_terms = {
            phase: self._terms(
                lambda r, p=phase: [
                    _common(p),
                    _class(r, "core"),
                    _class(r, p),
                    _device(r, p),
                    _clock(r),
                ]
            )
            for phase in PHASES
        }
        self.attention_terms = {
            phase: self._terms(
                lambda r, p=phase: [
                    _common(f"{p}_attention"),
                    (f"{p}_attention:{r.machine.kernels}", 1, ATTENTION_SPREAD),
                    _runtime(r, f"{p}_attention"),
                ]
            )
            for phase in PHASES
        }
        self.costs = {p: self._costs(p) for p in PHASES}
        self.centres, self.spreads = np.array(named.centres), np.array(named.spreads)
        self.devices = sorted({row.device for row in self.rows})
        self.know_bandwidths(self.devices)

    def _terms(self, terms: Callable[[Row], list[tuple[str, float, float]]]) -> Vector:
        """Indices of the parameters of each row, as columns; all rows have equally many."""
        return np.array([[self.parameters(*t) for t in terms(row)] for row in self.rows]).T

    def _costs(self, phase: Phase) -> tuple[Vector, Vector, Vector, Vector]:
        """Of every weight type of every row: the row, the weights, and two or more parameters."""
        where, counts, terms = [], [], []
        for at, row in enumerate(self.rows):
            for kind, count in (row.work.weights if phase == "decode" else row.work.body).items():
                where.append(at)
                counts.append(float(count))
                terms.append([self.parameters(*t) for t in cost_terms(row, kind, phase)])
        width = max(map(len, terms))
        padded = np.array([t + [NONE] * (width - len(t)) for t in terms])
        return np.array(where), np.array(counts), padded.T, padded.T != NONE

    def know_bandwidths(self, devices: Sequence[str]) -> None:
        """Use the median bandwidth of these devices of the class where a row's is not known."""
        self.medians = {
            name: median_bandwidth([r for r in self.rows if r.device in devices], name)
            for name in {row.machine.name for row in self.rows}
        }
        fill = np.array([self.medians[row.machine.name] for row in self.rows])
        self.bandwidths = np.where(np.isnan(self.theoretical), fill, self.theoretical)

    def logs(self, x: Vector) -> tuple[Vector, Vector]:
        """ln(predicted tokens per second), decode and prefill, and their derivatives."""
        decode, decode_slope = self._decode(x)
        prefill, prefill_slope = self._prefill(x)
        return np.array([decode, prefill]), np.array([decode_slope, prefill_slope])

    def _decode(self, x: Vector) -> tuple[Vector, Vector]:
        bandwidth, memory_part = self._bandwidth(x)
        rate = self._product(x, self.rate_terms["decode"]) * self.cycles
        arithmetic, by_type = self._arithmetic(x, "decode")
        weight_s, compute_s = self.bytes / bandwidth, arithmetic / rate
        main_s = np.hypot(weight_s, compute_s)
        layer_s = self.layers * self._product(x, self.layer_terms)
        kv_s = self.kv / bandwidth
        look_s = self.attention * self._product(x, self.attention_terms["decode"]) / rate
        total = main_s + layer_s + kv_s + look_s
        share = (weight_s / main_s) ** 2
        in_compute = main_s * (1 - share) / total
        slope = self._slope(x)
        self._add_bandwidth(slope, x, (main_s * share + kv_s) / total, memory_part)
        self._add(slope, self.rate_terms["decode"], in_compute + look_s / total)
        self._add_costs(slope, "decode", by_type, in_compute / arithmetic)
        self._add(slope, self.layer_terms, -layer_s / total)
        self._add(slope, self.attention_terms["decode"], -look_s / total)
        return -np.log(total), slope

    def _prefill(self, x: Vector) -> tuple[Vector, Vector]:
        bandwidth, memory_part = self._bandwidth(x)
        rate = self._product(x, self.rate_terms["prefill"]) * self.cycles
        arithmetic, by_type = self._arithmetic(x, "prefill")
        weight_s = self.passes * self.bytes / bandwidth
        layer_s = self.passes * self.layers * self._product(x, self.layer_terms)
        compute_s = self.tokens * arithmetic / rate
        look_s = self.prompt_attention * self._product(x, self.attention_terms["prefill"]) / rate
        again_s = self.tokens * self.again / bandwidth
        main_s = np.hypot(compute_s, again_s)
        total = weight_s + layer_s + main_s + look_s
        share = (again_s / main_s) ** 2
        in_compute = main_s * (1 - share) / total
        slope = self._slope(x)
        self._add_bandwidth(slope, x, (weight_s + main_s * share) / total, memory_part)
        self._add(slope, self.rate_terms["prefill"], in_compute + look_s / total)
        self._add_costs(slope, "prefill", by_type, in_compute / arithmetic)
        self._add(slope, self.layer_terms, -layer_s / total)
        self._add(slope, self.attention_terms["prefill"], -look_s / total)
        return np.log(self.tokens) - np.log(total), slope

    def _slope(self, x: Vector) -> Vector:
        """Derivatives of ln(speed) by parameter, of each row; to be added to."""
        return np.zeros((len(self.rows), len(x)))

    def _add(self, slope: Vector, terms: Vector, value: Vector) -> None:
        """ln(speed) grows by `value` for each of `terms`."""
        for term in terms:
            np.add.at(slope, (np.arange(len(self.rows)), term), value)

    def _product(self, x: Vector, terms: Vector) -> Vector:
        """Of each row, the product of the constants that `terms` name."""
        return np.exp(x[terms].sum(0))

    def _bandwidth(self, x: Vector) -> tuple[Vector, Vector]:
        """Bytes per second, and the share of memory (not threads) in what limits it."""
        exponent = np.exp(x[self.one["bandwidth_exponent"]])
        memory = self._product(x, self.memory_terms) * 50 * (self.bandwidths / 50) ** exponent
        read = np.exp(x[self.one["read_share"]]) * np.where(self.has_read, self.read, 1)
        memory = np.where(self.has_read, read, memory)
        threads = self._product(x, self.thread_terms) * self.one_thread * self.threads
        q = THREAD_SHARPNESS
        low = memory**-q + threads**-q
        own = self._product(x, self.bandwidth_terms)
        return 1e9 * own * low ** (-1 / q), memory**-q / low

    def _add_bandwidth(self, slope: Vector, x: Vector, share: Vector, part: Vector) -> None:
        """What the bandwidth's parameters do where it is `share` of the time and memory `part` of
        what limits it."""
        self._add(slope, self.bandwidth_terms, share)
        self._add(slope, self.thread_terms, share * (1 - part))
        theoretical = np.where(self.has_read, 0, share * part)
        self._add(slope, self.memory_terms, theoretical)
        exponent = np.exp(x[self.one["bandwidth_exponent"]])
        slope[:, self.one["bandwidth_exponent"]] += (
            theoretical * exponent * np.log(self.bandwidths / 50)
        )
        slope[:, self.one["read_share"]] += np.where(self.has_read, share * part, 0)

    def _arithmetic(self, x: Vector, phase: str) -> tuple[Vector, Vector]:
        """Weighted multiply-adds of each row, and of each of its types."""
        where, counts, terms, _ = self.costs[phase]
        by_type = counts * np.exp(np.append(x, 0.0)[terms].sum(0))
        return np.bincount(where, by_type, len(self.rows)), by_type

    def _add_costs(self, slope: Vector, phase: str, by_type: Vector, per_unit: Vector) -> None:
        where, _, terms, real = self.costs[phase]
        for term, used in zip(terms, real, strict=True):
            np.add.at(slope, (where[used], term[used]), -(by_type * per_unit[where])[used])

    def fit(self, chosen: Vector, start: Vector | None = None, steps: int = 30) -> Vector:
        """The parameters that explain the chosen rows best."""
        x = (self.centres if start is None else start).copy()
        weights = self._weights(chosen)
        damping, value = 1e-3, self._value(x, weights)
        for _ in range(steps):
            predicted, slope = self.logs(x)
            error = self._errors(predicted)
            pull = weights * (TAIL + 1) / (TAIL + error**2)
            flat = slope.reshape(-1, len(x)) / NOISE
            flat_pull = pull.reshape(-1)
            gradient = flat.T @ (flat_pull * error.reshape(-1))
            gradient += (x - self.centres) / self.spreads**2
            curvature = flat.T @ (flat_pull[:, None] * flat) + np.diag(1 / self.spreads**2)
            before = value
            while damping < 1e6:
                step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
                trial = self._value(x - step, weights)
                if trial < value:
                    x, value, damping = x - step, trial, damping / 5
                    break
                damping *= 5
            if before - value < 1e-6 * before:
                break
        return x

    def _weights(self, chosen: Vector) -> Vector:
        """Weight of each row in both phases; 0 where it is not chosen or has no such figure."""
        count = Counter(r.device for r, use in zip(self.rows, chosen, strict=True) if use)
        each = [
            count[r.device] ** -0.5 if use else 0.0
            for r, use in zip(self.rows, chosen, strict=True)
        ]
        return np.where(np.isnan(self.measured), 0.0, np.array(each))

    def _errors(self, predicted: Vector) -> Vector:
        return np.nan_to_num((predicted - self.measured) / NOISE)

    def _value(self, x: Vector, weights: Vector) -> float:
        error = self._errors(self.logs(x)[0])
        loss = float((weights * (TAIL + 1) * np.log1p(error**2 / TAIL)).sum())
        return loss + float((((x - self.centres) / self.spreads) ** 2).sum())


THREAD_SHARPNESS = 6.0
"""Exponent with which the smaller of what memory and what the threads give is the limit: near their
crossing both count. Not fitted; with 3 errors are larger by half a point."""


def _read_again(row: Row) -> float:
    """Bytes per token of a prompt."""
    if row.engine in RUNTIMES:
        return 0.0
    machine = row.machine
    at_once = TOKENS_AT_ONCE[machine.kernels]
    return read_again(row.work, at_once, machine.shared_cache_bytes, row.parts)


def _log(value: float | None) -> float:
    return math.log(value) if value else math.nan


def _common(name: str) -> tuple[str, float, float]:
    return name, *CENTRES[name]


def _class(row: Row, name: str) -> tuple[str, float, float]:
    known = {"core": CLASS_CORES, "thread": CLASS_STREAMS, "bandwidth_share": CLASS_SHARES}.get(
        name, {}
    )
    return f"{name}:{row.machine.name}", known.get(row.machine.name, 1.0), CLASS_SPREAD[name]


def _device(row: Row, name: str) -> tuple[str, float, float]:
    spread = HIDDEN_SPREAD if row.device == OWN_MACHINE else DEVICE_SPREAD[name]
    return f"{name}@{row.device}", 1.0, spread


def _runtime(row: Row, name: str) -> tuple[str, float, float]:
    if row.engine in RUNTIMES:
        return f"{name}/{row.engine}", 1.0, RUNTIME_SPREAD
    return "reference", 1.0, FIXED


def _clock(row: Row) -> tuple[str, float, float]:
    """What of the highest clock lasts: less where a battery-sized power limit holds all cores."""
    if not row.machine.name.startswith("x86"):
        return "reference", 1.0, FIXED
    return ("x86_fixed_clock" if row.machine.fixed else "x86_mobile_clock"), 1.0, 0.2


def _thread_terms(row: Row) -> list[tuple[str, float, float]]:
    """What one thread reads: of the class, or of the device where that was measured."""
    known = row.machine.one_thread_gb_per_s is not None
    own = ("reference", 1.0, FIXED) if known else _class(row, "thread")
    return [_common("thread"), own, _clock(row)]


def _memory_terms(row: Row) -> list[tuple[str, float, float]]:
    share = [_common("bandwidth_share"), _class(row, "bandwidth_share")]
    if not row.machine.name.startswith("x86"):
        return [*share, ("reference", 1.0, FIXED)]
    return [*share, ("x86_fixed" if row.machine.fixed else "x86_mobile", 1.0, 0.2)]


def cost_terms(row: Row, kind: str, phase: Phase) -> list[tuple[str, float, float]]:
    """The parameters whose product is the cost of a multiply-add with this type on this row."""
    if row.engine in RUNTIMES:
        centre = RUNTIME_F32[phase] if kind == "F32" else 1.0
        return [(f"{phase}/{row.engine}/{kind}", centre, RUNTIME_SPREAD)]
    name, kernels = row.kernels[phase][kind], row.machine.kernels
    terms = []
    if name != "Q4_0" or kernels not in REFERENCES:
        spread = KERNEL_SPREAD if is_counted(kind, kernels) else UNCOUNTED_SPREAD
        terms.append((f"{phase}/{name}/{kernels}", cost(name, kernels, phase), spread))
        terms.append((f"{phase}/{kind}", 1.0, TYPE_SPREAD))
    if row.engine == "llamafile":
        terms.append((f"{phase}/llamafile", 1.0, 0.3))
    return terms or [("reference", 1.0, FIXED)]


def median_bandwidth(rows: Sequence[Row], name: str) -> float:
    """Lower median of the theoretical bandwidths of a class's devices, servers and the largest
    chips left out."""
    known = {
        r.device: r.machine.theoretical_gb_per_s
        for r in rows
        if r.machine.name == name and (r.machine.theoretical_gb_per_s or 150) < 150
    }
    return statistics.median_low(v for v in known.values() if v) if known else 20.0
