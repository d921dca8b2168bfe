"""Predictions by a calibration against models that it did not see: scripts/validate_calibration."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from loaded_script import loaded_script
from stand_in_runtime import StandInRuntime

from edgegauge import calibration_runs
from edgegauge.calibration_shapes import SHAPES

MACHINES = ("epyc-avx2", "epyc-avx512")
RUNTIMES = ("llama.cpp", "onnxruntime", "litert")
RUN = [(machine, runtime) for machine in MACHINES for runtime in RUNTIMES]


@pytest.fixture(scope="module")
def script():
    return loaded_script("validate_calibration")


@pytest.fixture(scope="module")
def here(script):
    """The module that runs and judges."""
    return script.here


@pytest.fixture(scope="module")
def machines(here):
    """The stored runs of each machine."""
    found = here.stored_machines()
    assert tuple(found) == MACHINES
    return found


@pytest.mark.parametrize(("machine", "runtime"), RUN)
def test_unseen_models_are_predicted(script, here, machines, machine, runtime):
    rows = here.judged(runtime, machines[machine])
    assert len(rows) == 72 and {row.model for row in rows} == set(here.UNSEEN)
    for phase, most in script.TARGETS.items():
        found = here.summary_of(rows, phase)
        assert found["median"] <= most, phase
        assert found["coverage"] >= 0.7, phase


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_intervals_are_no_wider_than_they_say(here, machines, phase):
    rows = [row for machine, name in RUN for row in here.judged(name, machines[machine])]
    assert 0.75 <= here.summary_of(rows, phase)["coverage"] <= 0.95


@pytest.mark.parametrize(("machine", "runtime"), RUN)
def test_every_workload_of_the_plan_was_run_twice_at_least(here, machines, machine, runtime):
    runs = [run for run in machines[machine] if run.runtime == runtime]
    counts = {key: sum(run.key == key for run in runs) for key in {run.key for run in runs}}
    wanted = {
        (runtime, model, recipe, tokens)
        for model, recipe, prompts in here.workloads(here.FORMATS[runtime])
        for tokens in prompts
    }
    assert set(counts) == wanted and min(counts.values()) >= 2
    assert {model for _, model, _, _ in wanted} == {*SHAPES, *here.UNSEEN}


def test_the_page_has_the_errors_of_today(script):
    page = script.DOCS.read_text("utf-8")
    assert script.with_report(page) == page, "run scripts/validate_calibration --write"


def test_only_what_is_lacking_is_run(here, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(here, "installed_runtimes", lambda: {"llama.cpp": StandInRuntime()})
    monkeypatch.setattr(here, "workloads", lambda file_format: [("shallow", "f32", (16, 24))])
    monkeypatch.setattr(calibration_runs, "GENERATED", 4)
    monkeypatch.setattr(calibration_runs, "AGREE", 1e9)
    path = tmp_path / "runs.csv"
    here.run_missing("llama.cpp", 1, path)
    first = here.stored_runs(path)
    assert [run.prompt_tokens for run in first] == [16, 24, 24, 16]  # there and back again
    assert all(run.decode_s > 0 and run.threads == 1 for run in first)
    here.run_missing("llama.cpp", 1, path)
    assert here.stored_runs(path) == first
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    here.run_missing("llama.cpp", 1, path)
    assert [run.prompt_tokens for run in here.stored_runs(path)] == [16, 24, 24, 16]


def test_runs_go_into_a_file_that_is_named(script):
    result = CliRunner().invoke(script.main, ["--here", "litert"])
    assert result.exit_code == 2 and "--runs" in result.output


def test_rows_of_a_model_that_has_changed_are_refused(here, machines):
    run = next(run for run in machines["epyc-avx2"] if run.model == "stories42m")
    with pytest.raises(SystemExit, match="stories42m"):
        here.timings([here.Run(**{**run.__dict__, "weight_bytes": 1})] * 2)
