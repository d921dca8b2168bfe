"""Energy runs of a real child under meters whose truth is known, and all that can go wrong."""

from __future__ import annotations

import math
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from make_gguf import write_gguf

from edgegauge.energy import MeterFacts, Window
from edgegauge.errors import InputError
from edgegauge.host.tree import Tree
from edgegauge.measure import blocks, energy_run, worker
from edgegauge.measure.clock_checks import ClockOffsets, clock_findings, clock_offsets
from edgegauge.measure.energy_run import EnergyOptions, EnergyOutcome, measure_energy
from edgegauge.measure.machine import Clock, Machine
from edgegauge.measure.meters import Flag, Found, Meter, MeterLost, Reading, Refusal
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.result import Workload

SPEED = 200
CLOCK = Clock(speed=SPEED)
MACHINE = Machine(clock=CLOCK)
SHAPE = Workload(prompt_tokens=24, generated_tokens=9, depth=5, threads=1)
ORDER = ["idle_before", "prefill", "decode", "decode", "prefill", "idle_after"]

QUICK = EnergyOptions(seconds=10, idle_s=60)
"""Too short for a figure, long enough for what can go wrong."""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


class FakeMeter:
    """Power is 5 + 2 sin(t / 10) watts; a counter of its joules, or the watts themselves."""

    def __init__(
        self, name: str = "fake:0", *, counter: bool = True, quantum: float = 0.001,
        poll_s: float = 0.5,
    ) -> None:  # fmt: skip
        self.facts = MeterFacts(
            meter="fake", id=name, read_from="a formula", unit="J" if counter else "W",
            counter=counter, update_period_s=0.5, quantum=quantum, calibration_share=0.01,
            calibration="known", grade="B", whole_device=True, covers=["all"], excludes=[],
        )  # fmt: skip
        self.poll_s = poll_s
        self.closed = False
        self.lost = False
        self._start_s: float | None = None

    def read(self) -> Reading:
        now_s = CLOCK.now_s()
        if self._start_s is None:
            self._start_s = now_s
        if self.lost:
            raise MeterLost("the charger was connected")
        if not self.facts.counter:
            return Reading(now_s, 5 + 2 * math.sin(now_s / 10))
        joules = true_joules(self._start_s, now_s)
        quantum = self.facts.quantum or 0.0
        return Reading(now_s, math.floor(joules / quantum) * quantum)

    def flags(self) -> list[Flag]:
        return []

    def close(self) -> None:
        self.closed = True


def true_joules(start_s: float, end_s: float) -> float:
    return 5 * (end_s - start_s) - 20 * (math.cos(end_s / 10) - math.cos(start_s / 10))


def run(
    gguf: Path,
    *meters: Meter,
    options: EnergyOptions | None = None,
    timeout_s: float | None = 60,
    progress: Callable[[float, str], None] = lambda done, note: None,
) -> EnergyOutcome:
    job = worker.job(LlamaCppRuntime(), gguf, SHAPE.model_dump())
    outcome = measure_energy(
        job, Found(list(meters), []), options or EnergyOptions(), MACHINE,
        timeout_s=timeout_s, progress=progress,
    )  # fmt: skip
    assert not psutil.Process().children()
    return outcome


def phases(windows: list[Window]) -> list[str]:
    return [window.phase for window in windows]


@pytest.fixture(scope="module")
def both(gguf: Path) -> EnergyOutcome:
    """A run under a counter and a power meter, with a recording to come."""
    told: list[tuple[float, str]] = []
    outcome = run(
        gguf, FakeMeter(), FakeMeter("fake:1", counter=False),
        options=EnergyOptions(meters=("file", "fake")),
        progress=lambda done, note: told.append((done, note)),
    )  # fmt: skip
    outcome.facts["told"] = told
    return outcome


def test_windows_are_in_order_and_long_enough(both: EnergyOutcome) -> None:
    assert not both.failures and both.reason is None
    for energy in both.energies:
        assert phases(energy.windows) == ORDER
        edges = [t for window in energy.windows for t in (window.start_s, window.end_s)]
        assert edges == sorted(edges)
        for phase in ("prefill", "decode"):
            found = [w for w in energy.windows if w.phase == phase]
            assert math.fsum(w.seconds for w in found) >= 60
            assert all(w.tokens > 0 for w in found)
        idle = [w for w in energy.windows if w.phase.startswith("idle")]
        assert all(w.seconds >= 60 and w.tokens == 0 for w in idle)


def test_joules_of_a_counter_are_those_of_the_windows(both: EnergyOutcome) -> None:
    energy = both.energies[0]
    for window in energy.windows:
        assert window.joules is not None and window.uncertainty_j is not None
        truth = true_joules(window.start_s, window.end_s)
        # The processor is shared: an edge may be read late, by what the window itself admits.
        assert abs(window.joules - truth) < 4 * window.uncertainty_j + 0.02 * truth
    assert energy.decode_j_per_token is not None and energy.net_decode_j_per_token is not None
    decode = [w for w in energy.windows if w.phase == "decode"]
    tokens = sum(w.tokens for w in decode)
    joules = math.fsum(true_joules(w.start_s, w.end_s) for w in decode)
    assert energy.decode_j_per_token.value == pytest.approx(joules / tokens, rel=0.05)


def test_prefill_counts_prompts_and_decode_counts_steps(both: EnergyOutcome) -> None:
    for window in both.energies[0].windows:
        if window.phase == "prefill":
            assert window.tokens % SHAPE.prompt_tokens == 0


def test_what_is_left_is_told_before_each_block(both: EnergyOutcome) -> None:
    shares, notes = zip(*both.facts["told"], strict=True)
    assert list(shares) == sorted(shares) and shares[0] == 0 and shares[-1] < 1
    assert notes[0] == "energy: idle before for 60 s, 4.2 min left in all"
    # Idle after is left, 62 s of 252; a loaded machine lengthens the others a little.
    assert shares[-1] == pytest.approx(190 / 252, abs=0.05)
    assert [note.split(" for ")[0] for note in notes] == [
        f"energy: {phase.replace('_', ' ')}" for phase in ORDER
    ]


def test_a_recording_gets_load_edges_at_both_ends(both: EnergyOutcome) -> None:
    energy = both.energies[-1]
    assert (energy.source.meter, energy.source.id) == ("recording", "recording")
    assert energy.reason and "edgegauge energy RESULT FILE" in energy.reason
    assert all(w.joules is None and w.reason for w in energy.windows)
    edges = both.facts["edges"]
    assert len(edges) == 4
    assert all(end - start >= 2 for start, end in edges)
    first, last = energy.windows[0], energy.windows[-1]
    assert edges[1][1] + 2 <= first.start_s and last.end_s + 2 <= edges[2][0]
    assert abs(both.facts["wall_clock_step_s"]) < 0.1
    offset = both.facts["monotonic_to_unix_s"]
    assert offset == pytest.approx(clock_offsets().unix_s, abs=0.1)


def test_a_recording_alone_needs_no_meter(gguf: Path) -> None:
    options = EnergyOptions(meters=("file",), seconds=10, idle_s=5)
    outcome = run(gguf, options=options)
    (energy,) = outcome.energies
    assert phases(energy.windows) == ORDER
    assert [w.seconds >= 5 for w in energy.windows] == [True] * 6
    assert outcome.reason == "recording: " + (energy.reason or "")
    assert options.live == ()


def test_without_a_meter_nothing_is_run(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_run, "MODULE", "no.such.module")
    refused = [Refusal("rapl", "no such folder", None)]
    job = worker.job(LlamaCppRuntime(), gguf, SHAPE.model_dump())
    outcome = measure_energy(job, Found([], refused), EnergyOptions(), MACHINE)
    assert outcome.reason == "rapl: no such folder"
    assert not outcome.energies and not outcome.failures


def test_a_coarse_source_makes_the_phases_longer(gguf: Path) -> None:
    # About 5 W and 100 quanta of 6 J: 120 s, as the first minute tells within a quantum or two.
    (energy,) = run(gguf, FakeMeter(quantum=6.0)).energies
    decode = math.fsum(w.seconds for w in energy.windows if w.phase == "decode")
    assert 90 < decode < 240
    assert energy.decode_w is not None


def test_a_source_that_would_take_too_long_says_how_long(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy_run, "MOST_S", 60.0)
    outcome = run(gguf, FakeMeter(quantum=36.0))
    (energy,) = outcome.energies
    assert math.fsum(w.seconds for w in energy.windows if w.phase == "decode") < 100
    assert energy.decode_j_per_token is None
    assert "too short" in (energy.reason or "") and "needs" in (energy.reason or "")
    assert outcome.reason is not None and outcome.reason.startswith("fake:0: ")


def losing(meter: FakeMeter, phase: str) -> Callable[[float, str], None]:
    """A progress that takes the meter away soon after this phase began."""

    def lose() -> None:
        meter.lost = True

    def progress(done: float, note: str) -> None:
        if f"energy: {phase}" in note:
            threading.Timer(0.02, lose).start()

    return progress


def test_a_lost_meter_ends_the_run_when_it_was_the_last(gguf: Path) -> None:
    meter = FakeMeter()
    outcome = run(gguf, meter, options=QUICK, progress=losing(meter, "prefill"))
    (energy,) = outcome.energies
    assert phases(energy.windows) == ORDER[:2]
    assert energy.windows[0].joules is not None and energy.windows[1].joules is None
    assert "the charger was connected" in (outcome.reason or "")
    assert not outcome.failures and meter.closed


def test_a_meter_that_was_lost_before_the_first_window_is_the_reason(gguf: Path) -> None:
    meter = FakeMeter()
    meter.lost = True
    outcome = run(gguf, meter, options=QUICK)
    assert not outcome.energies and not outcome.failures
    assert outcome.reason == "fake:0: the meter was lost: the charger was connected"


def test_a_lost_meter_does_not_end_the_run_of_another(gguf: Path) -> None:
    meter = FakeMeter("fake:1")
    outcome = run(gguf, FakeMeter(), meter, progress=losing(meter, "decode"))
    good, lost = outcome.energies
    assert phases(good.windows) == phases(lost.windows) == ORDER
    assert good.decode_j_per_token is not None and outcome.reason is None
    assert lost.decode_j_per_token is None and "charger" in (lost.reason or "")


def when(phase: str, act: Callable[[psutil.Process], None]) -> Callable[[float, str], None]:
    """A progress that acts on the child soon after this phase began."""

    def progress(done: float, note: str) -> None:
        if f"energy: {phase}" in note:
            (process,) = psutil.Process().children()
            threading.Timer(0.02, act, [process]).start()

    return progress


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_child_leaves_the_windows_before(gguf: Path) -> None:
    outcome = run(gguf, FakeMeter(), options=QUICK, progress=when("decode", lambda p: p.kill()))
    (failure,) = outcome.failures
    assert (failure.kind, failure.phase) == ("killed", "decode")
    assert "SIGKILL" in failure.reason
    (energy,) = outcome.energies
    assert phases(energy.windows) == ORDER[:2]
    assert energy.idle_before_w is not None and energy.decode_j_per_token is None
    assert outcome.reason is not None and "the energy run failed" in outcome.reason


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_hangs_is_stopped(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "GRACE_S", 1.0)
    stop = when("prefill", lambda p: os.kill(p.pid, signal.SIGSTOP))
    outcome = run(gguf, FakeMeter(), options=QUICK, progress=stop)
    (failure,) = outcome.failures
    assert (failure.kind, failure.phase) == ("timeout", "prefill")


def test_a_child_that_never_loads_is_stopped(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(energy_run, "MODULE", "sleeper")
    outcome = run(gguf, FakeMeter(), timeout_s=1)
    (failure,) = outcome.failures
    assert (failure.kind, failure.phase) == ("timeout", "load")
    assert outcome.reason and not outcome.energies


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        '{"ready": 5}',
        '{"ready": {"round_s": "long"}}',
        '{"ready": {"round_s": 0.1}}\\n{"rounds": []}',
        "hello",
    ],
)
def test_a_child_that_talks_nonsense_is_a_failure(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    body = f"print('''{said}''', flush=True); input(); input()\n"
    (tmp_path / "liar.py").write_text(textwrap.dedent(body))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(energy_run, "MODULE", "liar")
    (failure,) = run(gguf, FakeMeter()).failures
    assert failure.kind == "failed" and ("no sense" in failure.reason or "hello" in failure.reason)


def test_a_bad_artifact_is_an_input_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"bad\.gguf"):
        run(bad, FakeMeter())


def test_a_step_of_the_wall_clock_is_told_to_a_recording_alone(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = iter([ClockOffsets(1000.0, 0.0), ClockOffsets(1000.5, 0.0)])
    monkeypatch.setattr(energy_run, "clock_offsets", lambda: next(offsets))
    options = EnergyOptions(meters=("file", "fake"), seconds=10, idle_s=60)
    outcome = run(gguf, FakeMeter(), options=options)
    live, recorded = outcome.energies
    assert live.idle_before_w is not None and "clock" not in str(live.flags)
    assert recorded.flags == [outcome.flags[0].text]
    assert "stepped by +0.5 s" in recorded.flags[0]
    assert outcome.facts["wall_clock_step_s"] == 0.5


def test_sleep_withdraws_the_figures(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = iter([ClockOffsets(0.0, 10.0), ClockOffsets(30.0, 40.0)])
    monkeypatch.setattr(energy_run, "clock_offsets", lambda: next(offsets))
    outcome = run(gguf, FakeMeter(), options=QUICK)
    assert [flag.spoils for flag in outcome.flags] == [True]
    (energy,) = outcome.energies
    assert energy.idle_before_w is None
    assert "slept for 30.0 s" in (outcome.reason or "")


def test_clocks_that_agree_are_not_worth_a_word() -> None:
    before = clock_offsets()
    assert list(clock_findings(before, clock_offsets())) == []
    assert before.unix_s > 1.7e9 - 1e8
    unknown = ClockOffsets(5.0, None)
    assert list(clock_findings(unknown, ClockOffsets(5.05, None))) == []
    (flag,) = clock_findings(unknown, ClockOffsets(4.0, None))
    assert "stepped by -1.0 s" in flag.text and not flag.spoils


def test_a_graph_has_one_phase_and_counts_inferences(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    make_graphs = pytest.importorskip("make_graphs")
    path = make_graphs.onnx_classifier(tmp_path / "small.onnx")
    workload = {"threads": 1, "shapes": {}, "seed": 0, "inferences": 1}
    job = {"path": str(path), "format": "onnx", "text": None, "workload": workload}
    options = EnergyOptions(meters=("file",), seconds=10, idle_s=5)
    outcome = measure_energy(job, Found([], []), options, MACHINE, phases=["inference"])
    assert not outcome.failures
    (energy,) = outcome.energies
    found = phases(energy.windows)
    assert found == ["idle_before", "inference", "inference", "idle_after"]
    assert all(w.tokens > 0 for w in energy.windows if w.phase == "inference")
    assert len(outcome.facts["edges"]) == 4


class Killing(Tree):
    """A kernel that counts one more kill for memory at every look, and tells nothing else."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self._kills = 7

    def text(self, path: str) -> str | None:
        self._kills += path == "proc/vmstat"
        return f"oom_kill {self._kills}" if path == "proc/vmstat" else None


def test_a_kill_that_the_kernel_counted_is_out_of_memory(gguf: Path) -> None:
    job = worker.job(LlamaCppRuntime(), gguf, SHAPE.model_dump())
    outcome = measure_energy(
        job, Found([FakeMeter()], []), QUICK, Machine(Killing(), CLOCK), timeout_s=60,
        progress=when("decode", lambda p: p.kill()),
    )  # fmt: skip
    (failure,) = outcome.failures
    assert (failure.kind, failure.phase) == ("out of memory", "decode")
    assert "the system ran out of memory" in failure.reason and "SIGKILL" in failure.reason
