"""From two models under one meter to the parts of a consumption. Pure.

    power = power_of(large, small, threads=4, measured="2026-11-30 by edgegauge 0.1")

The large model is past the last cache and the small one hardly reads memory, so the powers of
decoding with them differ by what bytes cost:

    large   P = idle + threads x thread + bytes/s x joules per byte
    small   P = idle + threads x thread +  fewer  x joules per byte

Where their powers differ by no more than the meter can tell, or the small model reads much as
well, bytes are not told apart and stay in the threads' power, which suits models that are past the
cache: those that people run. The prompt's power is the large model's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from edgegauge.calibration import Z_80
from edgegauge.consumption import prompt_bytes, token_bytes
from edgegauge.device import InferencePower
from edgegauge.energy import Energy, PhaseName
from edgegauge.errors import MeasurementError
from edgegauge.figure import Figure
from edgegauge.result import Workload
from edgegauge.work import Work

COVERAGE = 2.0
"""k: the intervals of measured figures are so many standard uncertainties wide to either side."""

FEW = 0.25
"""The small model may read so much of what the large one reads per second."""

UNSEEN = 0.1
"""What models and recipes that were not run add to the error, at 80 %. On a Raspberry Pi 5, runs of
one series and number of threads differ by about that (scripts/validate_energy); on other devices it
is assumed."""


@dataclass(frozen=True, slots=True)
class Metered:
    """One source's energy of one model."""

    energy: Energy
    work: Work
    workload: Workload
    cache_bytes: float

    def rate(self, phase: PhaseName) -> float:
        """Tokens per second over the windows of a phase that have joules."""
        windows = [w for w in self.energy.windows if w.phase == phase and w.joules is not None]
        seconds = math.fsum(w.seconds for w in windows)
        return sum(w.tokens for w in windows) / seconds if seconds else 0.0

    @property
    def decode_bytes_per_s(self) -> float:
        """From memory while it decodes, in the middle of an answer."""
        depth = self.workload.prompt_tokens + self.workload.generated_tokens / 2
        return self.rate("decode") * token_bytes(self.work, depth, self.cache_bytes)

    @property
    def prefill_bytes_per_s(self) -> float:
        """From memory while it reads its prompt."""
        tokens = self.workload.prompt_tokens
        return self.rate("prefill") / tokens * prompt_bytes(self.work, tokens, self.cache_bytes)


@dataclass(frozen=True, slots=True)
class _Watts:
    """A mean power and its standard uncertainty, without the scale that all of a meter share."""

    value: float
    error: float

    def exceeds(self, other: _Watts) -> bool:
        """By more than both are uncertain, with 95 % confidence."""
        return self.value - other.value > COVERAGE * math.hypot(self.error, other.error)


def power_of(
    large: Metered, small: Metered | None, *, threads: int, measured: str
) -> InferencePower:
    """The parts, of the source of `large`; `measured` says when and by what.

    Raises MeasurementError where the meter told no power of decoding or of idling, or none of
    decoding beyond idling.
    """
    facts, share = large.energy.source, large.energy.source.calibration_share
    known = [each.energy for each in (large, small) if each is not None]
    idle = _idle([f for e in known for f in (e.idle_before_w, e.idle_after_w) if f], share)
    decode = _watts(large.energy.decode_w, share)
    if idle is None or decode is None:
        why = large.energy.reason or "; ".join(large.energy.flags) or "it gave no power"
        raise MeasurementError(f"{facts.id}: {why}")
    if not decode.exceeds(idle):
        raise MeasurementError(
            f"{facts.id}: decoding drew {decode.value:.3g} W and idling {idle.value:.3g} W, which "
            "it cannot tell apart"
        )
    byte = _j_per_byte(large, small, decode, idle, share)
    prefill, prefill_w = _watts(large.energy.prefill_w, share), None
    if prefill is not None:
        beyond_w = prefill.value - idle.value - byte * large.prefill_bytes_per_s
        prefill_w = max(0.0, beyond_w) / threads
    thread_w = (decode.value - idle.value - byte * large.decode_bytes_per_s) / threads
    off = math.hypot(Z_80 * share, Z_80 * decode.error / decode.value, UNSEEN)
    return InferencePower(
        covers=", ".join(facts.covers), whole_device=facts.whole_device,
        idle_w=_rounded(idle.value), decode_w_per_thread=_rounded(thread_w),
        prefill_w_per_thread=None if prefill_w is None else _rounded(prefill_w),
        decode_nj_per_byte=_rounded(1e9 * byte) if byte else None,
        error=round(math.expm1(off), 3),
        source=f"measured on this machine on {measured} with {threads} threads: {facts.id}, grade "
        f"{facts.grade}, {facts.calibration}",
    )  # fmt: skip


def _j_per_byte(
    large: Metered, small: Metered | None, decode: _Watts, idle: _Watts, share: float
) -> float:
    """Joules of a byte from memory; 0 where they are not told apart from the threads' power."""
    few = _watts(small.energy.decode_w, share) if small else None
    if small is None or few is None or not decode.exceeds(few):
        return 0.0
    most, least = large.decode_bytes_per_s, small.decode_bytes_per_s
    if least > FEW * most:
        return 0.0
    found = (decode.value - few.value) / (most - least)
    # Below idle there is no power that threads could have.
    return found if found * most <= decode.value - idle.value else 0.0


def _watts(figure: Figure | None, share: float) -> _Watts | None:
    if figure is None:
        return None
    whole = (figure.most - figure.least) / (2 * COVERAGE)
    scale = share * figure.value
    return _Watts(figure.value, math.sqrt(max(0.0, whole * whole - scale * scale)))


def _idle(figures: Sequence[Figure], share: float) -> _Watts | None:
    """The mean of all idle windows; half of what they differ by is part of its error."""
    known = [watts for figure in figures if (watts := _watts(figure, share)) is not None]
    if not known:
        return None
    values = [watts.value for watts in known]
    reading = math.hypot(*(watts.error for watts in known)) / len(known)
    return _Watts(fmean(values), math.hypot(reading, (max(values) - min(values)) / 2))


def _rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
