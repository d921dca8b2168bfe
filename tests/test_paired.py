"""A paired comparison: what it asks of its processes, and what it makes of their answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from gates import write_artifact
from make_gguf import write_gguf

from edgegauge.artifact import Artifact, open_artifact, sha256_of
from edgegauge.check import paired, paired_worker
from edgegauge.check.paired import PairedResult, Side, compare_paired, compare_sides, job_of
from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure import page_cache, turn
from edgegauge.measure.child import converse
from edgegauge.measure.worker import job
from edgegauge.result import Workload

TESTS = Path(__file__).parent
WORKLOAD = Workload(prompt_tokens=12, generated_tokens=5, threads=1)
STAND_IN = """
import os, sys
from pathlib import Path
from edgegauge.measure.child import commands, serve

LOG = Path(__file__).with_name("log")

def note(*words):
    with LOG.open("a") as stream:
        print(*words, file=stream)

def work(job, send):
    name = Path(job["path"]).stem
    note("start", name)
    pair = LOG.read_text().count("start " + name)
    send({"ready": {"runtime": "stand-in " + os.environ.get("STAND_IN", "1")}})
    for command in commands():
        do = command["do"]
        note(do, name)
        send({"spent": {"tokens": 4, "seconds": 0.004 * (TOOK), "waited_s": 0.001}})

sys.exit(serve(work))
"""


class Machine:
    """Two artifacts, and processes that say what they took instead of working."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self._code = folder / "stand_in.py"
        self.old = open_artifact(write_artifact(folder / "old.gguf", size=1000))
        self.new = open_artifact(write_artifact(folder / "new.gguf", size=1001))

    def compare(self, took: str, **options: Any) -> PairedResult:
        """`took`: by what factor a token takes longer; an expression of `name`, `do` and `pair`."""
        self._code.write_text(STAND_IN.replace("TOOK", took))
        options = {"slower_at_most": 0.05, "most_pairs": 9, **options}
        return compare_paired(self.new, self.old, WORKLOAD, **options)

    def said(self, *kinds: str) -> list[str]:
        """The lines of these kinds that the processes wrote."""
        return [line for line in self.log.read_text().splitlines() if line.split()[0] in kinds]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(paired, "MODULE", "stand_in")
    return Machine(tmp_path)


def test_sides_take_turns_in_new_processes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    dropped: list[set[str]] = []

    def converse_and_note(module: str, job: dict[str, Any], **options: Any) -> Any:
        started.append(Path(job["path"]).stem)
        return converse(module, job, **options)

    monkeypatch.setattr(paired, "converse", converse_and_note)
    monkeypatch.setattr(
        page_cache, "drop", lambda paths: dropped.append({path.stem for path in paths})
    )
    found = machine.compare("1")
    assert found.pairs == 8  # the interval has no width
    assert started == ["new", "old", "old", "new"] * 4
    assert len(machine.said("start")) == 16
    assert dropped == [{"old", "new"}] * 8
    for do, first, then in (("decode", "onno", "noon"), ("prefill", "noon", "onno")):
        order = "".join(line.split()[1][0] for line in machine.said(do))
        assert order == ((first + then) * 2 + (then + first) * 2) * 4
    assert [line.split()[0] for line in machine.said("decode", "prefill")] == (
        ["decode"] * 16 + ["prefill"] * 16
    ) * 8
    assert not psutil.Process().children()


def test_a_metric_fails_beyond_the_tolerance(machine: Machine) -> None:
    found = machine.compare("(1.04 if do == 'decode' else 1.06) if name == 'new' else 1")
    assert {metric.name: metric.outcome for metric in found.metrics} == {
        "decode": "pass",
        "prefill": "fail",
    }
    assert found.outcome == "fail"


def test_processes_that_differ_by_chance_leave_it_open(machine: Machine) -> None:
    notes: list[tuple[float, str]] = []
    lock = Path(os.environ[turn.VARIABLE])

    def progress(done: float, note: str) -> None:
        notes.append((done, note))
        assert lock.read_text().startswith(f"process {os.getpid()},")  # it has the turn

    found = machine.compare(
        "(0.7 if pair % 2 else 1 / 0.7) if name == 'new' else 1",
        progress=progress,
    )
    assert found.outcome == "cannot tell"
    assert found.pairs == 9
    assert [done for done, _ in notes] == [pair / 9 for pair in range(9)]
    assert notes[7][1] == "pair 8 of at most 9"
    assert notes[8][1] == "pair 9 of at most 9, known to ±42.9 %"
    assert all(metric.minimum_detectable.value > 42.9 for metric in found.metrics)


def test_the_figures_and_the_file_where_the_baseline_has_an_environment_of_its_own(
    machine: Machine, tmp_path: Path
) -> None:
    python = tmp_path / "older" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nSTAND_IN=0.9 exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    found = machine.compare("1.25 if name == 'new' else 1", baseline_python=str(python))
    for side, artifact, runtime in (
        (found.baseline, machine.old, "stand-in 0.9"),
        (found.candidate, machine.new, "stand-in 1"),
    ):
        assert (side.artifact, side.runtime) == (artifact.name, runtime)
        assert side.sha256 == sha256_of(artifact.path)
    for metric in found.metrics:
        assert metric.baseline.value == pytest.approx(1000)
        assert metric.candidate.value == pytest.approx(800)
        ratio = metric.ratio
        assert (ratio.least, ratio.value, ratio.most) == pytest.approx((0.8, 0.8, 0.8))
        assert metric.minimum_detectable.value == pytest.approx(5)
    # 1 ms for each 4 or 5 ms of its own
    assert found.waited.value == pytest.approx(100 * 2 / 11)
    assert PairedResult.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("took", "words"),
    [
        ("os.kill(os.getpid(), 9) if name == 'new' and pair == 2 else 1", "the candidate: .*KILL"),
        ("os._exit(3) if name == 'old' and do == 'prefill' else 1", "the baseline: .*status 3"),
        ("send({'no': 1}) or 1", "the baseline: .*makes no sense"),
    ],
)
def test_a_process_that_ends_is_named_by_its_side(machine: Machine, took: str, words: str) -> None:
    with pytest.raises(MeasurementError, match=words):
        machine.compare(took)
    assert not psutil.Process().children()


@pytest.mark.parametrize("most_pairs", [7, 101])
def test_a_number_of_pairs_that_makes_no_sense_is_refused(
    machine: Machine, most_pairs: int
) -> None:
    with pytest.raises(InputError, match=f"{most_pairs} pairs.* 8 to 100"):
        machine.compare("1", most_pairs=most_pairs)
    assert not machine.log.exists()


def test_a_file_that_is_not_that_of_its_manifest_is_refused(machine: Machine) -> None:
    machine.old.path.write_bytes(b"1" * 1000)
    with pytest.raises(InputError, match="manifest says"):
        machine.compare("1")
    assert not machine.log.exists()


# What a child does.


def test_a_slower_runtime_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("EDGEGAUGE_SLOWER", "1")
    monkeypatch.setattr(paired, "ROUND_S", 0.005)
    monkeypatch.setattr(paired, "QUADS", 2)
    artifact = Artifact(write_gguf(tmp_path / "tiny.gguf"), None)
    real = job_of(artifact, WORKLOAD)
    slowed = {**real, "runtime": "slow_runtime:SlowRuntime"}
    found = compare_sides(
        [Side(artifact, real), Side(artifact, slowed)], slower_at_most=0.1, most_pairs=8
    )
    for name in paired.METRICS:
        metric = found.metric(name, 0.1)
        assert metric.outcome == "fail"
        assert metric.ratio.value < 0.8
    assert found.runtimes[0].startswith("llama.cpp ")
    assert not psutil.Process().children()


def test_a_command_is_whole_rounds_that_last_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stand_in_runtime import PROMPT_TOKEN_S, STEP_S, StandInRuntime

    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    asked = job(StandInRuntime(), tmp_path / "any.gguf", WORKLOAD.model_dump(mode="json"))
    with converse(paired.MODULE, asked) as child:
        assert child.hear(timeout_s=60) == {"ready": {"runtime": "stand-in 1"}}
        for do, tokens, least_s in (("decode", 4, STEP_S), ("prefill", 12, PROMPT_TOKEN_S)):
            spent = child.ask({"do": do, "seconds": 0.02}, timeout_s=60)["spent"]
            assert spent["tokens"] % tokens == 0
            assert spent["seconds"] >= max(0.02, least_s * spent["tokens"])
            # and not a round more than needed
            assert least_s * (spent["tokens"] - tokens) < 0.02


class Clock:
    """A clock, and what two threads waited so far, in ns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.waited = 0
        monkeypatch.setattr(paired_worker, "time", SimpleNamespace(monotonic_ns=lambda: self.now))
        monkeypatch.setattr(paired_worker, "waited_ns", lambda: {"1": self.waited, "2": 7})

    def load(self) -> Any:
        """Work of 10 ms a token: 4 waited, 2 for restoring the context; and 1 s before it all."""
        load = SimpleNamespace(again_ns=0)

        def step() -> int:
            self.now += 10_000_000
            self.waited += 4_000_000
            load.again_ns += 2_000_000
            return 1

        def begin() -> None:
            self.now += 10**9
            self.waited += 10**8
            load.again_ns += 10**8
            load.unit = step

        load.begin = begin
        return load


def test_time_is_without_waiting_and_restoring(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = paired_worker._spent(Clock(monkeypatch).load(), 2, 20_000_000)
    # 8 ms of a token are its own, in 60 % of which nobody waited: rounds of two take 9.6 ms
    assert spent["tokens"] == 6
    assert (spent["seconds"], spent["waited_s"]) == pytest.approx((0.0288, 0.0192))


def test_threads_wait_independently_of_each_other() -> None:
    before, after = {"main": 5, "ended": 7, "other": 0}, {"main": 55, "other": 20, "new": 10}
    assert paired_worker.running(before, after, 100) == pytest.approx(0.5 * 0.8 * 0.9)
    assert paired_worker.running({}, {"both": 90, "wait": 90}, 100) > 0
    assert paired_worker.running({"one": 0}, {"one": 101}, 100) == 0  # two clocks
    assert paired_worker.running({}, {}, 100) == 1


def test_waiting_and_the_clock_are_read_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5, 7, 7])
    clock = Clock(monkeypatch)

    def waited() -> dict[str, int]:
        clock.now += 100
        return {"1": next(readings)}

    monkeypatch.setattr(paired_worker, "waited_ns", waited)
    assert paired_worker._now() == (200, {"1": 7})


def test_what_each_thread_waited_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task, text in {"101": "51235101 7081000 245\n", "102": "9000 500 1\n"}.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text(text)
    (tmp_path / "103").mkdir()  # ended between two looks
    monkeypatch.setattr(paired_worker, "TASKS", str(tmp_path))
    assert paired_worker.waited_ns() == {"101": 7081000, "102": 500}
    monkeypatch.setattr(paired_worker, "TASKS", str(tmp_path / "no Linux"))
    assert paired_worker.waited_ns() == {}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="no such Linux")
def test_another_program_on_this_processor_is_waited_for() -> None:
    spin = "import os; os.sched_setaffinity(0, {CPU}); print(flush=True)\nwhile True: pass"
    before = os.sched_getaffinity(0)
    cpu = min(before)
    command = [sys.executable, "-c", spin.replace("CPU", str(cpu))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            other.stdout.readline()
            os.sched_setaffinity(0, {cpu})
            thread = str(threading.get_native_id())
            waited = paired_worker.waited_ns()[thread]
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                pass
            assert paired_worker.waited_ns()[thread] - waited > 30_000_000
        finally:
            os.sched_setaffinity(0, before)
            other.kill()
