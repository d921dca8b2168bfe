"""Consumption: the joules of a token whose time is predicted, from what a device draws.

    decode   E = (idle_w + threads x decode_w_per_thread) x t + decode_nj_per_byte x bytes
    prefill  E = (idle_w + threads x prefill_w_per_thread) x t + decode_nj_per_byte x bytes

    consumption(device, "llama.cpp", threads=4).decode(work, depth, estimate)

The parts are those of a calibration with a meter on the device, else of `[power.inference]` of its
profile. `bytes` come from memory: weights that the last cache does not hold, keys and values. A
thread that decodes mostly waits for them; one that reads a prompt multiplies all the time. Without
parts, the profile's watts are taken for everything: `inference_w`, else `load_w`, else
`sustained_w`, of which the latter two are more than decoding takes. Net energy is less idle power
for the same time.

The interval (80 %) is that of the time, which moves what is power x time and not what bytes cost,
and the error of the parts at a known time, as if they were independent.
docs/explanation/prediction.md has the errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgegauge.device import DeviceProfile, InferencePower, Power
from edgegauge.figure import Figure
from edgegauge.footprint import UBATCH
from edgegauge.speed import Estimate, Interval, streamed
from edgegauge.units import MIB
from edgegauge.work import Work

WATTAGE_ERROR = 0.3
"""One wattage on all models, recipes and numbers of threads: 90 % of 70 runs on a Raspberry Pi 5
were within this share (scripts/validate_energy). Nobody published enough of another device."""

LEAST_J = 1e-12
"""Energies below this are none: a net energy where a profile's idle power is its load."""


def token_bytes(work: Work, depth: float, cache_bytes: float) -> float:
    """What comes from memory for a token with `depth` tokens before it."""
    return streamed(work.weight_bytes, cache_bytes) + work.kv_bytes(depth)


def prompt_bytes(work: Work, tokens: int, cache_bytes: float) -> float:
    """What comes from memory for a prompt: its weights once for all that is computed at once."""
    return streamed(work.weight_bytes, cache_bytes) * -(-tokens // UBATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What a device draws while a runtime works on it with some number of threads."""

    decode_w: float
    prefill_w: float
    """Beside the bytes."""
    j_per_byte: float
    idle_w: Figure | None
    interval: Interval
    """80 % interval of actual / predicted energy at a known time."""
    whole_device: bool
    cache_bytes: float
    source: str

    def decode(self, work: Work, depth: int, time: Estimate, *, net: bool = False) -> Figure:
        """J per generated token, or what of it is `net` of idle power."""
        moved_j = self.j_per_byte * token_bytes(work, depth, self.cache_bytes)
        return self._token(self._watts(self.decode_w, net), moved_j, time)

    def prefill(self, work: Work, tokens: int, time: Estimate, *, net: bool = False) -> Figure:
        """J per token of a prompt that takes this time."""
        moved_j = self.j_per_byte * prompt_bytes(work, tokens, self.cache_bytes)
        return self._token(self._watts(self.prefill_w, net), moved_j, time, tokens)

    def while_decoding(self, joules: Figure, seconds: float) -> Figure:
        """Mean power of tokens of this energy, one each `seconds`."""
        watts, (low, high) = joules.value / seconds, self.interval
        return Figure(watts, "W", "predicted", self.source, watts * low, watts * high)

    def _watts(self, watts: float, net: bool) -> float:
        """All, or what is above idle. Where idle power is not known, all of it counts as added: no
        less can be shown."""
        return max(0.0, watts - self.idle_w.value) if net and self.idle_w else watts

    def _token(self, watts: float, moved_j: float, time: Estimate, tokens: int = 1) -> Figure:
        value, least, most = (watts * s + moved_j for s in (time.seconds, time.low, time.high))
        low, high = self.interval
        if value > LEAST_J:
            low = math.exp(-math.hypot(math.log(value / least), math.log(low)))
            high = math.exp(math.hypot(math.log(most / value), math.log(high)))
        each = value / tokens
        return Figure(each, "J/token", "predicted", self.source, each * low, each * high)


def consumption(device: DeviceProfile, runtime: str, threads: int) -> Consumption | None:
    """What is known of this device; None where nothing is."""
    calibration = (device.calibration or {}).get(runtime)
    cache_bytes = (device.cpu.l3_cache_mb or 0) * MIB
    if calibration and calibration.power and calibration.threads == threads:
        return _in_parts(calibration.power, threads, calibration.cache_bytes)
    if device.power is None:
        return None
    if device.power.inference:
        return _in_parts(device.power.inference, threads, cache_bytes)
    return _wattage(device.power, cache_bytes)


def _in_parts(power: InferencePower, threads: int, cache_bytes: float) -> Consumption:
    decode_w = power.idle_w + threads * power.decode_w_per_thread
    prefill = power.prefill_w_per_thread
    byte = power.decode_nj_per_byte or 0.0
    told = f"{decode_w:.3g} W" + (f" + {byte:.3g} nJ/byte" if byte else "")
    return Consumption(
        decode_w=decode_w,
        prefill_w=decode_w if prefill is None else power.idle_w + threads * prefill,
        j_per_byte=byte * 1e-9,
        idle_w=Figure(power.idle_w, "W", "stated", power.source),
        interval=(1 / (1 + power.error), 1 + power.error),
        whole_device=power.whole_device,
        cache_bytes=cache_bytes,
        source=f"{told} ({power.covers}; {power.source}) x time per token",
    )


def _wattage(power: Power, cache_bytes: float) -> Consumption | None:
    """One power for everything. Power under another load than a language model says no more than
    that decoding takes between idle and the most that the device was seen to draw."""
    known = [w.value for w in (power.load_w, power.sustained_w) if w]
    chosen = power.inference_w or power.load_w or power.sustained_w
    if chosen is None:
        return None
    idle, watts = power.idle_w, chosen.value
    least, most = watts / (1 + WATTAGE_ERROR), watts * (1 + WATTAGE_ERROR)
    if power.inference_w is None:
        least, most = min(least, idle.value if idle else least), max(most, *known)
    return Consumption(
        decode_w=watts, prefill_w=watts, j_per_byte=0.0,
        idle_w=Figure(idle.value, "W", "stated", idle.source) if idle else None,
        interval=(least / watts, most / watts), whole_device=True, cache_bytes=cache_bytes,
        source=f"{watts:g} W ({power.covers}; {chosen.source}) x time per token",
    )  # fmt: skip
