"""Sweeps: which cells there are, each once, what fails told and not repeated, and the time left."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from make_models import make_folder
from sample_results import measured_result

from edgegauge import result as documents
from edgegauge.artifact import Artifact, open_artifact
from edgegauge.cli import root
from edgegauge.document import parse
from edgegauge.errors import InputError, MeasurementError, MissingDependency, RunTimeout
from edgegauge.measure.runtimes.onnxruntime import OnnxRuntime
from edgegauge.report.load import gather
from edgegauge.report.page import write_page
from edgegauge.sweep import SweepSummary, execute
from edgegauge.sweep_cells import Sweep, cells
from edgegauge.sweep_pace import Pace, guess_s, took_s

SCRIPT = Path(__file__).parents[1] / "scripts" / "kill_sweep"
TEXT = """
models = ["small", "other"]
recipes = ["q8_0", "int8", "f16"]
formats = ["gguf"]
threads = [1, 2]
prompt_tokens = [8]
generated_tokens = 4
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with two models and a sweep over them."""
    make_folder(tmp_path / "small", "llama")
    make_folder(tmp_path / "other", "qwen3")
    (tmp_path / "sweep.toml").write_text(TEXT)
    return tmp_path


class StandIn:
    """In place of measuring: counts, and fails where it is told to."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, int]] = []
        self.errors: dict[tuple[str, int], MeasurementError] = {}
        self.trustworthy = True

    def __call__(
        self, artifact: Artifact, workload: documents.Workload, *, runtime: Any, progress: Any,
        **_: Any,
    ) -> documents.Result:  # fmt: skip
        cell = artifact.name, workload.threads
        self.measured.append(cell)
        progress(0.5, "run 2 of 3")
        if error := self.errors.get(cell):
            raise error
        manifest = artifact.manifest
        assert manifest is not None
        made = measured_result([10.0], workload=workload, trustworthy=self.trustworthy)
        facts = {
            "model": manifest.model,
            "recipe": manifest.recipe,
            "format": "gguf",
            "name": artifact.name,
            "sha256": manifest.files[0].sha256,
        }
        tool = {"runtime": runtime.name, "runtime_version": runtime.version()}
        return made.model_copy(
            update={
                "artifact": made.artifact.model_copy(update=facts),
                "tool": made.tool.model_copy(update=tool),
            }
        )


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr("edgegauge.steps.measure", stand_in)
    monkeypatch.setattr("edgegauge.steps.verified", lambda *_: None)
    return stand_in


def a_sweep(**changes: Any) -> Sweep:
    asked = {"models": ["small"], "recipes": ["int8"], "formats": ["gguf"], "threads": [1]}
    return parse(asked | changes, Sweep, "test")


Line = tuple[int, str, str, float]


def swept(
    base: Path, text: str = TEXT, *, retry_failed: bool = False
) -> tuple[SweepSummary, list[Line]]:
    said: list[Line] = []

    def talk(cell: int, cells: int, what: str, note: str, left_s: float) -> None:
        assert 1 <= cell <= cells
        said.append((cell, what, note, left_s))

    chosen = cells(parse(tomllib.loads(text), Sweep, "test"), base)
    summary = execute(chosen, base, base / "out", retry_failed=retry_failed, talk=talk)
    return summary, said


def test_every_cell_is_measured_once_and_a_second_sweep_measures_nothing(
    base: Path, measuring: StandIn
) -> None:
    summary, said = swept(base)
    # int8 is q8_0 by another name: two models at two recipes, on one and on two threads.
    names = {f"{m}-{r}" for m in ("small", "other") for r in ("q8_0", "f16")}
    assert sorted(measuring.measured) == sorted((name, n) for name in names for n in (1, 2))
    assert sum(what.startswith("convert") for _, what, _, _ in said) == 4  # shared by two cells
    files = sorted((base / "out" / "results").iterdir())
    assert sorted(base / "out" / str(row.result) for row in summary.cells) == files
    assert len(files) == 8 and json.loads((base / "out" / "sweep.json").read_text()) == (
        summary.model_dump(mode="json")
    )
    states = [(path, path.stat().st_mtime_ns) for path in files]
    again, said = swept(base)
    assert again == summary and len(measuring.measured) == 8
    assert [note for _, _, note, _ in said] == ["measured before"] * 8
    assert [left_s for *_, left_s in said] == [0.0] * 8
    assert [(path, path.stat().st_mtime_ns) for path in files] == states


def test_another_workload_is_another_result_and_the_artifacts_stay(
    base: Path, measuring: StandIn
) -> None:
    swept(base)
    _, said = swept(base, TEXT.replace("[8]", "[8, 9]"))
    assert len(measuring.measured) == 16
    assert not any(what.startswith("convert") for _, what, _, _ in said)


def test_a_failed_cell_is_told_in_a_file_and_tried_again_only_when_asked(
    base: Path, measuring: StandIn
) -> None:
    measuring.errors["small-f16", 2] = MeasurementError("the runtime crashed", hint="try less")
    summary, said = swept(base)
    (row,) = (row for row in summary.cells if row.failure)
    assert (row.model, row.recipe, row.threads, row.result) == ("small", "f16", 2, None)
    (path,) = (base / "out" / "failed").iterdir()
    told = json.loads(path.read_text())
    assert told["reason"] == "the runtime crashed" and told["hint"] == "try less"
    assert path.name.startswith("small-f16-gguf-") and "2 threads" in told["cell"]
    assert [note for _, _, note, _ in said if note] == ["failed: the runtime crashed"]
    assert len(list((base / "out" / "results").iterdir())) == 7
    again, said = swept(base)
    assert again == summary and len(measuring.measured) == 8
    assert sorted({note for _, _, note, _ in said}) == ["failed before", "measured before"]
    measuring.errors.clear()
    mended, _ = swept(base, retry_failed=True)
    assert len(measuring.measured) == 9 and not any(row.failure for row in mended.cells)
    assert not list((base / "out" / "failed").iterdir())


def test_a_model_that_cannot_be_converted_is_tried_once_and_again_when_it_changes(
    base: Path, measuring: StandIn
) -> None:
    weights = base / "other" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    summary, said = swept(base)
    broken = [row for row in summary.cells if row.model == "other"]
    assert len(broken) == 4
    assert all(row.failure and "model.safetensors" in row.failure.reason for row in broken)
    assert sum(what.startswith("convert other") for _, what, _, _ in said) == 2
    assert len(measuring.measured) == 4
    weights.write_bytes(whole)
    mended, _ = swept(base)
    assert not any(row.failure for row in mended.cells) and len(measuring.measured) == 8


def test_what_cannot_be_is_left_out_with_one_sentence_each(base: Path) -> None:
    make_folder(base / "short", "llama", context=64)
    sweep = a_sweep(
        models=["small", "short", "absent"], recipes=["int8", "f16"], formats=["gguf", "tflite"],
        prompt_tokens=[8, 100], parallel=[1, 2], generated_tokens=4,
    )  # fmt: skip
    found = cells(sweep, base)
    texts = [cell.text for cell in found.cells]
    assert len(set(texts)) == len(texts)
    assert not any("short" in text and "100 tokens" in text for text in texts)
    assert not any("LiteRT" in text and "parallel" in text for text in texts)
    assert "small q8_0 gguf, llama.cpp, 1 thread, 100 tokens at depth 0, 2 in parallel" in texts
    said = "\n".join(found.left_out)
    assert "104 tokens are more than the 64 of short's context (6 cells left out)" in said
    assert "LiteRT decodes one sequence at a time (3 cells left out)" in said
    assert "no absent cells: " in said and "tflite has no recipe 'f16'" in said
    assert len(found.left_out) == 4
    # small: 2 recipes x 2 prompts x 2 + 2 prompts in LiteRT; short: 2 x 1 x 2 + 1.
    assert len(found.cells) == 8 + 2 + 4 + 1


def test_runtimes_are_an_axis(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(self: OnnxRuntime) -> str:
        raise MissingDependency("running ONNX files", "onnx")

    both = a_sweep(formats=["gguf", "onnx"], runtimes=["onnxruntime"])
    found = cells(both, base)
    assert [cell.runtime.name for cell in found.cells] == ["ONNX Runtime"]
    assert found.left_out == ["no gguf cells: none of the sweep's runtimes executes it"]
    assert {cell.runtime.name for cell in cells(a_sweep(formats=["gguf", "onnx"]), base).cells} == {
        "llama.cpp", "ONNX Runtime"
    }  # fmt: skip
    with pytest.raises(InputError, match=r"no runtime tensorrt; there are: litert, llama.cpp"):
        cells(a_sweep(runtimes=["tensorrt"]), base)
    monkeypatch.setattr(OnnxRuntime, "version", version)
    named = a_sweep(formats=["gguf", "onnx"], runtimes=["llama.cpp", "onnxruntime"])
    said = cells(named, base).left_out
    assert any("ONNX Runtime" in text and "edgegauge[onnx]" in text for text in said)
    with pytest.raises(InputError, match="can be"):
        cells(both, base)


def test_a_sweep_that_comes_to_nothing_or_to_too_much(base: Path) -> None:
    with pytest.raises(InputError, match="no cell") as caught:
        cells(a_sweep(depth=[1_000_000]), base)
    assert "tokens are more than" in str(caught.value)
    with pytest.raises(InputError, match="100000 cells are more than"):
        cells(a_sweep(prompt_tokens=list(range(1, 1001)), depth=list(range(100))), base)
    with pytest.raises(InputError) as caught:
        a_sweep(threads=[0], depth=[-1], power=9, prompt_tokens=[])
    assert all(key in str(caught.value) for key in ("threads", "depth", "power", "prompt_tokens"))


def test_a_tflite_file_has_room_for_the_largest_cell(base: Path, measuring: StandIn) -> None:
    make_folder(base / "small", "llama", context=4096)
    asked = 'models = ["small"]\nrecipes = ["int8"]\nformats = ["tflite"]\nruns = 1\n'
    swept(base, asked + "depth = [0, 1400]\n")
    (folder,) = (base / "out" / "artifacts").iterdir()
    manifest = open_artifact(folder).manifest
    assert manifest is not None and manifest.context == 1400 + 128 + 64
    assert len(measuring.measured) == 2


def test_estimates_learn_from_cells_of_like_size(base: Path) -> None:
    sweep = a_sweep(prompt_tokens=[8, 9, 200, 201], generated_tokens=4, repetitions=1000)
    small, like_small, large, like_large = cells(sweep, base).cells
    assert guess_s(small) < guess_s(like_small) < guess_s(large)
    pace = Pace()
    assert pace.seconds(small) == guess_s(small)
    result = measured_result([1.0])  # three rounds of 1.01 + 10 s, and a fourth to warm up
    result.samples[0].rounds[:] = [
        timed.model_copy(update={"start_s": 100.0 + 11.01 * index})
        for index, timed in enumerate(result.samples[0].rounds)
    ]
    assert took_s(result) == pytest.approx(1.5 + 0.01 + 4 * 11.01, rel=0.01)
    pace.add(small, result)
    slower = took_s(result) / guess_s(small)
    assert pace.seconds(like_small) == pytest.approx(slower * guess_s(like_small))
    for _ in range(4):
        pace.add(large, documents.Result(**dict(result) | {"samples": []}))  # no time at all
    assert pace.seconds(like_large) == 0


def command(base: Path, *options: str) -> Result:
    asked = ["sweep", str(base / "sweep.toml"), "-o", str(base / "out"), *options]
    return CliRunner().invoke(root, asked, standalone_mode=False)


def test_the_command_tells_progress_table_and_document(base: Path, measuring: StandIn) -> None:
    (base / "sweep.toml").write_text(TEXT.replace('"other"]', '"other", "absent"]'))
    done = command(base, "--json")
    assert done.return_value == 0, done.output
    assert json.loads(done.stdout) == json.loads((base / "out" / "sweep.json").read_text())
    lines = done.stderr.splitlines()
    assert lines.pop(0).startswith("warning: no absent cells: ")  # before anything runs
    assert lines[0].startswith("  1/8  convert small q8_0 gguf  about ")
    assert any("  8/8  other f16 gguf, llama.cpp, 2 threads, 8 tokens at depth 0" in line
               for line in lines)  # fmt: skip
    assert all("left, by estimate" in line for line in lines[:-1])
    table = command(base)
    rows = [line for line in table.stdout.splitlines() if "llama.cpp" in line]
    assert len(rows) == 8 and "10 tok/s" in rows[0]


@pytest.mark.parametrize(
    "spoil,status",
    [
        (lambda it: setattr(it, "trustworthy", False), 4),
        (lambda it: it.errors.update({("small-f16", 1): MeasurementError("no")}), 1),
        (lambda it: it.errors.update({("small-f16", 1): RunTimeout("late")}), 124),
        (lambda it: it.errors.update({("small-f16", 1): RunTimeout("late"),
                                      ("small-f16", 2): MeasurementError("no")}), 1),
    ],
)  # fmt: skip
def test_exit_statuses(
    base: Path, measuring: StandIn, spoil: Callable[[StandIn], None], status: int
) -> None:
    spoil(measuring)
    assert command(base).return_value == status
    assert command(base).return_value == status  # of what is finished too


def test_a_dry_run_lists_the_cells_and_touches_nothing(base: Path, measuring: StandIn) -> None:
    cold = json.loads(command(base, "--dry-run", "--json").stdout)
    assert not (base / "out").exists() and not measuring.measured
    assert len(cold["cells"]) == 8 and not any(cell["measured"] for cell in cold["cells"])
    assert cold["seconds"] == pytest.approx(sum(cell["seconds"] for cell in cold["cells"]))
    assert cold["seconds"] > 4 * 5  # four conversions
    measuring.errors["small-f16", 2] = MeasurementError("no")
    command(base)
    warm = json.loads(command(base, "--dry-run", "--json").stdout)
    assert [cell["cell"] for cell in warm["cells"] if not cell["measured"]] == [
        "small f16 gguf, llama.cpp, 2 threads, 8 tokens at depth 0"
    ]
    assert 0 < warm["seconds"] < cold["seconds"] / 4
    text = command(base, "--dry-run").stdout
    assert "8 cells, about" in text and "measured" in text


def test_the_results_make_a_page(base: Path, measuring: StandIn) -> None:
    swept(base)
    for path in (base / "out", base / "out" / "results"):
        (chapter,) = gather([path])
        assert len(chapter.results) == 8
    write_page([chapter], base / "page.html")
    page = (base / "page.html").read_text().partition("Every configuration")[2]
    for artifact in ("small q8_0", "small f16", "other q8_0", "other f16"):
        assert f"{artifact}, 1 thread" in page and f"{artifact}, 2 threads" in page


def test_a_killed_sweep_goes_on_and_measures_nothing_twice(base: Path) -> None:
    loader = SourceFileLoader("kill_sweep", str(SCRIPT))
    spec = spec_from_loader("kill_sweep", loader)
    assert spec is not None
    script = module_from_spec(spec)
    sys.modules["kill_sweep"] = script  # dataclasses look there
    loader.exec_module(script)
    text = TEXT.replace("[8]", "[8]\nruns = 1\nrepetitions = 1")
    (base / "sweep.toml").write_text(text.replace(', "other"', "").replace(', "f16"', ""))
    account = script.run(base, "out", [1])
    assert account.status in (0, 4), account.output
    rows = json.loads(account.output)["cells"]
    assert [row["threads"] for row in rows] == [1, 2]
    assert sorted(row["result"] for row in rows) == [f"results/{n}" for n in account.results]
    assert len(account.results) == 2 and not account.changed
    assert 2 <= account.measured <= 3
