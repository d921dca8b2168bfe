"""Meters: energy sources of a machine, behind one small protocol.

A kind of meter is an entry point of the group `edgegauge.meters` that names a class without
arguments (a `MeterKind`). It looks for its sources on a machine and either returns them, ready to
be read, or raises `MeterUnusable` with the reason and the one command that would mend it. A source
that cannot be read gives no number, never an estimate.

    found = find_meters(Machine())
    found.meters[0].facts.id         # "rapl:package-0"
    found.refused                    # every other kind, and why

A meter only reads; `measure.recorder` decides when, and `measure.joules` what it adds up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from edgegauge.energy import MeterFacts
from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.machine import Machine

GROUP = "edgegauge.meters"


class MeterUnusable(MeasurementError):
    """A kind of meter has no usable source here; `hint` is the one command that mends it."""


class MeterLost(MeasurementError):
    """A meter stopped telling the truth half-way: its file vanished, a charger was connected."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading. `t_s` is on the machine's clock, in the middle of the time that reading took."""

    t_s: float
    value: float
    """Joules since the meter's first reading (counters, never falling), or watts."""
    took_s: float = 0.0
    span_s: float = 0.0
    """For a power that the source averages itself: over that many seconds before `t_s`."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something a meter noticed about itself during a run; `spoils` withdraws its figures."""

    text: str
    spoils: bool = False


class Meter(Protocol):
    """One energy source that is ready to be read; used by one thread."""

    facts: MeterFacts
    poll_s: float
    """Seconds between readings that see every update (and every wrap) without disturbing."""

    def read(self) -> Reading | None:
        """A reading, or None where the source has nothing new; MeterLost when it fails for good."""

    def flags(self) -> list[Flag]:
        """What it noticed so far. Called from another thread than `read`, so it reads nothing."""

    def close(self) -> None:
        """Release files, processes and connections; may be called twice."""


class MeterKind(Protocol):
    """Looks for the sources of one kind."""

    name: str

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """At least one source, or MeterUnusable. `address` is what follows `NAME:` in `--meter`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A kind that has no usable source on a machine."""

    meter: str
    reason: str
    mend: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """The usable meters, best first, and why the other kinds are not."""

    meters: list[Meter]
    refused: list[Refusal]

    def close(self) -> None:
        """Close the meters, where none is to be read."""
        for meter in self.meters:
            meter.close()

    def why_none(self) -> str:
        """One line for a result without energy: each refused kind and its reason."""
        return "; ".join(f"{r.meter}: {r.reason}" for r in self.refused) or "no meter is installed"


def kinds() -> dict[str, MeterKind]:
    """All registered kinds by name."""
    return {point.name: point.load()() for point in entry_points(group=GROUP)}


def find_meters(machine: Machine, wanted: Sequence[str] = ()) -> Found:
    """Meters of this machine; `wanted` names kinds as `NAME` or `NAME:ADDRESS`, else all are tried.

    Best first: the whole device before a part of it, then by grade, then counters before power.
    Raises InputError for an unknown name; a wanted kind that is unusable is refused like any other.
    """
    known = kinds()
    asked = [w.partition(":") for w in dict.fromkeys(wanted)] or [
        (n, "", "") for n in sorted(known)
    ]
    meters: list[Meter] = []
    refused: list[Refusal] = []
    with ExitStack() as opened:
        for name, _, address in asked:
            if name not in known:
                names = ", ".join(sorted(known))
                raise InputError(f"no meter {name!r}", hint=f"known meters: {names}")
            try:
                found = known[name].find(machine, address or None)
            except MeterUnusable as error:
                refused.append(Refusal(name, str(error), error.hint))
                continue
            meters += found
            for meter in found:
                opened.callback(meter.close)
        opened.pop_all()  # what was found stays open, unless something above was raised
    return Found(sorted(meters, key=_rank), refused)


def _rank(meter: Meter) -> tuple[bool, str, bool]:
    return not meter.facts.whole_device, meter.facts.grade, not meter.facts.counter
