"""Sustained runs: when a rate is steady, what was lost until then, and a real child until it is."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from make_gguf import write_gguf

from edgegauge.errors import MeasurementError
from edgegauge.measure import energy_run, sustained, worker
from edgegauge.measure.energy_run import EnergyOptions
from edgegauge.measure.finding import State
from edgegauge.measure.machine import Clock, Machine
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.measure.steadiness import Rate, is_steady, slope_percent_per_min, summary
from edgegauge.measure.sustained import (
    SustainedOptions,
    SustainedOutcome,
    measure_sustained,
    throttled,
    throttled_at_s,
)
from edgegauge.result import Sustained, Workload

OPTIONS = SustainedOptions()
MACHINE = Machine(clock=Clock(speed=200))
SHAPE = Workload(prompt_tokens=24, generated_tokens=9, depth=5, threads=1)


def played(rate_at: Callable[[float], float], options: SustainedOptions = OPTIONS) -> list[Rate]:
    """What a device would show, in rounds of 64 tokens, until it is steady or time is up."""
    rates: list[Rate] = []
    noise = random.Random(1)
    now_s = 0.0
    while now_s < options.most_s and not is_steady(rates, options):
        rate = rate_at(now_s) * noise.gauss(1, 0.003)
        rates.append(Rate(now_s + 32 / rate, rate))
        now_s += 64 / rate
    return rates


def found(rate_at: Callable[[float], float]) -> Sustained:
    return summary(played(rate_at), OPTIONS, "played")


def test_a_throttling_device_is_measured_to_its_plateau() -> None:
    # iPhone 16 Pro: 40 to 22.6 tok/s (arXiv:2603.23640), here with a time constant of 100 s.
    result = found(lambda t: 22.6 + 17.4 * math.exp(-max(0.0, t - 30) / 100))
    assert result.burst_tok_per_s.value == pytest.approx(40, rel=0.01)
    assert result.plateau_tok_per_s is not None and result.drop_percent is not None
    assert result.plateau_tok_per_s.value == pytest.approx(22.6, rel=0.01)
    assert result.drop_percent.value == pytest.approx(43.5, abs=1)
    assert result.drop_percent.least <= result.drop_percent.value <= result.drop_percent.most
    # Within 5 % of the plateau after 30 + 100 ln(17.4 / 1.13) s.
    assert result.time_to_plateau_s == pytest.approx(303, abs=30)


def test_a_steady_device_was_there_from_the_start() -> None:
    result = found(lambda t: 20.0)
    assert result.plateau_tok_per_s is not None and result.drop_percent is not None
    assert result.plateau_tok_per_s.value == pytest.approx(20, rel=0.01)
    assert abs(result.drop_percent.value) < 1
    assert result.time_to_plateau_s == 0


def test_a_steady_device_is_measured_for_ten_minutes_all_the_same() -> None:
    assert 600 <= played(lambda t: 20.0)[-1].t_s < 620


def test_a_device_that_never_settles_has_no_plateau() -> None:
    rates = played(lambda t: 40 * math.exp(-t / 2000))  # 3 % per minute
    assert rates[-1].t_s > 3590
    result = summary(rates, OPTIONS, "played")
    assert result.burst_tok_per_s.value == pytest.approx(40, rel=0.02)
    assert result.plateau_tok_per_s is result.drop_percent is result.time_to_plateau_s is None


def test_rounds_longer_than_the_window_still_need_six() -> None:
    rates = [Rate(200.0 * i, 2.0) for i in range(5)]
    assert slope_percent_per_min(rates) is None and not is_steady(rates, OPTIONS)
    assert is_steady([*rates, Rate(1000.0, 2.0)], OPTIONS)


def test_the_slope_is_in_percent_of_the_rate_per_minute() -> None:
    rates = [Rate(30.0 * i, 100 - i) for i in range(11)]
    assert slope_percent_per_min(rates) == pytest.approx(-2 / 95 * 100)


def test_the_burst_ends_with_the_first_throttling() -> None:
    rates = played(lambda t: 40.0 if t < 5 else 20.0)
    early = summary(rates, OPTIONS, "played", throttled_at_s=5.0)
    assert early.burst_tok_per_s.value == pytest.approx(40, rel=0.01)
    assert summary(rates, OPTIONS, "played").burst_tok_per_s.value == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], (None, None)),
        ([{"t_s": 0.0, "mhz": [1, 2]}], (None, None)),
        ([{"t_s": 0.0, "throttle_count": 7}, {"t_s": 1.0, "throttle_count": 7}], (False, None)),
        ([{"t_s": 0.0, "throttle_count": 7}, {"t_s": 1.0, "throttle_count": 8}], (True, 1.0)),
        ([{"t_s": 0.0, "cooling": 0}, {"t_s": 1.0}, {"t_s": 2.0, "cooling": 3}], (True, 2.0)),
        # Bits of "since boot" that were set before tell nothing; new ones and those of now do.
        ([{"t_s": t, "pi_throttled": 0x20000} for t in (0.0, 1.0)], (False, None)),
        (
            [{"t_s": 0.0, "pi_throttled": 0x20000}, {"t_s": 1.0, "pi_throttled": 0x60000}],
            (True, 1.0),
        ),
        ([{"t_s": 0.0, "pi_throttled": 0x4}], (True, 0.0)),
    ],
)
def test_throttling_is_read_from_the_states(
    states: list[State], expected: tuple[bool | None, float | None]
) -> None:
    assert (throttled(states), throttled_at_s(states)) == expected


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def run(
    gguf: Path, options: SustainedOptions, progress: Callable[[float, str], None]
) -> SustainedOutcome:
    job = worker.job(LlamaCppRuntime(), gguf, SHAPE.model_dump())
    outcome = measure_sustained(
        job, MACHINE, options=options, source="llama.cpp", progress=progress, timeout_s=60
    )
    assert not psutil.Process().children()
    return outcome


EASY = SustainedOptions(least_s=60, window_s=30, slope_percent_per_min=1e9, most_s=300)


def test_a_real_child_goes_on_until_it_is_steady(gguf: Path) -> None:
    told: list[tuple[float, str]] = []
    outcome = run(gguf, EASY, lambda done, note: told.append((done, note)))
    assert not outcome.failures and not outcome.energies
    starts = [timed.start_s or 0.0 for timed in outcome.rounds]
    assert starts == sorted(starts) and 55 < starts[-1] - starts[0] < 300
    assert all(len(timed.inter_token_s) == 8 for timed in outcome.rounds)
    sustained = outcome.sustained
    assert sustained is not None and sustained.plateau_tok_per_s is not None
    rates = [8 / math.fsum(timed.inter_token_s) for timed in outcome.rounds]
    assert min(rates) <= sustained.plateau_tok_per_s.value <= max(rates)
    assert sustained.plateau_tok_per_s.source == "llama.cpp"
    assert outcome.states[0]["t_s"] < 1 < outcome.states[-1]["t_s"]
    assert outcome.overhead["wall_s"] > 0
    assert told[0] == (0.0, "sustained: the first rounds")
    assert "tok/s" in told[-1][1] and "at least 60 s" in told[-1][1]


def test_with_a_meter_the_blocks_follow_on_the_warm_machine(gguf: Path) -> None:
    job = worker.job(LlamaCppRuntime(), gguf, SHAPE.model_dump())
    energy = EnergyOptions(meters=("file",), seconds=10, idle_s=5)
    outcome = measure_sustained(job, MACHINE, options=EASY, energy=energy, timeout_s=60)
    windows = outcome.energies[0].windows
    assert [w.phase for w in windows] == [
        "idle_before", "prefill", "decode", "decode", "prefill", "idle_after",
    ]  # fmt: skip
    starts = [timed.start_s or 0.0 for timed in outcome.rounds]
    assert windows[0].end_s < starts[0] and starts[-1] < windows[1].start_s
    assert outcome.sustained is not None and outcome.sustained.plateau_tok_per_s is not None


def test_a_rate_that_does_not_settle_ends_at_the_limit(gguf: Path) -> None:
    strict = SustainedOptions(least_s=10, window_s=30, slope_percent_per_min=0.0, most_s=40)
    sustained = run(gguf, strict, lambda done, note: None).sustained
    assert sustained is not None
    assert sustained.plateau_tok_per_s is None and sustained.burst_tok_per_s.value > 0


def killing_at(call: int) -> Callable[[float, str], None]:
    """A progress that kills the child when it is told of the rounds for the n-th time."""
    calls: Iterator[int] = iter(range(1, 10**6))

    def progress(done: float, note: str) -> None:
        if next(calls) == call:
            (process,) = psutil.Process().children()
            process.kill()

    return progress


def test_a_killed_child_leaves_its_rounds_and_no_plateau(gguf: Path) -> None:
    outcome = run(gguf, EASY, killing_at(3))
    (failure,) = outcome.failures
    assert (failure.kind, failure.phase) == ("killed", "sustained")
    assert outcome.rounds and outcome.states
    assert outcome.sustained is not None and outcome.sustained.plateau_tok_per_s is None


def test_a_child_that_dies_at_once_leaves_nothing(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying.py").write_text("raise MemoryError\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(energy_run, "MODULE", "dying")
    outcome = run(gguf, EASY, lambda done, note: None)
    assert outcome.sustained is None and not outcome.rounds
    assert [failure.kind for failure in outcome.failures] == ["out of memory"]


def test_rounds_without_sense_are_a_failure(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "liar.py").write_text(
        'print(\'{"ready": {"round_s": 0.1}}\', flush=True)\n'
        "input(); input()\n"
        'print(\'{"rounds": [{"prefill_s": "fast"}]}\', flush=True)\n'
        "input()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(energy_run, "MODULE", "liar")
    outcome = run(gguf, EASY, lambda done, note: None)
    (failure,) = outcome.failures
    assert "rounds make no sense" in failure.reason


def test_of_very_many_rounds_some_are_kept_and_all_decide(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sustained, "MOST_GAPS", 24)
    outcome = run(gguf, EASY, lambda done, note: None)
    assert sum(len(timed.inter_token_s) for timed in outcome.rounds) <= 24
    assert outcome.rounds_seen >= 6 and 2 <= len(outcome.rounds) <= 3
    starts = [timed.start_s or 0.0 for timed in outcome.rounds]
    assert starts == sorted(starts) and starts[-1] - starts[0] > 10, "from all of the run"


def test_tokens_that_took_no_time_are_no_rounds() -> None:
    odd = {"prefill_s": 0.1, "ttft_s": 0.1, "inter_token_s": [0.0, 0.0]}
    with pytest.raises(MeasurementError, match="took no time"):
        sustained.checked_rounds([odd])
