"""The pipeline on small random models: every step for real, resumable, honest about failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner
from make_models import make_folder

from edgegauge.artifact import FileFormat, open_artifact
from edgegauge.cli import root
from edgegauge.device import profiles_folder
from edgegauge.errors import EXIT_BROKEN_BUDGET, InputError, MissingDependency
from edgegauge.measure.runtimes.llama_cpp import LlamaCppRuntime
from edgegauge.pipeline import execute
from edgegauge.plan import PlanPrediction, read_plan
from edgegauge.report.summary import RunSummary
from edgegauge.steps import Candidates, candidates
from edgegauge.summarise import predicted

FORMATS = get_args(FileFormat)

PLAN = """
format = 1
title = "Two random models"
models = ["small", "large"]
formats = ["gguf"]
recipes = ["q8_0", "int8", "f16"]

[workload]
prompt_tokens = 8
generated_tokens = 4
threads = 1
runs = 1
repetitions = 1

[evaluation]
task = "task.jsonl"

[budget]
memory = "4GB"
{budget}
[[predict]]
device = "raspberry-pi-5-8gb"
models = ["smollm2-135m", "qwen2.5-0.5b"]
recipes = ["q8_0"]
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with two models, a task, and a plan about them."""
    make_folder(tmp_path / "small", "llama", layers=2)
    make_folder(tmp_path / "large", "qwen3", layers=3)
    rows = [{"prompt": f"say {n}", "answer": str(n)} for n in range(3)]
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_plan(tmp_path)
    return tmp_path


def write_plan(base: Path, budget: str = "") -> None:
    (base / "plan.toml").write_text(PLAN.format(budget=budget))


class Steps(list[tuple[str, bool]]):
    """Records what a run says."""

    def __call__(self, step: int, steps: int, what: str, *, reused: bool) -> None:
        assert 1 <= step <= steps
        self.append((what, reused))


def execute_plan(base: Path) -> tuple[RunSummary, Steps]:
    plan, folder = read_plan(base / "plan.toml")
    talk = Steps()
    return execute(plan, folder, base / "run", talk), talk


def test_every_candidate_is_measured_evaluated_and_judged(base: Path) -> None:
    summary, talk = execute_plan(base)
    # int8 is q8_0 by another name, so two models at two recipes.
    assert {(r.model, r.recipe) for r in summary.measured} == {
        (m, r) for m in ("small", "large") for r in ("q8_0", "f16")
    }
    assert len(talk) == 4 * 3 and not any(reused for _, reused in talk)
    for row in summary.measured:
        assert row.passes
        assert row.figures.decode_tok_per_s and row.figures.decode_tok_per_s.kind == "measured"
        assert row.figures.quality is not None
        assert row.figures.peak_memory_bytes is not None
    smallest = min(summary.measured, key=lambda row: row.file_bytes)
    assert summary.recommended is not None
    assert summary.recommended.model == smallest.model == "small"
    assert summary.recommended.recipe == "q8_0"
    (predicted,) = summary.predicted
    assert predicted.device.id == "raspberry-pi-5-8gb"
    assert {row.model for row in predicted.candidates} == {"smollm2-135m", "qwen2.5-0.5b"}
    assert all(
        row.figures.decode_tok_per_s and row.figures.decode_tok_per_s.kind == "predicted"
        for row in predicted.candidates
    )


def test_a_second_run_repeats_nothing_and_a_lost_result_only_itself(base: Path) -> None:
    first, _ = execute_plan(base)
    again, talk = execute_plan(base)
    assert all(reused for _, reused in talk)
    assert again.measured == first.measured
    lost = next((base / "run" / "results").glob("small-f16-*.measure.json"))
    lost.unlink()
    _, talk = execute_plan(base)
    assert [what for what, reused in talk if not reused] == ["measure small-f16-gguf"]


def test_a_changed_model_is_converted_again(base: Path) -> None:
    execute_plan(base)
    make_folder(base / "small", "llama", layers=3)
    _, talk = execute_plan(base)
    repeated = {what for what, reused in talk if not reused}
    assert repeated and all("small" in what for what in repeated)


def test_a_prediction_may_name_files_beside_the_plan(base: Path) -> None:
    profile = profiles_folder() / "raspberry-pi-4b-4gb.toml"
    (base / "mine.toml").write_text(profile.read_text())
    asked = PlanPrediction(device="mine.toml", models=["small"])
    found = predicted(asked, base)
    assert found.device.id == "raspberry-pi-4b-4gb"
    assert {row.model for row in found.candidates} == {"small"}


def test_a_broken_model_is_a_row_with_its_reason(base: Path) -> None:
    weights = base / "large" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    summary, _ = execute_plan(base)
    broken = [row for row in summary.measured if row.model == "large"]
    assert len(broken) == 2
    assert all(not row.passes and "model.safetensors" in row.reason for row in broken)
    assert summary.recommended is not None and summary.recommended.model == "small"
    assert not list((base / "run" / "artifacts").glob("large*/*.gguf"))


def test_an_artifact_that_computes_something_else_is_a_row_with_the_place(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgegauge_converters.gguf_rows.interleave", lambda rows, head_dim: rows)
    summary, _ = execute_plan(base)
    broken = [row for row in summary.measured if row.model == "small"]  # large is no llama
    assert len(broken) == 2 and not any(row.passes for row in broken)
    assert all("attn_q of block 0" in row.reason for row in broken)
    assert not list((base / "run" / "artifacts").glob("small*"))
    (sound,) = {row.model for row in summary.measured if row.passes}
    assert sound == "large"


def test_an_artifact_is_finished_when_it_is_verified(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgegauge.steps.verified", killed)
        with pytest.raises(KeyboardInterrupt):
            execute_plan(base)
    summary, talk = execute_plan(base)
    assert not any(reused for _, reused in talk) and all(row.passes for row in summary.measured)
    for folder in (base / "run" / "artifacts").iterdir():
        manifest = open_artifact(folder).manifest
        assert manifest is not None and manifest.verification is not None


def test_a_killed_run_goes_on_where_it_stopped(base: Path) -> None:
    command = [sys.executable, "-m", "edgegauge", "run", str(base / "plan.toml"),
               "-o", str(base / "run")]  # fmt: skip
    results = base / "run" / "results"
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(results.glob("*.evaluate.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert finished, "nothing was finished before the kill"
    _, talk = execute_plan(base)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert any(reused for _, reused in talk) and not all(reused for _, reused in talk)


def test_the_command_writes_summary_and_report_and_says_what_fails(base: Path) -> None:
    write_plan(base, 'quality = { metric = "exact_match", at_least = 0.99 }')
    done = CliRunner().invoke(
        root, ["run", str(base / "plan.toml"), "-o", str(base / "run"), "--json"],
        standalone_mode=False,
    )  # fmt: skip
    assert done.return_value == EXIT_BROKEN_BUDGET, done.output
    document = json.loads(done.stdout)
    assert document == json.loads((base / "run" / "summary.json").read_text())
    assert document["recommended"] is None
    assert all(row["broken"][0]["limit"] == "quality" for row in document["measured"])
    page = (base / "run" / "report.html").read_text()
    assert "small" in page and "Raspberry Pi 5" in page


def test_a_wrong_plan_names_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('format = 1\ntitle = ""\nmodels = []\nrecipes = ["q8_0"]\nsize = 3\n')
    with pytest.raises(InputError) as caught:
        read_plan(path)
    text = str(caught.value)
    assert all(key in text for key in ("title", "models", "size", str(path)))


def test_each_format_is_a_candidate_of_its_own(base: Path) -> None:
    text = (base / "plan.toml").read_text()
    text = text.replace('["gguf"]', '["onnx", "gguf"]').replace('["small", "large"]', '["small"]')
    (base / "plan.toml").write_text(text)
    summary, talk = execute_plan(base)
    assert {(r.format, r.recipe) for r in summary.measured} == {
        ("gguf", "q8_0"), ("gguf", "f16"), ("onnx", "int8"),
    }  # fmt: skip
    assert all(row.passes and row.figures.quality for row in summary.measured)
    assert len(talk) == 3 * 3
    # q8_0 is GGUF's name, and ONNX Runtime has no f16: one warning each, no rows.
    refused = [w for w in summary.warnings if w.startswith(("onnx has no", "unknown recipe"))]
    assert len(refused) == 2 and "'f16'" in " ".join(refused) and "'q8_0'" in " ".join(refused)
    _, talk = execute_plan(base)
    assert all(reused for _, reused in talk)


@pytest.fixture
def without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which llama-cpp-python is not installed."""

    def version(self: LlamaCppRuntime) -> str:
        raise MissingDependency("running GGUF files", "gguf")

    monkeypatch.setattr(LlamaCppRuntime, "version", version)


def of_one_model(*recipes: str, formats: tuple[FileFormat, ...] = FORMATS) -> Candidates:
    return candidates(["m"], formats, recipes)


@pytest.mark.usefixtures("without_llama")
def test_a_format_that_is_not_installed_is_left_out_with_what_mends_it() -> None:
    found = of_one_model("int8", "int4")
    assert {wanted.format for wanted in found.candidates} == {"onnx", "tflite"}
    (said,) = found.left_out
    assert said.startswith("no gguf rows: ") and 'pip install "edgegauge[gguf]"' in said


@pytest.mark.usefixtures("without_llama")
def test_a_plan_of_which_nothing_is_left_is_an_error_that_says_why() -> None:
    with pytest.raises(InputError, match=r"edgegauge\[gguf\]"):
        of_one_model("int8", formats=("gguf",))
    # GGUF has this recipe, so it is no mistake; but nothing here can use it.
    with pytest.raises(InputError, match="none of the plan's formats"):
        of_one_model("q4_k_m")


def test_a_recipe_that_no_format_has_is_an_error() -> None:
    with pytest.raises(InputError, match="int5"):
        of_one_model("int8", "int5")
    with pytest.raises(InputError, match="f16"):
        of_one_model("int8", "f16", formats=("onnx", "tflite"))
