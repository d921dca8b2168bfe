"""Readings of a source whose true power is known, and what they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgegauge.energy import Energy, Grade, MeterFacts, PhaseName, Window
from edgegauge.figure import Figure
from edgegauge.measure.joules import energy_of
from edgegauge.measure.meters import Reading
from edgegauge.measure.recorder import Recorded

Power = Callable[[float], float]


def facts(
    *,
    counter: bool,
    update_s: float = 0.01,
    quantum: float | None = None,
    calibration: float = 0.0,
    grade: Grade = "B",
) -> MeterFacts:
    return MeterFacts(
        meter="fake",
        id="fake:0",
        read_from="a test",
        unit="J",
        counter=counter,
        update_period_s=update_s,
        quantum=quantum,
        calibration_share=calibration,
        calibration="none",
        grade=grade,
        whole_device=True,
        covers=["package", "dram"],
        excludes=[],
    )


def every(period_s: float, end_s: float, start_s: float = 0.0) -> list[float]:
    return [start_s + i * period_s for i in range(int((end_s - start_s) / period_s) + 1)]


def counted(times: Iterable[float], joules: Power) -> list[Reading]:
    return [Reading(t, joules(t)) for t in times]


def window(phase: PhaseName, start_s: float, end_s: float, tokens: int = 100) -> Window:
    count = 0 if phase.startswith("idle") else tokens
    return Window(phase=phase, start_s=start_s, end_s=end_s, tokens=count)


def value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def half(figure: Figure | None) -> float:
    assert figure is not None and figure.high is not None
    return figure.high - figure.value


def steady(
    meter: MeterFacts, readings: list[Reading], end_s: float = 100.0, **other: object
) -> Energy:
    """One decode window from 10 s on."""
    recorded = Recorded(meter, readings, **{"flags": [], **other})  # type: ignore[arg-type]
    return energy_of(recorded, [window("decode", 10.0, end_s)])
