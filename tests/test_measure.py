"""Measuring through real child processes: the figures, and every way a child can fail."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import pytest
from make_gguf import write_gguf

from edgegauge.artifact import Artifact, ArtifactFile, Manifest, Origin, sha256_of
from edgegauge.errors import InputError, MeasurementError, RunTimeout
from edgegauge.host.tree import Tree
from edgegauge.measure import series
from edgegauge.measure.host import default_threads
from edgegauge.measure.manager import check_memory, measure
from edgegauge.model import ModelSpec
from edgegauge.result import Result, Workload
from edgegauge.units import format_bytes

SPEC = ModelSpec(
    id="tiny", family="llama", layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2,
    head_dim=16, vocab=300, tied=True, context=4096, norm_eps=1e-5, rope_theta=10000.0,
)  # fmt: skip
SMALL = Workload(prompt_tokens=24, generated_tokens=9, depth=5, threads=1, runs=2, repetitions=3)

Module = Callable[[str], None]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def result(gguf: Path) -> Result:
    return measure(Artifact(gguf, None), SMALL, timeout_s=120)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Puts a module with this body in the place of the worker."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(series, "MODULE", "stand_in")

    def write(body: str) -> None:
        (tmp_path / "stand_in.py").write_text(textwrap.dedent(body))

    return write


def manifest(path: Path, sha256: str | None = None) -> Manifest:
    size = path.stat().st_size
    file = ArtifactFile(name=path.name, bytes=size, sha256=sha256 or sha256_of(path))
    return Manifest(
        model="tiny", spec=SPEC, recipe="f32", file_format="gguf", files=[file],
        tensor_bytes=4 * SPEC.parameters, effective_bits=32.0,
        origin=Origin(kind="catalog", reference="tiny", synthetic=True), tools={}, created="now",
    )  # fmt: skip


def test_every_round_has_the_asked_shape(result: Result) -> None:
    assert len(result.samples) == SMALL.runs
    for run in result.samples:
        assert len(run.rounds) >= SMALL.repetitions
        assert list(run.phases) == ["import", "load", "prefill", "decode"]
        for timed in run.rounds:
            assert len(timed.inter_token_s) == SMALL.generated_tokens - 1
            assert 0 < timed.prefill_s < timed.ttft_s
            assert min(timed.inter_token_s) > 0


def test_the_summary_follows_from_the_samples(result: Result) -> None:
    rounds = [timed for run in result.samples for timed in run.rounds]
    summary = result.summary
    prefill = median(SMALL.prompt_tokens / r.prefill_s for r in rounds)
    decode = median(8 / math.fsum(r.inter_token_s) for r in rounds)
    assert summary.prefill_tok_per_s.value == pytest.approx(prefill)
    assert summary.decode_tok_per_s.value == pytest.approx(decode)
    assert summary.ttft_s.p50.value == pytest.approx(median(r.ttft_s for r in rounds))
    assert summary.ttft_s.samples == len(rounds)
    assert summary.ttft_s.max is not None
    assert summary.ttft_s.max.value == max(r.ttft_s for r in rounds)
    assert summary.inter_token_s.samples == 8 * len(rounds)
    assert summary.load_s.value == pytest.approx(median(r.load_s for r in result.samples))


def test_figures_say_what_they_are(result: Result) -> None:
    for figure in (result.summary.decode_tok_per_s, result.summary.ttft_s.p50):
        assert figure.kind == "measured"
        assert figure.source.startswith("llama.cpp ") and "llama-cpp-python" in figure.source
        assert figure.low is not None and figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert result.summary.energy_j_per_token is None
    assert "not asked for" in (result.summary.energy_reason or "")


def test_a_bare_file_is_described_by_what_the_runtime_found(result: Result, gguf: Path) -> None:
    facts = result.artifact
    assert facts.sha256 == sha256_of(gguf) and facts.file_bytes == gguf.stat().st_size
    assert facts.parameters == SPEC.parameters
    assert facts.effective_bits == 32.0
    assert facts.recipe is None and not facts.synthetic


def test_a_result_survives_its_file(result: Result) -> None:
    assert Result.model_validate_json(result.model_dump_json()) == result


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_grows_with_the_model_and_peaks_cover_the_phases(result: Result) -> None:
    for run in result.samples:
        phases = run.phases
        assert phases["load"].rss_bytes > phases["import"].rss_bytes
        for phase in phases.values():
            assert phase.anonymous_bytes is not None and phase.file_bytes is not None
            assert phase.anonymous_bytes + phase.file_bytes == phase.rss_bytes
            assert phase.peak_rss_bytes is None or phase.peak_rss_bytes >= phase.rss_bytes
            assert (run.peak_rss_bytes or 0) >= phase.rss_bytes
    peak = result.summary.memory.peak_rss_bytes
    assert peak is not None
    # The child carries no more than Python, NumPy and llama.cpp: not this test's own memory.
    assert peak.value < 120e6


def test_a_manifest_names_the_artifact(gguf: Path) -> None:
    once = SMALL.model_copy(update={"runs": 1})
    facts = measure(Artifact(gguf, manifest(gguf)), once, timeout_s=120).artifact
    assert (facts.model, facts.recipe, facts.synthetic) == ("tiny", "f32", True)


def test_a_file_that_differs_from_its_manifest_is_refused(gguf: Path) -> None:
    with pytest.raises(InputError, match="its manifest says 0000"):
        measure(Artifact(gguf, manifest(gguf, "0" * 64)), SMALL)


def test_a_broken_file_fails_with_the_words_of_the_runtime(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"llama.cpp cannot load .*bad.gguf"):
        measure(Artifact(path, None), SMALL, timeout_s=60)


def alone(pid: int) -> bool:
    """Whether a process is gone, or a zombie nobody waits for in this container."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_hanging_child_and_what_it_started_are_stopped(
    stand_in: Module, gguf: Path, tmp_path: Path
) -> None:
    stand_in(f"""
        import pathlib, subprocess, sys, time
        print('{{"phase": "load"}}', flush=True)
        started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(started.pid))
        time.sleep(600)
    """)
    began = time.monotonic()
    with pytest.raises(RunTimeout, match=r"tiny.gguf, in the phase 'load': stopped after 3 s") as e:
        measure(Artifact(gguf, None), SMALL, timeout_s=3)
    assert e.value.exit_status == 124
    assert time.monotonic() - began < 60
    grandchild = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while not alone(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alone(grandchild)
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ("body", "expected", "hint"),
    [
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL", "memory runs out"),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV", "inside the runtime"),
        ("raise ZeroDivisionError('deep inside')", r"status 1[\s\S]*deep inside", None),
        ("import os; os._exit(7)", "status 7", None),
        ("pass", "starting: the child ended without a result", None),
        ("print('hello there')", "no message: hello there", None),
        ("print('[1, 2]')", r"no message: \[1, 2\]", None),
        ("""print('{"run": {"load_s": "fast"}}')""", "makes no sense", None),
        ("""print('{"something": 1}')""", "starting: the child ended without", None),
        ("""print('{"error": "?"}')""", "no message", None),
    ],
)  # fmt: skip
def test_a_failing_child_is_an_error_with_its_cause(
    stand_in: Module, gguf: Path, body: str, expected: str, hint: str | None
) -> None:
    stand_in(body)
    with pytest.raises(MeasurementError, match=expected) as caught:
        measure(Artifact(gguf, None), SMALL, timeout_s=60)
    assert hint is None or hint in (caught.value.hint or "")
    assert not psutil.Process().children()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "from edgegauge.measure.child import serve\n"
        "def work(job, send):\n"
        "    pathlib.Path(job['pid']).write_text(str(os.getpid()))\n"
        "    time.sleep(600)\n"
        "serve(work)\n"
    )
    program = (
        "from edgegauge.measure import child\n"
        f"with child.start('sleeper', {{'pid': {str(tmp_path / 'pid')!r}}}) as messages:\n"
        "    list(messages)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    assert not alone(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while not alone(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alone(child)


def recorded(tmp_path: Path, total_kb: int, available_kb: int) -> Tree:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        f"MemTotal: {total_kb} kB\nMemAvailable: {available_kb} kB\n"
    )
    return Tree(tmp_path)


def test_a_model_larger_than_the_machine_is_refused(tmp_path: Path, gguf: Path) -> None:
    artifact = Artifact(gguf, manifest(gguf))
    # 16 cells x 2 layers x keys and values x 32 f16 = 4 kB of cache beside the 380 kB of the file.
    with pytest.raises(MeasurementError, match=r"needs .* more than the 300\.0 kB|307") as caught:
        check_memory(artifact, SMALL, recorded(tmp_path, 300, 200))
    assert "edgegauge fit" in (caught.value.hint or "")


def test_a_model_larger_than_what_is_free_is_a_warning(tmp_path: Path, gguf: Path) -> None:
    artifact = Artifact(gguf, manifest(gguf))
    (warning,) = check_memory(artifact, SMALL, recorded(tmp_path, 1000, 100))
    assert "only 102.4 kB are free (MemAvailable of /proc/meminfo)" in warning
    tree = (
        recorded(tmp_path / "roomy", 10**6, 10**6) if (tmp_path / "roomy").mkdir() is None else None
    )
    assert tree is not None and check_memory(artifact, SMALL, tree) == []


def test_the_cache_of_a_long_context_counts(tmp_path: Path, gguf: Path) -> None:
    long = SMALL.model_copy(update={"depth": 100_000})
    with pytest.raises(MeasurementError, match="key/value cache"):
        check_memory(Artifact(gguf, manifest(gguf)), long, recorded(tmp_path, 10_000, 9_000))


def needed(artifact: Artifact, workload: Workload, folder: Path) -> str:
    """The size that a machine with next to no memory is told of."""
    folder.mkdir()
    with pytest.raises(MeasurementError) as caught:
        check_memory(artifact, workload, recorded(folder, 1, 1))
    return str(caught.value).split(" needs ")[1].split(" for ")[0]


def test_the_cache_is_as_large_as_the_format_keeps_it(tmp_path: Path, gguf: Path) -> None:
    # 10,000 tokens x 2 layers x keys and values x 32: 2.56 MB in f16, 5.12 MB in f32.
    long = SMALL.model_copy(update={"depth": 10_000 - 24 - 9, "parallel": 2})
    size = gguf.stat().st_size
    f16 = Artifact(gguf, manifest(gguf))
    f32 = Artifact(gguf, manifest(gguf).model_copy(update={"file_format": "onnx"}))
    told = manifest(gguf).model_copy(update={"file_format": "tflite", "cache_bytes": 9_000_000})
    assert needed(f16, long, tmp_path / "f16") == format_bytes(5_120_000 + size)
    assert needed(f32, long, tmp_path / "f32") == format_bytes(10_240_000 + size)
    assert needed(Artifact(gguf, told), long, tmp_path / "told") == format_bytes(9_000_000 + size)


def test_a_limit_of_the_container_counts_and_not_the_hosts_memory(
    tmp_path: Path, gguf: Path
) -> None:
    tree = recorded(tmp_path, 10**6, 10**6)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("memory\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("100000\n")
    with pytest.raises(MeasurementError, match="more than the 100"):
        check_memory(Artifact(gguf, manifest(gguf)), SMALL, tree)


def test_a_context_longer_than_the_models_is_a_warning(gguf: Path) -> None:
    short = manifest(gguf)
    short = short.model_copy(update={"spec": SPEC.model_copy(update={"context": 32})})
    once = SMALL.model_copy(update={"runs": 1})
    warnings = measure(Artifact(gguf, short), once, timeout_s=120).warnings
    assert any("38 tokens are more than the 32 of tiny's context" in text for text in warnings)


def test_another_runtime_is_driven_by_the_same_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf: Path
) -> None:
    (tmp_path / "recording_runtime.py").write_text(
        textwrap.dedent("""
        class Recording:
            name, formats = "recording", ("gguf",)
            def version(self): return "1.2"
            def prepare(self): pass
            def open(self, path, *, threads, context, sequences=1, all_logits=False):
                self.vocab, self.context, self.calls = 50, context, []
                return self
            def reset(self): self.calls.append("reset")
            def prefill(self, tokens): self.calls.append(f"prefill {len(tokens)}")
            def argmax(self): self.calls.append("argmax"); return 3
            def step(self, token): self.calls.append(f"step {token}")
            def facts(self): return {"calls": self.calls, "context": self.context}
            def close(self): pass
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from recording_runtime import Recording  # type: ignore[import-not-found]

    shape = SMALL.model_copy(update={"generated_tokens": 3, "runs": 1})
    found = measure(Artifact(gguf, None), shape, runtime=Recording(), timeout_s=60)
    facts = found.samples[0].runtime_facts
    assert facts["context"] == 5 + 24 + 3
    a_round = ["reset", "prefill 5", "prefill 24", "argmax"] + ["step 3", "argmax"] * 2
    assert facts["calls"] == a_round * (1 + len(found.samples[0].rounds))
    # Rounds of microseconds are repeated, but not without end.
    assert len(found.samples[0].rounds) == 50
    assert found.summary.decode_tok_per_s.source == "recording 1.2"
    assert found.artifact.parameters is None


def test_progress_is_told_between_runs(gguf: Path) -> None:
    told: list[tuple[float, str]] = []
    shape = SMALL.model_copy(update={"repetitions": 1})
    measure(Artifact(gguf, None), shape, progress=lambda d, note: told.append((d, note)))
    assert told == [(0.0, "hashing the artifact"), (0.0, "run 1 of 2"), (0.5, "run 2 of 2")]


def test_default_threads_are_the_usable_cores() -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1024
    assert 1 <= default_threads() <= allowed
