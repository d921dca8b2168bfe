"""What the page is made from: run folders and loose files, joined by artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_results import evaluation, figure, merged, result, summary

from edgegauge.document import write_json
from edgegauge.errors import InputError
from edgegauge.report import load
from edgegauge.report.chapter import Chapter
from edgegauge.report.summary import RunSummary


def test_results_of_one_artifact_become_one_row() -> None:
    found = merged([result("a"), result("b")], [evaluation("b"), evaluation("a", correct=9)])
    assert len(found) == 1 and found[0].warnings == []
    rows = {r.model: r.figures for r in found[0].measured}
    assert {m: f.quality and f.quality.value for m, f in rows.items()} == {"a": 0.9, "b": 0.8}
    assert rows["a"].decode_tok_per_s == figure(10.0, "tok/s")
    assert rows["a"].ttft_s == figure(0.3, "s")  # too few for a percentile: the largest seen
    assert found[0].host == {"cpu_model": "Imagined CPU"} and not found[0].budget


def test_the_newest_result_wins_and_other_machines_are_kept_apart() -> None:
    later = result("a", 20.0, created="2026-02-01T00:00:00+00:00")
    elsewhere = result("a", 5.0, host={"cpu_model": "Other"})
    alone = evaluation("c")
    found = merged([later, result("a", 10.0), elsewhere], [alone])
    speeds = [s.measured[0].figures.decode_tok_per_s for s in found]
    assert [f and f.value for f in speeds] == [20.0, 5.0, None]
    assert found[0].warnings == ["a: measured more than once; the newest is shown"]
    assert found[2].measured[0].figures.quality == figure(0.8, "1")


def test_figures_that_do_not_compare_are_told() -> None:
    other = result("b").workload.model_copy(update={"prompt_tokens": 7})
    doubtful = result("b", workload=other, warnings=["it was hot"])
    warnings = merged([result("a"), doubtful], [])[0].warnings
    assert warnings[0] == "b: it was hot" and "same workload" in warnings[1]


def test_an_imported_result_without_a_hash_is_a_row_of_its_own() -> None:
    bare = result("a").artifact.model_copy(update={"sha256": None})
    (found,) = merged([result("a"), result("a", artifact=bare)], [])
    assert len(found.measured) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a result file"),
        ("[1]", "expected a JSON object"),
        ('{"samples": []}', "problems in"),
        ('{"explanation": "x", "title": 5', "not valid JSON"),
    ],
)
def test_what_is_no_result_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load.gather([path])
    with pytest.raises(InputError, match="nothing to report"):
        load.gather([tmp_path.joinpath("empty").mkdir() or tmp_path / "empty"])


def test_a_summary_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, summary().model_dump(mode="json"))
    assert load.gather([path]) == [Chapter(summary())]
    assert RunSummary.model_validate(json.loads(path.read_text())) == summary()
