"""`edgegauge compare` and `edgegauge import`: their documents, tables and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_results import measured_result
from test_compare import graph
from test_llama_bench_import import bench

from edgegauge.cli import main
from edgegauge.document import write_json
from edgegauge.report.load import gather
from edgegauge.result import Result, read_result


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def saved(path: Path, result: Result) -> Path:
    write_json(path, result.model_dump(mode="json"))
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {
        "a": measured_result([10.0, 10.01, 10.02]),
        "fast": measured_result([20.0, 20.1, 19.9]),
        "noisy": measured_result([8.0, 10.0, 12.0]),
        "other": measured_result([10.0, 10.1, 9.9], host={"cpu_model": "Other"}),
    }
    return {name: saved(tmp_path / f"{name}.json", result) for name, result in made.items()}


def test_the_table_says_what_is_faster_and_what_nobody_can_tell(capsys, files) -> None:
    status, out, err = run(capsys, "compare", files["a"], files["fast"], files["noisy"])
    assert (status, err) == (0, "")
    decode = [line.split() for line in out.splitlines() if line.startswith("decode")]
    assert decode[0][-1] == "faster" and "1.998" in decode[0]
    assert "cannot tell (about" in out and "runs of each would)" in out
    assert "not compared: not measured in both" in out
    assert "within 2 % of 1" in out


def test_the_document(capsys, files) -> None:
    status, out, err = run(
        capsys, "compare", files["a"], files["fast"], "--json", "--threshold", "0.5%"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["format"], found["threshold"]) == (1, 0.005)
    (comparison,) = found["comparisons"]
    rows = {row["name"]: row for row in comparison["rows"]}
    assert set(rows["decode_tok_per_s"]["ratio"]) == {
        "value", "unit", "kind", "source", "low", "high"
    }  # fmt: skip
    assert rows["decode_tok_per_s"]["verdict"] == "faster"
    assert rows["energy_j_per_token"]["ratio"] is None and rows["energy_j_per_token"]["reason"]


def test_other_conditions_are_an_error_that_names_them_all(capsys, files) -> None:
    status, out, err = run(capsys, "compare", files["a"], files["fast"], files["other"])
    assert (status, out) == (1, "")
    assert "host.cpu_model: Imagined CPU and Other" in err and "--force" in err
    status, out, err = run(capsys, "compare", files["a"], files["other"], "--force", "--json")
    assert status == 0 and "not the same conditions" in err
    (comparison,) = json.loads(out)["comparisons"]
    assert comparison["differences"] == ["host.cpu_model: Imagined CPU and Other"]


@pytest.mark.parametrize("threshold", ["x", "-1", "2%%", "1e9", "1000%"])
def test_a_threshold_that_is_none(capsys, files, threshold) -> None:
    status, _, err = run(
        capsys, "compare", files["a"], files["fast"], f"--threshold={threshold}"
    )  # fmt: skip
    assert status == 2 and "is no share" in err


def test_what_holds_no_figures(capsys, files, tmp_path) -> None:
    result = json.loads(files["a"].read_text())
    for key in ("samples", "summary", "trustworthy", "energy", "imported"):
        del result[key]
    result["failures"] = [{"run": 0, "phase": "load", "kind": "killed", "reason": "signal 9"}]
    failed = tmp_path / "failed.json"
    failed.write_text(json.dumps(result))
    status, _, err = run(capsys, "compare", files["a"], failed)
    assert status == 1 and "signal 9" in err
    status, _, err = run(capsys, "compare", files["a"], tmp_path / "none.json")
    assert status == 1 and "cannot read" in err


def test_rows_of_llama_bench_are_imported_compared_and_reported(capsys, tmp_path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [bench(128, 0), bench(0, 64, 128), bench(512, 128)] * 3
    rows.write_text("\n".join(json.dumps(line) for line in lines))
    status, out, err = run(
        capsys, "import", "llama-bench", rows, "-o", tmp_path / "made", "--json"
    )  # fmt: skip
    assert status == 0 and "timed together" in err
    document = json.loads(out)
    (path,) = document["files"]
    assert len(document["left_out"]) == 3
    imported = read_result(Path(path))
    ours = measured_result(
        [300.0, 301.0, 302.0], host={"cpu_model": imported.host["cpu_model"]},
        workload=imported.workload,
    )  # fmt: skip
    status, out, _ = run(capsys, "compare", saved(tmp_path / "a.json", ours), path)
    assert status == 0 and "faster" in out and "random tokens" in out
    assert gather([Path(path)])[0].summary.measured[0].figures.decode_tok_per_s is not None
    status, out, err = run(capsys, "import", "llama-bench", rows, "-o", tmp_path / "made")
    assert status == 0 and "128 + 64 tokens at depth 0" in out and path in err


def test_graphs_compare_with_graphs_only(capsys, files, tmp_path) -> None:
    made = [graph([0.1, 0.1, 0.101]), graph([0.3, 0.3, 0.301])]
    paths = [tmp_path / f"g{i}.json" for i in range(2)]
    for path, result in zip(paths, made, strict=True):
        write_json(path, result.model_dump(mode="json"))
    status, out, _ = run(capsys, "compare", *paths)
    assert status == 0 and "slower" in out and "g.onnx, 3 runs" in out
    status, _, err = run(capsys, "compare", paths[0], files["a"])
    assert status == 1 and "one is of a language model and the other is not" in err


def test_what_cannot_be_imported(capsys, tmp_path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([bench(128, 0)]))
    status, out, err = run(capsys, "import", "llama-bench", rows, "-o", tmp_path)
    assert (status, out) == (1, "")
    assert "nothing to join pp128 with" in err and "hint: llama-bench -m FILE" in err
