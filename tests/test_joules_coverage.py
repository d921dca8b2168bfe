"""Known joules are recovered within the uncertainty the result states, for every kind of meter.

Two hundred simulated runs each: idle, P D D P, idle, with steps, ripple, drift and random phases.
Once with a perfect scale and a stated calibration of 0, so that the other terms must cover alone;
once with the scale off by a random gain drawn from the stated calibration.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from statistics import median

import numpy as np
import pytest
from simulated_source import Kind, Plan, averages, counter, samples

from edgegauge.energy import Energy, Grade, MeterFacts, Window
from edgegauge.figure import Figure
from edgegauge.measure.joules import energy_of, required_s

RUNS = 200
LEAST_COVERED = 190
WH = 3600.0


def facts(
    name: str, update_s: float, quantum: float | None, *, is_counter: bool, grade: Grade = "C"
) -> MeterFacts:
    return MeterFacts(
        meter=name,
        id=f"{name}:0",
        read_from="simulated",
        unit="J" if is_counter else "W",
        counter=is_counter,
        update_period_s=update_s,
        quantum=quantum,
        calibration_share=0.03,
        calibration="drawn by the test",
        grade=grade,
        whole_device=True,
        covers=["all"],
        excludes=[],
    )


def laptop(phase_s: float = 60.0, idle_s: float = 60.0, **other: float) -> Plan:
    return Plan(6.0, 19.0, 15.0, idle_s, phase_s, phase_s, **other)


def board(phase_s: float = 60.0, idle_s: float = 60.0, **other: float) -> Plan:
    return Plan(3.0, 9.0, 7.0, idle_s, phase_s, phase_s, **other)


def phone(phase_s: float, idle_s: float, **other: float) -> Plan:
    return Plan(1.5, 6.0, 4.7, idle_s, phase_s, phase_s, **other)


def stepped(name: str, update_s: float, quantum: float, grade: Grade = "C") -> MeterFacts:
    return facts(name, update_s, quantum, is_counter=True, grade=grade)


def power(name: str, update_s: float, quantum: float | None) -> MeterFacts:
    return facts(name, update_s, quantum, is_counter=False)


RAPL = stepped("rapl", 0.001, 61e-6, "B")
PSYS = stepped("psys", 0.001, 1.0, "B")
BATTERY = stepped("battery", 1.0, 36.0)
CHARGE = stepped("charge_now", 1.0, 1e-3 * 11.4 * WH)
PHONE = stepped("termux", 1.0, 1e-3 * 3.85 * WH)
PERCENT = stepped("percent", 1.0, 594.0, "D")
PLUG_WH = stepped("plug_wh", 1.0, 0.01 * WH)

KINDS: dict[str, tuple[Kind, float]] = {
    # kind of meter, and the largest usual half-width of the decode energy, as a share
    "rapl": (Kind(RAPL, laptop(), counter, 1.0), 0.003),
    "psys, 1 J": (Kind(PSYS, laptop(), counter, 1.0), 0.005),
    "battery, 10 mWh each second": (
        Kind(BATTERY, laptop(265, 120), counter, 0.5, (0.9, 1.1)),
        0.015,
    ),
    "battery, each 1 to 15 s": (
        Kind(BATTERY, laptop(1500, 240, lead_s=16), counter, 3.0, (1.0, 15.0)),
        0.01,
    ),
    "charge_now x V": (Kind(CHARGE, laptop(290, 120), counter, 1.0, (1.0, 2.0)), 0.02),
    "phone's charge counter": (
        Kind(PHONE, phone(1000, 240, lead_s=11), counter, 2.0, (1.0, 10.0)),
        0.01,
    ),
    "battery percent": (
        Kind(PERCENT, phone(1300, 1200, lead_s=5), counter, 8.0, (1.0, 4.0)),
        0.025,
    ),
    "plug, 0.01 Wh": (Kind(PLUG_WH, board(560, 120), counter, 1.0, (0.9, 1.1)), 0.01),
    "INA, momentary": (Kind(power("ina", 0.1, 0.025), board(), samples, 0.1, noise=0.01), 0.02),
    "INA, averaging": (Kind(power("ina", 0.2, 0.025), board(), averages, 0.2, noise=0.005), 0.01),
    "Jetson rails": (Kind(power("jetson", 0.2, 0.04), board(), samples, 0.2, noise=0.02), 0.025),
    "Pi 5 PMIC": (Kind(power("pmic", 0.5, None), board(), samples, 0.5, noise=0.08), 0.045),
    "powermetrics": (Kind(power("powermetrics", 1.0, 0.001), laptop(115), averages, 1.0), 0.005),
    "plug, 1 Hz": (
        Kind(power("plug", 1.0, 0.1), board(110), samples, 1.0, (0.95, 1.05), noise=0.005),
        0.045,
    ),
    "recorded file, means of 0.25 s": (
        Kind(power("file", 0.25, None), board(), averages, 0.25, noise=0.01),
        0.01,
    ),
}


# A stated tolerance is a rectangular distribution of that standard deviation (GUM 4.3.7). Each
# 200th part of it once: the luck of 200 draws is not what is tested.
GAINS = np.random.default_rng(1).permutation(np.linspace(-math.sqrt(3), math.sqrt(3), RUNS))


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Looking for garbage among a million readings takes a third of the time, and finds none."""
    gc.disable()
    yield
    gc.enable()


def covers(figure: Figure | None, truth: float) -> bool:
    assert figure is not None and figure.low is not None and figure.high is not None
    return figure.low <= truth <= figure.high


def half_width(figure: Figure | None) -> float:
    assert figure is not None and figure.high is not None
    return (figure.high - figure.value) / figure.value


def once(kind: Kind, seed: int, *, gain: bool) -> tuple[dict[str, float], Energy]:
    """The truth in joules per token, and what the meter makes of it."""
    rng = np.random.default_rng(seed)
    load, windows = kind.plan.run(rng)
    share = kind.facts.calibration_share if gain else 0.0
    scale = 1.0 + share * GAINS[seed]
    told = kind.recorded(load, windows, rng, gain=scale)

    def each(phase: str) -> tuple[float, float, int]:
        known: list[Window] = [w for w in windows if w.phase == phase]
        joules = sum(load.joules(w.start_s, w.end_s) for w in known)
        return joules, sum(w.seconds for w in known), sum(w.tokens for w in known)

    idles = [each(phase) for phase in ("idle_before", "idle_after")]
    idle_w = sum(joules / seconds for joules, seconds, _ in idles) / 2
    prefill_j, _, prompt = each("prefill")
    decode_j, decode_s, generated = each("decode")
    truth = {
        "prefill_j_per_token": prefill_j / prompt,
        "decode_j_per_token": decode_j / generated,
        "net_decode_j_per_token": (decode_j - idle_w * decode_s) / generated,
    }
    stated = told.facts.model_copy(update={"calibration_share": share})
    return truth, energy_of(type(told)(stated, told.readings, told.flags), windows)


@pytest.mark.parametrize(
    ("name", "gain"),
    [(name, False) for name in KINDS]
    + [(n, True) for n in ("rapl", "battery percent", "Pi 5 PMIC")],
)
def test_the_stated_uncertainty_covers_the_truth(name: str, gain: bool) -> None:
    kind, widest = KINDS[name]
    covered = dict.fromkeys(
        ("prefill_j_per_token", "decode_j_per_token", "net_decode_j_per_token"), 0
    )
    widths = []
    for seed in range(RUNS):
        truth, energy = once(kind, seed, gain=gain)
        assert energy.reason is None, energy.reason
        for figure in covered:
            covered[figure] += covers(getattr(energy, figure), truth[figure])
        widths.append(half_width(energy.decode_j_per_token))
    assert min(covered.values()) >= LEAST_COVERED, covered
    assert median(widths) < widest + (2 * kind.facts.calibration_share if gain else 0.0)


@pytest.mark.parametrize("name", KINDS)
def test_the_simulated_runs_are_as_long_as_their_source_needs(name: str) -> None:
    kind, _ = KINDS[name]
    assert kind.plan.decode_s >= 0.95 * required_s(kind.facts, kind.plan.decode_w)
