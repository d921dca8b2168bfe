"""Speed of a decoder on a processor that nobody has measured: arithmetic with class priors.

    decode  t = bytes / bandwidth + sum(weights x cost) / rate + layers x t_layer
    prefill t = the same per batch of 512, with the arithmetic once per prompt token

`bandwidth` is what the cores of this class get of the memory's theoretical rate, at most so much
per thread. `rate` is multiply-adds per second: clock x threads x multiply-adds per cycle; a weight
type costs more or less than Q4_0 by a factor that depends on the kernel set. All constants are in
`priors.toml`, which `scripts/check_priors` derives from published measurements; nothing here was
measured on the device itself.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from edgegauge.device import Cpu, DeviceProfile
from edgegauge.footprint import (
    UBATCH,
    InstructionSet,
    instruction_set,
    inventory,
    is_multiplied,
)
from edgegauge.model import ModelSpec
from edgegauge.units import GB

LAYER_CYCLES = 60_000
"""Clock cycles per layer and token spent between matrix products: starting and joining threads.
About 20 microseconds at 3 GHz."""

REFERENCE_WEIGHTS_PER_BYTE = 1.6
"""Of the models whose decode rate a profile states (`llm_decode_gb_per_s`): 5 bits per weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is typical of a core class."""

    bandwidth_share: float
    """Of the theoretical memory bandwidth, with enough threads."""
    thread_gb_per_s: float
    """Most that one thread reads."""
    decode_per_cycle: float
    """Multiply-adds per cycle and thread on Q4_0 weights, one token at a time."""
    prefill_per_cycle: float
    """The same, many tokens at a time."""
    bandwidth_gb_per_s: float
    """Median theoretical bandwidth of the class, used only where a profile has none."""
    decode_interval: tuple[float, float]
    """80 % interval of measured / predicted, for devices the prior had not seen."""
    prefill_interval: tuple[float, float]
    evidence: str
    """How many measurements of which devices it rests on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A processor as the formulas see it, with a number of threads."""

    kernels: InstructionSet
    bandwidth_bytes_per_s: float
    cycles_per_s: float
    """Summed over threads."""
    ghz: float
    """Of the fastest core."""
    basis: str
    """Where the bandwidth comes from."""
    scale: float = 1.0
    """Factor on bandwidth and rate where the profile states a decode rate."""
    bandwidth_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one token asks for."""

    weight_bytes: int
    """Read per generated token."""
    weights: dict[str, int]
    """Type -> weights multiplied per generated token."""
    body: dict[str, int]
    """The same without the output head, which a prompt needs once."""
    layers: int
    kv_bytes_per_token: float
    """Read per generated token for each token of context."""
    attention_per_token: float
    """Multiply-adds per token for each token of context."""


@lru_cache(maxsize=1)
def _document() -> dict[str, Any]:
    return tomllib.loads(resources.files("edgegauge").joinpath("priors.toml").read_text("utf-8"))


def prior_name(core_class: str, kernels: InstructionSet) -> str:
    """The prior's name: the core class, where in-order cores without a dot product (A53) are apart
    from those with one (A55), since only their arithmetic differs, by a factor of four."""
    split = core_class == "arm-in-order" and kernels == "plain"
    return "arm-in-order-plain" if split else core_class


def prior_of(cpu: Cpu) -> Prior:
    """The prior for this processor."""
    return _prior(prior_name(cpu.core_class, instruction_set(cpu.features)))


@lru_cache(maxsize=16)
def _prior(name: str) -> Prior:
    entry = _document()["class"][name]
    pairs = {k: (v[0], v[1]) for k, v in entry.items() if isinstance(v, list)}
    return Prior(**(entry | pairs))


def stated_interval() -> tuple[float, float]:
    """80 % interval of measured / predicted decode speed where the profile states a decode rate."""
    low, high = _document()["stated"]["decode_interval"]
    return low, high


def costs(kernels: InstructionSet, phase: str) -> dict[str, float]:
    """Weight type -> cost of a multiply-add relative to Q4_0; `phase` is decode or prefill."""
    table: dict[str, float] = _document()["cost"][kernels][phase]
    return table


def work_of(spec: ModelSpec, recipe: str) -> Work:
    """What a token of this candidate asks for."""
    weight_bytes = 0
    weights: dict[str, int] = {}
    body: dict[str, int] = {}
    for stored, count in inventory(spec, recipe):
        if not is_multiplied(spec, stored):
            continue
        elements = count * stored.tensor.elements
        weight_bytes += count * stored.bytes
        weights[stored.type] = weights.get(stored.type, 0) + elements
        if stored.tensor.role not in ("token_embd", "output"):
            body[stored.type] = body.get(stored.type, 0) + elements
    return Work(
        weight_bytes=weight_bytes,
        weights=weights,
        body=body,
        layers=spec.executed_layers,
        kv_bytes_per_token=spec.executed_layers * 2 * spec.kv_heads * spec.head_dim * 2,
        attention_per_token=spec.executed_layers * 2 * spec.heads * spec.head_dim,
    )


def machine_of(profile: DeviceProfile, threads: int) -> Machine:
    """The formulas' view of a device. The bandwidth is, in order of preference, the profile's own
    measured read rate, the class's share of its theoretical rate, or the class's median."""
    prior, memory = prior_of(profile.cpu), profile.memory
    one = memory.read_1_thread_gb_per_s
    most = threads * (one.value if one else prior.thread_gb_per_s)
    by_threads = memory.read_gb_per_s_by_threads or {}
    known = True
    if memory.read_gb_per_s is not None:
        measured = by_threads.get(str(threads), memory.read_gb_per_s.value)
        rate, basis = READ_SHARE * measured, "its measured read rate"
    elif memory.bandwidth_gb_per_s is not None:
        rate = prior.bandwidth_share * memory.bandwidth_gb_per_s.value
        basis = "its theoretical memory bandwidth"
    else:
        rate = prior.bandwidth_share * prior.bandwidth_gb_per_s
        basis, known = "the median memory bandwidth of its class (its own is not known)", False
    machine = Machine(
        kernels=instruction_set(profile.cpu.features),
        bandwidth_bytes_per_s=min(rate, most) * GB,
        cycles_per_s=cycles_per_s(profile.cpu, threads),
        ghz=profile.cpu.clusters[0].ghz or DEFAULT_GHZ,
        basis=basis,
        bandwidth_known=known,
    )
    stated = memory.llm_decode_gb_per_s
    return machine if stated is None else _scaled(machine, prior, stated.value * GB)


READ_SHARE = 0.85
"""Of a plain read loop's rate, what decoding streams: 0.9 on a Raspberry Pi 5, 0.68 to 0.77 on an
i7-12700H (llama-roofline 0.2.3), about 1 on an M1."""

DEFAULT_GHZ = 2.0
"""Clock assumed where a profile has none."""


def _scaled(machine: Machine, prior: Prior, stated_bytes_per_s: float) -> Machine:
    """The machine with bandwidth and rate scaled so that a model of 5 bits per weight streams at
    the rate the profile states."""
    rate = prior.decode_per_cycle * machine.cycles_per_s
    per_byte = 1 / machine.bandwidth_bytes_per_s + REFERENCE_WEIGHTS_PER_BYTE / rate
    return Machine(
        kernels=machine.kernels,
        bandwidth_bytes_per_s=machine.bandwidth_bytes_per_s,
        cycles_per_s=machine.cycles_per_s,
        ghz=machine.ghz,
        basis="the rate at which a language model was seen to decode on it",
        scale=stated_bytes_per_s * per_byte,
    )


def cycles_per_s(cpu: Cpu, threads: int) -> float:
    """Clock cycles per second of the fastest `threads` cores together."""
    total, left = 0.0, threads
    for cluster in cpu.clusters:
        used = min(left, cluster.count)
        total += used * (cluster.ghz or DEFAULT_GHZ) * 1e9
        left -= used
    return total


def decode_seconds(work: Work, machine: Machine, prior: Prior, depth: int = 0) -> float:
    """Seconds per generated token with `depth` tokens in the cache."""
    bandwidth = machine.bandwidth_bytes_per_s * machine.scale
    rate = prior.decode_per_cycle * machine.cycles_per_s * machine.scale
    moved = work.weight_bytes + depth * work.kv_bytes_per_token
    arithmetic = _weighted(work.weights, costs(machine.kernels, "decode"))
    arithmetic += depth * work.attention_per_token
    return moved / bandwidth + arithmetic / rate + work.layers * _layer_seconds(machine)


def prefill_seconds(work: Work, machine: Machine, prior: Prior, tokens: int) -> float:
    """Seconds to read a prompt of `tokens` from an empty cache, up to the first token's logits.

    The prefill rate is not scaled by a stated decode rate: it depends on other hardware.
    """
    passes = -(-tokens // UBATCH)
    rate = prior.prefill_per_cycle * machine.cycles_per_s
    arithmetic = tokens * _weighted(work.body, costs(machine.kernels, "prefill"))
    arithmetic += tokens * tokens / 2 * work.attention_per_token
    per_pass = work.weight_bytes / machine.bandwidth_bytes_per_s
    return passes * (per_pass + work.layers * _layer_seconds(machine)) + arithmetic / rate


def _weighted(weights: dict[str, int], table: dict[str, float]) -> float:
    return sum(count * table.get(kind, 1.0) for kind, count in weights.items())


def _layer_seconds(machine: Machine) -> float:
    return LAYER_CYCLES / (machine.ghz * 1e9)
