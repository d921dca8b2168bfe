"""Speed of a decoder on a processor that nobody has measured: arithmetic with class priors.

    decode  t = hypot(memory, arithmetic) + layers x t_layer + attention
            memory = bytes / bandwidth        arithmetic = sum(weights x cost) / rate
    prefill t = passes x (memory + layers x t_layer) + tokens x attention
                + hypot(tokens x arithmetic, weights read again)

The bandwidth is what the cores of this class get of the memory's theoretical rate, or of a measured
read rate, and at most so much per thread. `rate` is multiply-adds per second: clock x threads x
multiply-adds per cycle; a weight type costs more or less than llama.cpp's Q4_0 by a factor of the
kernel set. llama.cpp multiplies a few tokens of a prompt at a time with a part of a matrix; a part
that the last cache does not hold comes from memory again for each few tokens (`read_again`).

The fitted constants are in `priors.toml`, which `scripts/validate_predictor` fits to published
measurements (`measurements/`); nothing here was measured on the device itself.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal, NamedTuple, Protocol

from edgegauge.device import Cpu, DeviceProfile
from edgegauge.footprint import UBATCH
from edgegauge.units import GB
from edgegauge.work import Work

KernelSet = Literal["avx512", "avx2", "i8mm", "dotprod", "plain"]
"""Which vector instructions the kernels find, best first."""

DEFAULT_GHZ = 2.0
"""Clock assumed where a profile has none."""

NARROW_CORES = ("Gracemont", "Crestmont")
"""Intel's small cores: their vector units are 128 bits wide, half of what AVX2 asks for (Intel's
optimization manual), so that they count half."""

PARTS = 4
"""Into so many parts per thread llama.cpp cuts a matrix; a thread that is done takes the next part
(`forward_mul_mat` in ggml-cpu/repack.cpp since November 2025)."""

TOKENS_AT_ONCE: dict[KernelSet, int] = {
    "avx512": 16, "avx2": 16, "i8mm": 4, "dotprod": 4, "plain": 16,
}  # fmt: skip
"""Tokens of a prompt that llama.cpp's kernels multiply with a part of a matrix before they read it
again: 4 in the kernels of ARM for reordered weights, 16 in those of x86 and in `mul_mat`."""

MATRICES = 4
"""The largest matrix of a block is about this part of it."""

USUAL_CACHE_MB = {
    "arm-in-order-plain": 0.5, "arm-in-order": 0.5, "arm-a72": 1.0, "arm-a76": 2.0,
    "arm-big-little": 8.0, "apple": 16.0, "x86-avx2": 8.0, "x86-avx512": 8.0,
}  # fmt: skip
"""Last cache that a class's cores share, where a profile tells none. Assumed, after a Raspberry Pi
Zero 2, 4 and 5, a Snapdragon 8, a performance cluster of Apple's M2 and a usual laptop."""

UNKNOWN_BANDWIDTH = 1.6
"""Factor by which the bandwidth itself is uncertain where it is the class's median: the measured
phones have 44 to 85 GB/s around a median of 68."""

Interval = tuple[float, float]


class Estimate(NamedTuple):
    """A predicted time with its 80 % interval, in seconds, and what it rests on."""

    seconds: float
    low: float
    high: float
    source: str


class SpeedModel(Protocol):
    """How fast a device executes a candidate, by whichever method is best for it."""

    @property
    def threads(self) -> int:
        """Threads that the estimates are for."""

    def decode(self, work: Work, depth: int) -> Estimate:
        """Time per generated token with `depth` tokens in the cache."""

    def prefill(self, work: Work, tokens: int) -> Estimate:
        """Time to read a prompt from an empty cache up to the first logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The facts of a profile that the formulas use, for a number of threads."""

    name: str
    """Of the prior: the core class, where in-order cores without a dot product (A53) are apart
    from those with one (A55), since their arithmetic differs by a factor of four."""
    kernels: KernelSet
    fixed: bool
    """Whether memory and power are a desktop's or server's: it reaches more of its bandwidth."""
    threads: int
    cycles_per_s: float
    """Of all threads together: `cycles_per_s`."""
    ghz: float
    """Of the fastest core."""
    theoretical_gb_per_s: float | None
    read_gb_per_s: float | None
    """Measured: what memory gives to this number of threads."""
    one_thread_gb_per_s: float | None
    """Measured: what one of the fastest cores reads."""
    cache_bytes: float
    """Of the last level, as far as the profile tells."""
    shared_cache_bytes: float
    """The same, or what is usual in the class."""


def kernel_set(features: list[str]) -> KernelSet:
    """The kernel set for these instruction-set features."""
    named = set(features)
    if named & {"avx512f", "avx512_vnni"}:
        return "avx512"
    if "avx2" in named:
        return "avx2"
    if "i8mm" in named:
        return "i8mm"
    return "dotprod" if "dotprod" in named else "plain"


def machine_of(profile: DeviceProfile, threads: int) -> Machine:
    """What the formulas need of a profile."""
    cpu, memory = profile.cpu, profile.memory
    kernels = kernel_set(list(cpu.features))
    in_order = cpu.core_class == "arm-in-order" and kernels == "plain"
    name = "arm-in-order-plain" if in_order else cpu.core_class
    bandwidth = memory.bandwidth_gb_per_s
    return Machine(
        name=name,
        kernels=kernels,
        fixed=profile.kind in ("desktop", "server"),
        threads=min(threads, profile.cores),
        cycles_per_s=cycles_per_s(cpu, threads),
        ghz=cpu.clusters[0].ghz or DEFAULT_GHZ,
        theoretical_gb_per_s=bandwidth.value if bandwidth else None,
        read_gb_per_s=memory_rate(
            memory.read_gb_per_s.value if memory.read_gb_per_s else None,
            memory.read_gb_per_s_by_threads or {},
            threads,
        ),
        one_thread_gb_per_s=one.value if (one := memory.read_1_thread_gb_per_s) else None,
        cache_bytes=(cpu.l3_cache_mb or 0) * 2**20,
        shared_cache_bytes=(cpu.l3_cache_mb or USUAL_CACHE_MB[name]) * 2**20,
    )


def memory_rate(
    all_cores: float | None, by_threads: dict[str, float], threads: int
) -> float | None:
    """What memory gives so many threads, of the rates that were read: between two numbers of
    threads a value between theirs, and no less than it gives to more of them. Where fewer read
    less, it is they that are the limit, which is another constant."""
    rates = {int(n): rate for n, rate in by_threads.items()}
    fewer, more = [n for n in rates if n < threads], sorted(n for n in rates if n >= threads)
    if not more:
        return all_cores
    highest = max(rates[n] for n in more)
    if not fewer or more[0] == threads:
        return highest
    few, many = max(fewer), more[0]
    between = rates[few] + (rates[many] - rates[few]) * (threads - few) / (many - few)
    return max(between, highest)


def cycles_per_s(cpu: Cpu, threads: int) -> float:
    """Clock cycles per second of the fastest `threads` cores together, until the last of a matrix's
    parts is done: fewer than their sum where they differ."""
    clocks: list[float] = []
    for cluster in cpu.clusters:
        width = 0.5 if cluster.core in NARROW_CORES else 1.0
        used = min(threads - len(clocks), cluster.count)
        clocks += [width * (cluster.ghz or DEFAULT_GHZ) * 1e9] * used
    if min(clocks) == max(clocks):
        return sum(clocks)
    parts = PARTS * len(clocks)
    done_s = sorted(part / clock for clock in clocks for part in range(1, parts + 1))
    return parts / done_s[parts - 1]


def streamed(weight_bytes: float, cache_bytes: float) -> float:
    """Bytes of the weights that come from memory for each token, not from the last cache: all above
    twice its size, none below half of it."""
    if weight_bytes >= 2 * cache_bytes:
        return weight_bytes
    return weight_bytes * max(0.01, (weight_bytes / cache_bytes - 0.5) / 1.5)


def read_again(work: Work, at_once: float, cache_bytes: float, parts: int = PARTS) -> float:
    """Bytes of weights that come from memory once more for each token of a prompt: those of parts
    that the cache does not hold until the next tokens need them."""
    if at_once == math.inf:
        return 0.0
    part = work.body_bytes / work.layers / MATRICES / parts
    return work.body_bytes / at_once * streamed(part, cache_bytes) / part


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a device differs from its class: factors on its bandwidth and on its two rates."""

    bandwidth: float = 1.0
    decode: float = 1.0
    prefill: float = 1.0


TYPICAL = Scale()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSpeed:
    """The formulas with a machine's constants put in. A SpeedModel."""

    threads: int
    bandwidth_bytes_per_s: float
    decode_rate: float
    """Multiply-adds per second on Q4_0, one token at a time."""
    prefill_rate: float
    """The same, many tokens at a time."""
    layer_s: float
    decode_costs: dict[str, float]
    prefill_costs: dict[str, float]
    """Weight type -> cost of a multiply-add relative to Q4_0, which unknown types cost as well."""
    decode_attention: float
    prefill_attention: float
    """The same for keys and values."""
    cache_bytes: float
    shared_cache_bytes: float
    tokens_at_once: float
    decode_interval: Interval
    prefill_interval: Interval
    """80 % intervals of actual / predicted time."""
    source: str

    def decode_s(self, work: Work, depth: float) -> float:
        """Seconds per generated token."""
        costs, arithmetic = self.decode_costs, 0.0
        for kind, count in work.weights.items():
            arithmetic += count * costs.get(kind, 1.0)
        arithmetic /= self.decode_rate
        memory = streamed(work.weight_bytes, self.cache_bytes) / self.bandwidth_bytes_per_s
        # They overlap in part: between their sum and the longer one.
        seconds = math.hypot(memory, arithmetic) + work.layers * self.layer_s
        if depth:
            seconds += work.kv_bytes(depth) / self.bandwidth_bytes_per_s
            seconds += work.attention(depth) * self.decode_attention / self.decode_rate
        return seconds

    def prefill_s(self, work: Work, tokens: int) -> float:
        """Seconds to read a prompt."""
        costs, arithmetic = self.prefill_costs, 0.0
        for kind, count in work.body.items():
            arithmetic += count * costs.get(kind, 1.0)
        again = read_again(work, self.tokens_at_once, self.shared_cache_bytes)
        seconds = tokens * math.hypot(
            arithmetic / self.prefill_rate, again / self.bandwidth_bytes_per_s
        )
        # The token in the middle of the prompt sees half of it.
        look = work.attention(tokens / 2) * self.prefill_attention
        passes = -(-tokens // UBATCH)
        per_pass = streamed(work.weight_bytes, self.cache_bytes) / self.bandwidth_bytes_per_s
        seconds += passes * (per_pass + work.layers * self.layer_s)
        return seconds + tokens * look / self.prefill_rate

    def decode(self, work: Work, depth: int) -> Estimate:
        """Time per generated token with `depth` tokens in the cache."""
        seconds, (low, high) = self.decode_s(work, depth), self.decode_interval
        return Estimate(seconds, seconds * low, seconds * high, self.source)

    def prefill(self, work: Work, tokens: int) -> Estimate:
        """Time to read a prompt from an empty cache up to the first logits."""
        seconds, (low, high) = self.prefill_s(work, tokens), self.prefill_interval
        return Estimate(seconds, seconds * low, seconds * high, self.source)

    def with_memory(self, share: float) -> ClassSpeed:
        """The same where memory gives this share of its bandwidth."""
        return replace(self, bandwidth_bytes_per_s=share * self.bandwidth_bytes_per_s)


@lru_cache(maxsize=1)
def priors() -> dict[str, Any]:
    """The fitted constants, as priors.toml has them."""
    return tomllib.loads(resources.files("edgegauge").joinpath("priors.toml").read_text("utf-8"))


def class_speed(
    machine: Machine,
    runtime: str = "llama.cpp",
    scale: Scale = TYPICAL,
    constants: dict[str, Any] | None = None,
) -> ClassSpeed:
    """The class prior of a machine, or of one that differs from it by `scale`."""
    values = constants or priors()
    entry = values["class"][machine.name]
    kernels = values["kernels"][machine.kernels]
    factors = values["runtime"][runtime]
    clock = machine.cycles_per_s * _clock(machine, values["model"])
    known = machine.theoretical_gb_per_s is not None or machine.read_gb_per_s is not None
    decode_interval = _pair(entry["decode_interval"], factors["interval"])
    if not known:
        decode_interval = _pair(decode_interval, (1 / UNKNOWN_BANDWIDTH, UNKNOWN_BANDWIDTH))
    return ClassSpeed(
        threads=machine.threads,
        bandwidth_bytes_per_s=scale.bandwidth * GB * _bandwidth(machine, entry, values["model"]),
        decode_rate=scale.decode * entry["decode_per_cycle"] * kernels["decode_rate"] * clock,
        prefill_rate=scale.prefill * entry["prefill_per_cycle"] * kernels["prefill_rate"] * clock,
        layer_s=factors["layer"] * entry["layer_cycles"] / (machine.ghz * 1e9),
        decode_costs=kernels["decode"] | factors["decode"],
        prefill_costs=kernels["prefill"] | factors["prefill"],
        decode_attention=factors["decode_attention"] * kernels["decode_attention"],
        prefill_attention=factors["prefill_attention"] * kernels["prefill_attention"],
        cache_bytes=machine.cache_bytes,
        shared_cache_bytes=machine.shared_cache_bytes,
        tokens_at_once=TOKENS_AT_ONCE[machine.kernels] if runtime == "llama.cpp" else math.inf,
        decode_interval=decode_interval,
        prefill_interval=_pair(entry["prefill_interval"], factors["interval"]),
        source=_source(machine, runtime, entry["evidence"], factors["evidence"], known),
    )


def _bandwidth(machine: Machine, entry: dict[str, Any], model: dict[str, float]) -> float:
    """GB/s that these threads stream: the softer of what memory and what the threads give."""
    if machine.read_gb_per_s is not None:
        memory = model["read_share"] * machine.read_gb_per_s
    else:
        theoretical = machine.theoretical_gb_per_s or entry["bandwidth_gb_per_s"]
        memory = entry["bandwidth_share"] * 50 * (theoretical / 50) ** model["bandwidth_exponent"]
        if machine.name.startswith("x86"):
            memory *= model["x86_fixed" if machine.fixed else "x86_mobile"]
    one_thread = entry["thread_gb_per_s"]
    if machine.one_thread_gb_per_s is not None:
        one_thread = model["thread"] * machine.one_thread_gb_per_s
    threads = machine.threads * one_thread * _clock(machine, model)
    q = model["thread_sharpness"]
    total: float = (memory**-q + threads**-q) ** (-1 / q)
    return total


def _clock(machine: Machine, model: dict[str, float]) -> float:
    """Share of the highest clock that lasts with all cores busy."""
    if not machine.name.startswith("x86"):
        return 1.0
    return model["x86_fixed_clock" if machine.fixed else "x86_mobile_clock"]


def _pair(one: Any, other: Any) -> Interval:
    """The interval of a product of two independent factors with these intervals."""
    low = math.hypot(math.log(one[0]), math.log(other[0]))
    high = math.hypot(math.log(one[1]), math.log(other[1]))
    return math.exp(-low), math.exp(high)


def _source(machine: Machine, runtime: str, evidence: str, ratio: str, known: bool) -> str:
    text = f"prior of {machine.name} ({evidence})"
    if machine.read_gb_per_s is not None:
        text += " on its measured read rate"
    elif known:
        text += " on its theoretical memory bandwidth"
    else:
        text += " on the median memory bandwidth of its class (its own is not known)"
    if runtime != "llama.cpp":
        text += f"; {runtime} {ratio}"
    return f"{text}; {machine.threads} threads"
