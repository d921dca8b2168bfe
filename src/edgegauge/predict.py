"""Predicting: a candidate's speed, memory and energy on a device that is not here.

    prediction = predict(load("raspberry-pi-5-8gb"), spec, "q4_0")
    prediction.decode_tok_per_s         # Figure(..., kind="predicted", low=..., high=...)
    prediction.outcome                  # "fits", "thrashes" or "out of memory"

Memory is computed (`footprint.py`). Speed comes from the prior of the device's core class
(`speed.py`), scaled where the profile states a decode rate; its interval is the held-out error of
that method. Energy is the profile's power times the predicted time. Where the profile lacks what is
needed the figure is None. docs/explanation/prediction.md states what the errors are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from edgegauge import usage as usages
from edgegauge.battery import Costs, battery_figures
from edgegauge.device import DeviceProfile, Power
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.footprint import Footprint, Outcome, footprint
from edgegauge.model import ModelSpec
from edgegauge.recipe import resolve
from edgegauge.speed import (
    Machine,
    Prior,
    Work,
    decode_seconds,
    machine_of,
    prefill_seconds,
    prior_of,
    stated_interval,
    work_of,
)
from edgegauge.usage import Usage

DEFAULT_PROMPT_TOKENS = 128
DEFAULT_CONTEXT = 2048

MEMORY_ERROR = 0.08
"""Largest error of the predicted resident memory in nine measured cases; 3.2 % from 100M parameters
up (docs/explanation/prediction.md)."""

UNKNOWN_BANDWIDTH = 1.6
"""Factor by which the bandwidth itself is uncertain where it is the class's median: the measured
phones have 44 to 85 GB/s around a median of 68."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is expected of one candidate on one device. Speeds are None where it cannot run."""

    device: str
    model: str
    recipe: str
    file_format: str
    parameters: int
    file_bytes: int
    """Tensor data; header and tokenizer come on top."""
    effective_bits: float
    threads: int
    prompt_tokens: int
    context: int
    footprint: Footprint
    outcome: Outcome
    decode_tok_per_s: Figure | None
    """With the prompt in the cache."""
    prefill_tok_per_s: Figure | None
    ttft_s: Figure | None
    peak_memory_bytes: Figure
    """Resident memory where nothing presses on it."""
    needed_memory_bytes: Figure
    """The part of it without which the candidate does not run at this speed."""
    energy_j_per_token: Figure | None
    battery: dict[str, Figure] | None
    """For the stated usage (`battery.py`)."""

    def figures(self) -> dict[str, Figure | None]:
        """The figures that a budget can bound, by their names in `choose.Candidate`."""
        battery = self.battery or {}
        return {
            "decode_tok_per_s": self.decode_tok_per_s,
            "prefill_tok_per_s": self.prefill_tok_per_s,
            "ttft_s": self.ttft_s,
            "peak_memory_bytes": self.peak_memory_bytes,
            "needed_memory_bytes": self.needed_memory_bytes,
            "energy_j_per_token": self.energy_j_per_token,
            "battery_h": battery.get("continuous_h"),
            "tokens_per_charge": battery.get("tokens_per_charge"),
            "conversations_per_charge": battery.get("conversations_per_charge"),
            "added_drain_percent_per_hour": battery.get("added_drain_percent_per_hour"),
        }


def predict(
    device: DeviceProfile,
    spec: ModelSpec,
    recipe: str,
    *,
    file_format: str = "gguf",
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
    context: int | None = None,
    threads: int | None = None,
    usage: Usage | None = None,
) -> Prediction:
    """Predict one candidate on one device.

    `context` is the room for prompt and answer in tokens (default: 2048, or all that the model
    has); `threads` defaults to the device's fast cores, `usage` to the shipped `chat`. Raises
    InputError for a recipe or context that the model does not have, and for other formats.
    """
    recipe = resolve(recipe, file_format)
    if file_format != "gguf":
        raise InputError(f"only gguf files are predicted so far, not {file_format}")
    room = _context(spec, context)
    prompt = min(prompt_tokens, room) if context is None else prompt_tokens
    if prompt > room:
        raise InputError(f"a prompt of {prompt} tokens does not fit in a context of {room}")
    threads = threads or device.cpu.fast_cores
    needs = footprint(
        spec, recipe, features=device.cpu.features, context=room, prompt_tokens=prompt
    )
    outcome = needs.outcome(device.app_memory_bytes)
    decode, prefill, ttft = _speeds(device, work_of(spec, recipe), threads, prompt, needs, outcome)
    energy, battery = _energy(device, decode, prefill, usage or default_usage())
    parameters = _parameters(spec)
    return Prediction(
        device=device.id, model=spec.id, recipe=recipe, file_format=file_format,
        parameters=parameters, file_bytes=needs.weights_bytes,
        effective_bits=8 * needs.weights_bytes / parameters,
        threads=threads, prompt_tokens=prompt, context=room, footprint=needs, outcome=outcome,
        decode_tok_per_s=decode, prefill_tok_per_s=prefill, ttft_s=ttft,
        peak_memory_bytes=_memory(needs.peak_bytes, f"memory of llama.cpp at {room} tokens"),
        needed_memory_bytes=_memory(
            needs.needed_bytes, f"memory of llama.cpp at {room} tokens, droppable pages left out"
        ),
        energy_j_per_token=energy, battery=battery,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _parameters(spec: ModelSpec) -> int:
    """Counting walks over every tensor, and a fit asks once per recipe."""
    return spec.parameters


def _context(spec: ModelSpec, context: int | None) -> int:
    if context is None:
        return min(DEFAULT_CONTEXT, spec.context)
    if context > spec.context:
        raise InputError(
            f"{spec.id} was made for {spec.context} tokens of context, {context} were asked for"
        )
    return context


def _speeds(
    device: DeviceProfile, work: Work, threads: int, prompt: int, needs: Footprint, outcome: Outcome
) -> tuple[Figure | None, Figure | None, Figure | None]:
    """Decode, prefill and time to first token; None where it does not run, or runs from storage
    of unknown speed."""
    prior, machine = prior_of(device.cpu), machine_of(device, threads)
    waiting = 0.0
    if outcome != "fits":
        storage = device.storage_read_mb_per_s
        if outcome == "out of memory" or storage is None:
            return None, None, None
        waiting = needs.weights_in_use_bytes / (storage.value * 1e6)
    decode_s = decode_seconds(work, machine, prior, prompt) + waiting
    first_s = prefill_seconds(work, machine, prior, prompt) + waiting
    decode_range, prefill_range = _ranges(device, prior, machine)
    source = f"prior of {device.cpu.core_class} ({prior.evidence}) on {machine.basis}"
    if waiting:
        source += "; weights read from storage for every token"
    decode = _rate(1 / decode_s, decode_range, f"{source}; {threads} threads")
    prefill = _rate(prompt / first_s, prefill_range, f"{source}; {threads} threads")
    low, high = prefill_range
    ttft = Figure(first_s, "s", "predicted", prefill.source, first_s / high, first_s / low)
    return decode, prefill, ttft


def _ranges(
    device: DeviceProfile, prior: Prior, machine: Machine
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Factors of the 80 % intervals of decode and prefill."""
    stated = device.memory.llm_decode_gb_per_s is not None
    decode = stated_interval() if stated else prior.decode_interval
    if machine.bandwidth_known or stated:
        return decode, prior.prefill_interval
    wide = math.hypot(math.log(decode[1]), math.log(UNKNOWN_BANDWIDTH))
    return (math.exp(-wide), math.exp(wide)), prior.prefill_interval


def _rate(value: float, interval: tuple[float, float], source: str) -> Figure:
    return Figure(value, "tok/s", "predicted", source, value * interval[0], value * interval[1])


def _memory(value: int, source: str) -> Figure:
    low, high = value * (1 - MEMORY_ERROR), value * (1 + MEMORY_ERROR)
    return Figure(float(value), "bytes", "predicted", source, low, high)


@lru_cache(maxsize=1)
def default_usage() -> Usage:
    """The shipped usage model that counts where none is named."""
    return usages.load()


def _energy(
    device: DeviceProfile, decode: Figure | None, prefill: Figure | None, usage: Usage
) -> tuple[Figure | None, dict[str, Figure] | None]:
    """J/token and battery figures from the profile's power; None without power or speed.

    Power is `load_w`, all cores busy, else `sustained_w`; where both are known they bound it.
    """
    power = device.power
    watts = _watts(power) if power else None
    if power is None or watts is None or decode is None:
        return None, None
    energy = _per_token(watts, decode)
    if device.battery is None:
        return energy, None
    idle = power.idle_w
    waiting = Figure(idle.value, "W", "stated", idle.source) if idle else None
    # Where idle power is not known, all of the power counts as added: no less can be shown.
    beyond = _beyond(watts, idle.value if idle else 0.0)
    costs = Costs(
        decode_j=energy, decode_w=watts, decode_tok_per_s=decode,
        prefill_j=_per_token(watts, prefill) if prefill else None, prefill_tok_per_s=prefill,
        net_decode_j=_per_token(beyond, decode),
        net_prefill_j=_per_token(beyond, prefill) if prefill else None, waiting_w=waiting,
    )  # fmt: skip
    return energy, battery_figures(device.battery, costs, usage)


def _watts(power: Power) -> Figure | None:
    """Power under load with what it covers, between the load and the limit where both are known."""
    known = [w for w in (power.load_w, power.sustained_w) if w]
    if not known:
        return None
    source = f"{known[0].value:g} W ({power.covers}; {known[0].source})"
    values = [w.value for w in known]
    return Figure(known[0].value, "W", "stated", source, min(values), max(values))


def _beyond(watts: Figure, idle_w: float) -> Figure:
    """What of a power is above idle; never below nothing."""
    value, low, high = (max(0.0, w - idle_w) for w in (watts.value, watts.least, watts.most))
    return Figure(value, "W", "stated", watts.source, low, high)


def _per_token(watts: Figure, rate: Figure) -> Figure:
    return Figure(
        watts.value / rate.value, "J/token", "predicted", f"{watts.source} x time per token",
        watts.least / rate.most, watts.most / rate.least,
    )  # fmt: skip
