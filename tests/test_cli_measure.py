"""`edgegauge measure`: the table, the document, the result file and the exit status."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from make_gguf import write_gguf

from edgegauge.cli import main
from edgegauge.cli import measure as cli_measure
from edgegauge.document import read_json
from edgegauge.errors import InputError
from edgegauge.host.tree import Tree
from edgegauge.measure import manager, series
from edgegauge.measure.machine import Machine
from edgegauge.result import FailedResult, Result, read_result

QUICK = [
    "--prompt-tokens", "16", "--generated-tokens", "8", "--threads", "1", "--runs", "1",
    "--most-runs", "1", "--meter", "none",
]  # fmt: skip


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def status_of(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in ("measure", *arguments)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_json_is_the_document_in_the_file(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "deep" / "result.json"
    status = status_of(gguf, *QUICK, "--json", "-o", path)
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document == json.loads(path.read_text())
    result = read_json(path, Result)
    # Other programs may disturb the machine that runs the tests; the status must say so.
    assert status == (0 if result.trustworthy else 4)
    assert (result.workload.prompt_tokens, result.workload.runs) == (16, 1)
    assert str(path) in err
    for warning in result.warnings:
        assert warning[:40] in err


def test_the_table_names_every_figure(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of(gguf, *QUICK, "--device", "raspberry-pi-5-8gb") in (0, 4)
    out, _ = capsys.readouterr()
    for name in ("prefill", "decode", "time to first token", "between tokens", "load", "peak"):
        assert name in out
    assert "energy: - (energy was not asked for)" in out
    assert "memory on raspberry-pi-5-8gb: " in out
    (written,) = (tmp_path / "results").glob("tiny-????????.json")
    assert read_json(written, Result).artifact.name == "tiny"


def test_a_disturbed_measurement_is_written_and_ends_with_status_4(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter([manager.host.state(manager.Tree()) | {"throttle_count": n} for n in (1, 9)])
    monkeypatch.setattr(manager.host, "state", lambda tree: next(states))
    path = tmp_path / "result.json"
    assert status_of(gguf, *QUICK, "-o", path) == 4
    result = read_json(path, Result)
    assert not result.trustworthy
    assert any("throttled for heat 8 times" in warning for warning in result.warnings)


def test_bad_input_is_an_error_without_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF?")
    for artifact, expected in ((bad, "bad.gguf"), (tmp_path / "none.gguf", "no such artifact")):
        assert status_of(artifact, *QUICK, "-o", tmp_path / "r.json") == 1
        err = capsys.readouterr().err
        assert "error: " in err and expected in err and "Traceback" not in err
    assert not (tmp_path / "r.json").exists()


def test_a_run_that_takes_too_long_ends_with_status_124(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sleeping.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(series, "MODULE", "sleeping")
    assert status_of(gguf, *QUICK, "--timeout", "0.5", "-o", tmp_path / "r.json") == 124
    err = capsys.readouterr().err
    assert "error: tiny.gguf, starting: stopped after 0.5 s" in err and "hint: " in err
    failed = read_json(tmp_path / "r.json", FailedResult)
    assert [f.kind for f in failed.failures] == ["timeout"]
    with pytest.raises(InputError, match=r"holds no figures.*stopped after 0.5 s"):
        read_result(tmp_path / "r.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--generated-tokens", "1"],
        ["--threads", "0"],
        ["--timeout", "0"],
        ["--runs", "many"],
        ["--prompt-tokens", "8,"],
        ["--depth", "0,-1"],
        ["--parallel", "1,x"],
        ["--prompt-tokens", ",".join(map(str, range(1, 80)))],
    ],
)
def test_wrong_usage_ends_with_status_2(gguf: Path, arguments: list[str]) -> None:
    assert status_of(gguf, *arguments) == 2


def test_an_unknown_device_is_refused_before_anything_runs(gguf: Path, tmp_path: Path) -> None:
    assert status_of(gguf, *QUICK, "--device", "toaster", "-o", tmp_path / "r.json") == 1
    assert not (tmp_path / "r.json").exists()


def test_a_grid_is_one_document_one_table_and_a_file_each(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [gguf, *QUICK, "--prompt-tokens", "8,16", "--parallel", "1,2", "-o", tmp_path / "grid"]
    assert status_of(*asked) in (0, 4)
    out, err = capsys.readouterr()
    assert [line.split()[:3] for line in out.splitlines()[2:6]] == [
        ["8", "0", "1"], ["8", "0", "2"], ["16", "0", "1"], ["16", "0", "2"],
    ]  # fmt: skip
    assert "throughput and latency of decoding" in out
    assert status_of(*asked[:-1], tmp_path / "r.json") == 2
    assert "4 results need a folder" in capsys.readouterr().err
    assert err.count("result written to ") == 4
    files = sorted((tmp_path / "grid").glob("tiny-????????.json"))
    assert len(files) == 4
    less = [gguf, *QUICK, "--prompt-tokens", "8,16", "--json", "-o", tmp_path / "two"]
    assert status_of(*less) in (0, 4)
    document = json.loads(capsys.readouterr().out)
    assert document["format"] == 1
    assert [r["workload"]["prompt_tokens"] for r in document["results"]] == [8, 16]
    written = [json.loads(file.read_text()) for file in (tmp_path / "two").iterdir()]
    assert sorted(map(json.dumps, written)) == sorted(map(json.dumps, document["results"]))


def test_a_prompt_file_is_named_in_the_result(gguf: Path, tmp_path: Path) -> None:
    prompt, path = tmp_path / "prompt.txt", tmp_path / "r.json"
    prompt.write_text("Turn the light in the kitchen off, please.")
    assert status_of(gguf, *QUICK, "--prompt", prompt, "-o", path) in (0, 4)
    source = read_result(path).workload.prompt
    assert source is not None
    assert (source.name, source.sha256) == (
        "prompt.txt", hashlib.sha256(prompt.read_bytes()).hexdigest()
    )  # fmt: skip
    assert "kitchen" not in path.read_text()


def test_a_machine_without_a_meter_says_where_the_reasons_are(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Machine(Tree(tmp_path / "bare"))
    monkeypatch.setattr(cli_measure, "Machine", lambda: bare)
    quick = QUICK[: QUICK.index("--meter")]
    assert status_of(gguf, *quick, "-o", tmp_path / "r.json") in (0, 4)
    assert "energy: - (no meter could be read; `edgegauge doctor` says why)" in (
        capsys.readouterr().out
    )
    result = read_result(tmp_path / "r.json")
    assert result.energy == [] and result.summary.energy_j_per_token is None
    assert "rapl: " in (result.summary.energy_reason or "")
    assert status_of(gguf, *quick, "--meter", "crystal-ball") == 1


def test_a_failed_configuration_is_an_error_beside_the_others(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "picky.py").write_text(
        "import json, os, sys\n"
        "from edgegauge.measure import child, worker\n"
        "def work(job, send):\n"
        "    if job['workload']['depth']:\n"
        "        send({'phase': 'decode'})\n"
        "        os.kill(os.getpid(), 9)\n"
        "    worker.work(job, send)\n"
        "sys.exit(child.serve(work))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(series, "MODULE", "picky")
    asked = [gguf, *QUICK, "--depth", "0,5", "--json", "-o", tmp_path]
    assert status_of(*asked) == 1
    out, err = capsys.readouterr()
    good, bad = json.loads(out)["results"]
    assert good["samples"] and not good["failures"]
    assert [f["kind"] for f in bad["failures"]] == ["killed"] and "samples" not in bad
    assert "error: tiny.gguf, in the phase 'decode': " in err and "SIGKILL" in err
    assert len(list(tmp_path.glob("tiny-*.json"))) == 2
