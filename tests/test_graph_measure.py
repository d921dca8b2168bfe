"""`edgegauge measure` on graphs: real children, real runtimes, what is written and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from make_graphs import onnx_classifier, onnx_encoder, tflite_sum
from test_graph_runtimes import word_tokenizer

from edgegauge.cli.measure import command
from edgegauge.errors import InputError, MeasurementError, RunTimeout
from edgegauge.graph_result import GraphResult, GraphRun, GraphWorkload
from edgegauge.measure import graph_manager
from edgegauge.measure.graph_manager import measure_graph, summarise_graph

QUICK = ["--threads", "1", "--runs", "1", "--inferences", "20", "--meter", "none"]
LOAD = GraphWorkload(threads=1, runs=1, inferences=20)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def test_an_onnx_graph_from_the_command_line(tmp_path: Path) -> None:
    file, out = onnx_classifier(tmp_path / "c.onnx", batch="batch"), tmp_path / "r.json"
    shown = invoke(str(file), *QUICK, "--shape", "pixels=2,3,8,8", "-o", str(out))
    assert shown.return_value in (0, 4), shown.output
    assert "latency" in shown.output and "pixels: float32 [?, 3, 8, 8]" in shown.output
    assert "energy: - (not asked for)" in shown.output
    result = GraphResult.model_validate(json.loads(out.read_text()))
    assert result.graph.inputs == {"pixels": "float32 [?, 3, 8, 8]"}
    assert result.workload.shapes == {"pixels": [2, 3, 8, 8]}
    assert result.tool.runtime == "ONNX Runtime"
    (run,) = result.samples
    assert list(run.phases) == ["import", "load", "warm_up", "inference"]
    assert len(run.latencies_s) == run.passes >= 20 and min(run.latencies_s) > 0
    assert result.summary.memory.peak_rss_bytes and result.summary.memory.outcome == "fits"
    assert result.host["overhead"]["wall_s"] > 0


def test_a_tflite_graph_as_json(tmp_path: Path) -> None:
    file, out = tflite_sum(tmp_path / "s.tflite"), tmp_path / "r.json"
    shown = invoke(str(file), *QUICK, "--json", "-o", str(out))
    assert shown.return_value in (0, 4), shown.output
    assert json.loads(shown.stdout) == json.loads(out.read_text())
    assert json.loads(shown.stdout)["graph"]["format"] == "tflite"


def test_an_encoder_on_real_text(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    file, text, out = onnx_encoder(tmp_path / "e.onnx"), tmp_path / "t.txt", tmp_path / "r.json"
    text.write_text("one two three\n\nfour\nfive six\n")
    shown = invoke(str(file), *QUICK, "--text", str(text), "-o", str(out))
    assert shown.return_value in (0, 4), shown.output
    assert "fed with t.txt" in shown.output and "tokens" in shown.output
    result = GraphResult.model_validate(json.loads(out.read_text()))
    assert result.workload.text and result.workload.text.name == "t.txt"
    assert "one two three" not in out.read_text(), "the text itself stays out of the result"
    tokens = result.samples[0].tokens
    assert tokens and len(tokens) % 3 == 0, "every text counts as often as any other"
    assert sorted(tokens[:3]) == [1, 2, 3]
    assert result.summary.tokens_per_s


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--depth", "4"], "--depth means nothing for a graph"),
        (["--shape", "pixels"], "expected NAME=N,N"),
        (["--shape", "pixels=1,x"], "expected NAME=N,N"),
    ],
)
def test_options_that_make_no_sense(arguments: list[str], says: str, tmp_path: Path) -> None:
    shown = invoke(str(onnx_classifier(tmp_path / "c.onnx")), *QUICK, *arguments)
    assert shown.exception and says in str(shown.exception)


def test_graph_options_for_a_language_model(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    shown = invoke(str(model), "--inferences", "3")
    assert "--inferences means nothing for a language model" in str(shown.exception)


def test_files_and_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        measure_graph(tmp_path / "absent.onnx", LOAD)
    broken = tmp_path / "b.tflite"
    broken.write_bytes(b"not a graph")
    with pytest.raises(InputError, match="not a TFLite file"):
        measure_graph(broken, LOAD)
    odd = LOAD.model_copy(update={"shapes": {"pixels": [1, 3, 9, 9]}})
    with pytest.raises(InputError, match="does not fit"):
        measure_graph(onnx_classifier(tmp_path / "c.onnx"), odd)


STAND_IN = """
import os, signal, sys, time
from edgegauge.measure.child import serve
def work(job, send):
    send({"phase": "inference"})
    if job["workload"]["seed"] == 1 or not os.path.exists(job["path"] + ".once"):
        open(job["path"] + ".once", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if job["workload"]["seed"] == 2:
        time.sleep(60)
    phase = {"rss_bytes": 1, "anonymous_bytes": 1, "file_bytes": 0, "swap_bytes": 0,
             "peak_rss_bytes": 1}
    send({"run": {"load_s": 1.0, "latencies_s": [0.1] * 10, "phases": {"inference": phase}}})
sys.exit(serve(work))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A child that is killed in its first run (seed 1: in all), or hangs from then on (seed 2)."""
    (tmp_path / "graph_stand_in.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(graph_manager, "MODULE", "graph_stand_in")
    return onnx_classifier(tmp_path / "c.onnx")


def test_a_killed_run_is_told_and_the_others_count(stand_in: Path) -> None:
    result = measure_graph(stand_in, LOAD.model_copy(update={"runs": 3}))
    assert [(f.run, f.kind, f.phase) for f in result.failures] == [(0, "killed", "inference")]
    assert len(result.samples) == 2 and not result.trustworthy
    assert any("run 1 of 3 failed" in warning for warning in result.warnings)


def test_when_no_run_ends_well(stand_in: Path) -> None:
    with pytest.raises(MeasurementError, match="SIGKILL"):
        measure_graph(stand_in, LOAD.model_copy(update={"runs": 2, "seed": 1}))
    with pytest.raises(RunTimeout):
        late = LOAD.model_copy(update={"runs": 5, "seed": 2})
        measure_graph(stand_in, late, timeout_s=1.0)


def run_of(*latencies: float, tokens: list[int] | None = None) -> GraphRun:
    return GraphRun(load_s=1.0, latencies_s=list(latencies), tokens=tokens, phases={})


def test_the_figures_follow_from_the_samples() -> None:
    found = summarise_graph([run_of(0.1, 0.3, tokens=[4, 12]), run_of(0.2, 0.2, tokens=[8, 8])])
    assert found.latency_s.p50.value == pytest.approx(0.2)
    assert found.latency_s.p90 is None and found.latency_s.samples == 4
    assert found.inferences_per_s.value == pytest.approx(5)
    assert found.tokens_per_s and found.tokens_per_s.value == pytest.approx(40)


def test_runs_that_disagree_are_not_trusted() -> None:
    steady = [run_of(*[0.1 + 1e-5 * i] * 9) for i in range(3)]
    assert not list(graph_manager._scatter(steady))
    (finding,) = graph_manager._scatter([run_of(0.1), run_of(0.12), run_of(0.1)])
    assert finding.spoils and "--runs" in str(finding)
    (finding,) = graph_manager._scatter([run_of(0.1)])
    assert not finding.spoils
