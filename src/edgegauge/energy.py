"""Energy as a result file holds it: where it was read, over which windows, and how sure it is.

Three energies are never mixed: `total` is all that the source covers, `net` is total less idle with
the model loaded, and a source that does not cover the whole device (`whole_device` false) measures
its domain only. A figure that could not be measured is None and `reason` says why; no estimate ever
takes its place. Uncertainties are standard (k=1) in `terms` and windows; intervals of figures are
expanded (k=2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge.document import Document
from edgegauge.figure import Figure

Grade = Literal["A", "B", "C", "D"]
"""A: traceable external meter at the supply (at most 1 %); B: hardware energy counter of known
coverage; C: sampled rail or gauge, uncalibrated or corrected by a published fit (10 to 20 %);
D: battery percent (15 to 50 %)."""

Moment = Annotated[float, Field(ge=-1e12, le=1e12)]
"""Seconds on a monotonic clock, within what one can show."""

PhaseName = Literal["idle_before", "prefill", "decode", "inference", "idle_after"]


class MeterFacts(Document):
    """An energy source: what it reads, what that covers, and how far it can be trusted."""

    meter: str
    """The entry point that found it: `rapl`, `battery`, ..."""
    id: str
    """`rapl:package-0`, `battery:BAT0`: unique among the sources of one machine."""
    read_from: str
    """Path, command or address."""
    unit: str
    """The unit in which the source tells it: `µJ`, `mV x mA`."""
    counter: bool
    """True: accumulated energy, which is differenced. False: power, integrated by trapezoid."""
    update_period_s: float = Field(gt=0)
    """How often the source itself has a new value, averaging inside of it included."""
    quantum: float | None = None
    """Smallest step: joules of a counter, watts of a power reading; None where unknown."""
    calibration_share: float = Field(ge=0)
    """Standard uncertainty (k=1) of the scale, as a share."""
    calibration: str
    """Where that share comes from, and who calibrated."""
    grade: Grade
    whole_device: bool
    covers: list[str]
    excludes: list[str]


class Window(Document):
    """Energy between two moments of one steady phase, on the clock of the run (monotonic)."""

    phase: PhaseName
    start_s: Moment
    end_s: Moment
    tokens: int = Field(default=0, ge=0, le=10**15)
    """Tokens (of a graph: inferences) processed within the window; 0 while idle."""
    joules: float | None = None
    uncertainty_j: float | None = None
    """Standard (k=1), without the calibration, which all windows of a source share."""
    samples: int = 0
    longest_gap_s: float | None = None
    reason: str | None = None
    """Why `joules` is None; for a window that is too short, how long it would have to be."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Window:
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s: must be after start_s, got {self.end_s} after {self.start_s}")
        return self

    @property
    def seconds(self) -> float:
        """Length of the window."""
        return self.end_s - self.start_s


class Energy(Document):
    """What one source measured over one energy run."""

    source: MeterFacts
    windows: list[Window]
    idle_before_w: Figure | None = None
    idle_after_w: Figure | None = None
    prefill_w: Figure | None = None
    decode_w: Figure | None = None
    inference_w: Figure | None = None
    prefill_j_per_token: Figure | None = None
    """Total energy per prompt token."""
    decode_j_per_token: Figure | None = None
    """Total energy per generated token after the first."""
    net_prefill_j_per_token: Figure | None = None
    net_decode_j_per_token: Figure | None = None
    """The same less idle power with the model loaded."""
    j_per_inference: Figure | None = None
    net_j_per_inference: Figure | None = None
    """For graphs that are not language models."""
    terms: dict[str, float] = {}
    """Standard uncertainties of the total decode (or inference) energy, as shares: `calibration`,
    `quantum`, `alignment`, `sampling`, `repeat`; `baseline` is that of the net energy alone."""
    flags: list[str] = []
    """What a reader must know: throttled, disagreeing readings, a correction that was applied."""
    reason: str | None = None
    """Why there is no figure, where there is none."""
    readings: list[tuple[float, float]] = []
    """(monotonic s, joules since the first reading or watts): all that was read, or of more than
    20,000 evenly chosen ones."""
    readings_seen: int = 0
    """How many there were."""


def best_of(energies: Sequence[Energy], figure: Callable[[Energy], Figure | None]) -> Energy | None:
    """The first source that has this figure (they are stored the best first), else the first."""
    known = (energy for energy in energies if figure(energy) is not None)
    return next(known, energies[0] if energies else None)
