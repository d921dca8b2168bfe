"""Runs that are killed, crash, hang or find no memory: what the result says, and what goes on."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from make_gguf import write_gguf

from edgegauge.artifact import Artifact
from edgegauge.errors import InputError, MeasurementError, RunTimeout
from edgegauge.host.tree import Tree
from edgegauge.measure.manager import measure, measure_grid
from edgegauge.measure.results import error_of
from edgegauge.measure.series import attempt
from edgegauge.result import FailedResult, Result, Workload, result_from

SMALL = Workload(prompt_tokens=24, generated_tokens=9, threads=1, runs=2, repetitions=1)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """llama.cpp whose session does something in its first step; `which` counts the processes."""

    def make(body: str) -> Any:
        (tmp_path / "unlucky.py").write_text(
            textwrap.dedent(f"""
            import os, pathlib, resource, time
            from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime, LlamaCppSession

            class Unlucky(LlamaCppRuntime):
                def open(self, path, **asked):
                    counter = pathlib.Path({str(tmp_path / "count")!r})
                    which = len(counter.read_text()) if counter.exists() else 0
                    counter.write_text("x" * (which + 1))
                    session = super().open(path, **asked)
                    step = session.step
                    def stumble(token):
                        {body}
                        step(token)
                    session.step = stumble
                    return session
            """)
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.delitem(sys.modules, "unlucky", raising=False)
        return __import__("unlucky").Unlucky()

    return make


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ("which == 1 and os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
        ("which == 1 and os.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
        ("which == 1 and time.sleep(600)", "timeout", "stopped after 6 s"),
        ("if which == 1: raise MemoryError", "out of memory", "MemoryError"),
        ("if which == 1: raise OSError(12, os.strerror(12))", "out of memory", "Cannot allocate"),
    ],
)
def test_a_run_that_ends_badly_is_told_beside_the_others(
    runtime: Callable[[str], Any], gguf: Path, body: str, kind: str, reason: str
) -> None:
    found = measure(Artifact(gguf, None), SMALL, runtime=runtime(body), timeout_s=6)
    (failure,) = found.failures
    assert (failure.run, failure.phase, failure.kind) == (1, "decode", kind)
    assert reason in failure.reason
    assert len(found.samples) == 1
    assert not found.trustworthy
    assert any(text.startswith("run 2 of") and reason in text for text in found.warnings)
    assert found.summary.decode_tok_per_s is not None
    assert result_from(found.model_dump(mode="json"), "here") == found
    assert not psutil.Process().children()


def test_a_configuration_that_always_fails_leaves_the_others_alone(
    runtime: Callable[[str], Any], gguf: Path
) -> None:
    loads = [SMALL.model_copy(update={"runs": 2, "depth": depth}) for depth in (0, 3)]
    # The turns are 0 1 1 0.
    unlucky = runtime("which in (1, 2) and os.kill(os.getpid(), 9)")
    good, bad = measure_grid(Artifact(gguf, None), loads, runtime=unlucky, timeout_s=60)
    assert isinstance(good, Result) and len(good.samples) == 2 and good.failures == []
    assert isinstance(bad, FailedResult) and bad.workload == loads[1]
    assert [(f.run, f.kind) for f in bad.failures] == [(0, "killed"), (1, "killed")]
    assert result_from(bad.model_dump(mode="json"), "here") == bad
    error = error_of(bad)
    assert not isinstance(error, RunTimeout)
    assert "tiny.gguf, in the phase 'decode': " in str(error) and "smaller" in (error.hint or "")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts allocations on Linux")
def test_llama_cpp_without_memory_is_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf: Path
) -> None:
    (tmp_path / "poor.py").write_text(
        textwrap.dedent("""
        import resource
        from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime

        class Poor(LlamaCppRuntime):
            def prepare(self):
                super().prepare()
                import numpy  # whose own buffers are not what is limited
                resource.setrlimit(resource.RLIMIT_DATA, (300 * 2**20, 300 * 2**20))
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from poor import Poor  # type: ignore[import-not-found]

    # 2 layers x keys and values x 32 f16 = 256 bytes a token: 512 MB.
    long = SMALL.model_copy(update={"generated_tokens": 1_000_000, "depth": 1_000_000})
    (found,) = measure_grid(Artifact(gguf, None), [long], runtime=Poor(), timeout_s=60)
    assert isinstance(found, FailedResult)
    assert {(f.phase, f.kind) for f in found.failures} == {("load", "out of memory")}
    assert "llama.cpp cannot make a context" in found.failures[0].reason
    with pytest.raises(MeasurementError, match="out of memory") as caught:
        raise error_of(found)
    assert "shorter context" in (caught.value.hint or "")


class CountingTree(Tree):
    """A kernel whose count of out-of-memory kills rises with every look."""

    def __init__(self, step: int) -> None:
        super().__init__(Path("/nowhere"))
        self._step, self._kills = step, 7

    def text(self, path: str) -> str | None:
        assert path == "proc/vmstat"
        self._kills += self._step
        return f"pgpgin 12\noom_kill {self._kills}"


@pytest.mark.parametrize(("step", "kind"), [(0, "killed"), (1, "out of memory")])
def test_a_kill_is_out_of_memory_only_where_the_kernel_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, kind: str
) -> None:
    (tmp_path / "victim.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edgegauge.measure.series.MODULE", "victim")
    failure = attempt({}, 4, tree=CountingTree(step), timeout_s=60)
    assert (failure.run, failure.kind) == (4, kind)  # type: ignore[union-attr]


def test_a_refused_artifact_is_no_failure_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match="cannot load"):
        measure_grid(Artifact(path, None), [SMALL, SMALL], timeout_s=60)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS counts mappings on Linux")
def test_a_limit_of_the_address_space_is_told_as_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gguf: Path
) -> None:
    """A mapped file counts against it in full, so a model fails that a real device would run."""
    large = tmp_path / "large.gguf"
    large.write_bytes(gguf.read_bytes())
    os.truncate(large, 256 * 2**20)  # mapped whole, though little of it is read
    (tmp_path / "walled.py").write_text(
        textwrap.dedent("""
        import resource
        from edgegauge.host.tree import Tree, fields
        from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime

        class Walled(LlamaCppRuntime):
            def prepare(self):
                super().prepare()
                used = fields(Tree().text("proc/self/status"))["VmSize"].removesuffix(" kB")
                limit = int(used) * 1024 + 64 * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    from walled import Walled  # type: ignore[import-not-found]

    (found,) = measure_grid(Artifact(large, None), [SMALL], runtime=Walled(), timeout_s=60)
    assert isinstance(found, FailedResult)
    assert {(f.phase, f.kind) for f in found.failures} == {("load", "out of memory")}
