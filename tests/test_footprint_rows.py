"""The predicted memory against measured processes and published cells: scripts/validate_memory."""

from __future__ import annotations

import pytest
from changed_profiles import spec_of
from loaded_script import loaded_script

from edgegauge.artifact import Origin
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.memory_litert import graph_operations
from edgegauge.recipe import resolve


@pytest.fixture(scope="module")
def script():
    return loaded_script("validate_memory")


def test_buffers_of_every_published_cell(script):
    """Weights, repacked copy, cache and compute buffer of 78 cells, to the digits published."""
    found, unknown = script.cells()
    assert len(found) == 78 and unknown.total() == 86
    assert {cell.quant for cell in found} >= {"iq1_s", "q2_k", "q3_k_m", "q4_0", "q6_k", "q8_0"}
    for cell in found:
        assert max(map(abs, cell.errors().values())) < 1e-4, (cell.model, cell.quant)


@pytest.fixture(scope="module")
def here(script):
    """The module that measures."""
    return script.memory_here


@pytest.mark.parametrize("file_format", ["gguf", "onnx", "tflite"])
def test_processes_are_within_3_percent_or_10_mb(here, file_format):
    rows = [row for row in here.stored_rows() if row.format == file_format]
    assert len({here.row_key(row) for row in rows}) == len(rows) == 72
    assert {row.model for row in rows} == set(here.MODELS)
    outside = [
        (row.model, row.recipe, row.depth_tokens, f"{row.error:+.1%}") for row in rows
        if abs(row.more_bytes) > max(10e6, 0.03 * row.measured_bytes)
    ]  # fmt: skip
    assert len(outside) <= 0.02 * len(rows), outside
    assert sum(abs(row.error) <= 0.03 for row in rows) >= 0.9 * len(rows)


def test_only_what_is_missing_is_measured(here, monkeypatch, tmp_path):
    rows = here.stored_rows()
    known = [row for row in rows if row.format == "onnx" and row.model == "stories42m"]
    removed = known.pop(3)
    asked = []

    def measured(file_format, model, recipe, path, prompt, depth):
        asked.append((file_format, model, recipe, prompt, depth))
        return removed

    monkeypatch.setattr(here, "_measured", measured)
    for row in here.missing_rows("onnx", ["stories42m"], known):
        here.append(row, tmp_path / "rows.csv")
    assert asked == [here.row_key(removed)]
    assert here.stored_rows(tmp_path / "rows.csv") == [removed]


def test_the_page_has_the_errors_of_today(script):
    page = script.DOCS.read_text("utf-8")
    assert script.with_report(page) == page, "run scripts/validate_memory --write"


SMALL = {"layers": 3, "hidden": 64, "intermediate": 96, "heads": 4, "kv_heads": 2, "head_dim": 16,
         "vocab": 320, "context": 512}  # fmt: skip


@pytest.mark.parametrize("base", ["smollm2-135m", "qwen2.5-0.5b", "qwen3-0.6b", "gemma-3-270m"])
@pytest.mark.parametrize("recipe", ["int8", "int4"])
def test_operations_of_a_graph(tmp_path, base, recipe):
    """What is predicted of a graph is what the converter writes, but for 5 %."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    spec = spec_of(base).model_copy(update={"id": "small", **SMALL})
    asked = ConversionJob(
        spec=spec, folder=None, origin=Origin(kind="catalog", reference=base, synthetic=True),
        recipe=resolve(recipe, "tflite"), output=tmp_path,
    )  # fmt: skip
    path = converter_for("tflite").convert(asked, lambda done, note: None).path
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graphs = [model.Subgraphs(i).OperatorsLength() for i in range(model.SubgraphsLength())]
    graphs = [operations for operations in graphs if operations > 3]  # the others choose a span
    predicted = len(graphs) * graph_operations(spec, row_scales=recipe == "int8")
    assert sum(graphs) == pytest.approx(predicted, rel=0.05)
