"""`edgegauge measure`: the table, the document, the result file and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_gguf import write_gguf

from edgegauge.cli import main
from edgegauge.document import read_json
from edgegauge.measure import manager
from edgegauge.result import Result

QUICK = ["--prompt-tokens", "16", "--generated-tokens", "8", "--threads", "1", "--runs", "1"]


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
    assert "energy: - (no energy meter" in out
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
    monkeypatch.setattr(manager, "MODULE", "sleeping")
    assert status_of(gguf, *QUICK, "--timeout", "0.5", "-o", tmp_path / "r.json") == 124
    assert "stopped after 0.5 s" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--generated-tokens", "1"], ["--threads", "0"], ["--timeout", "0"], ["--runs", "many"]],
)
def test_wrong_usage_ends_with_status_2(gguf: Path, arguments: list[str]) -> None:
    assert status_of(gguf, *arguments) == 2


def test_an_unknown_device_is_refused_before_anything_runs(gguf: Path, tmp_path: Path) -> None:
    assert status_of(gguf, *QUICK, "--device", "toaster", "-o", tmp_path / "r.json") == 1
    assert not (tmp_path / "r.json").exists()
