"""Shapes: what is found passes, one layer more does not, and our own reader takes the config."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgegauge import catalog
from edgegauge.budget import Budget, QualityFloor
from edgegauge.choose import verdict
from edgegauge.device import load
from edgegauge.fit import candidate_of, within_device
from edgegauge.predict import Predictor, predict
from edgegauge.read_config import spec_from_folder
from edgegauge.shapes import (
    DEEP_UP_TO,
    FFN_RATIOS,
    GROUPS,
    Shape,
    Wish,
    config_of,
    search,
    stored_layers,
    templates,
)

PI = load("raspberry-pi-5-4gb")
LIMITS = within_device(Budget(decode_tok_per_s=40), PI)
WISH = Wish(recipe="q4_0", context=1024)


@pytest.fixture(scope="module")
def found() -> list[Shape]:
    return search(PI, LIMITS, WISH)


def test_every_shape_passes_and_one_more_layer_does_not(found: list[Shape]) -> None:
    assert len(found) > 5
    for shape in found:
        assert shape.verdict.passes and shape.rate >= 40
        more = shape.spec.layers + 1
        deeper = shape.spec.model_copy(update={"id": "deeper", "layers": more})
        prediction = predict(PI, deeper, "q4_0", context=1024)
        passes = verdict(candidate_of(prediction), LIMITS).passes
        assert not passes or shape.spec.layers == stored_layers(shape.spec.hidden, WISH)[1]


def test_the_frontier_trades_parameters_for_speed(found: list[Shape]) -> None:
    sizes = [shape.spec.body_parameters for shape in found]
    rates = [shape.rate for shape in found]
    assert sizes == sorted(sizes, reverse=True) and rates == sorted(rates)
    assert len(set(sizes)) == len(sizes)


def test_no_shape_of_the_grid_is_larger(found: list[Shape]) -> None:
    """A grid search without bisection over a part of the grid."""
    best = found[0].spec.body_parameters
    predictor = Predictor(PI, context=1024)
    tried = 0
    for template in templates(WISH):
        low, high = stored_layers(template.hidden, WISH)
        for layers in range(low, high + 1, 9):
            name = f"{template.id} {layers}"
            spec = template.model_copy(update={"id": name, "layers": layers})
            if template.hidden <= 1024 and best < spec.body_parameters < 2 * best:
                tried += 1
                prediction = predictor.predict(spec, "q4_0", "gguf")
                assert not verdict(candidate_of(prediction), LIMITS).passes
    assert tried > 20


def test_sharing_and_a_head_of_its_own_cost_what_they_cost(found: list[Shape]) -> None:
    shared = search(PI, LIMITS, replace(WISH, layer_repeats=2))
    assert shared[0].spec.body_parameters < found[0].spec.body_parameters
    assert shared[0].spec.layer_repeats == 2
    own = search(PI, LIMITS, replace(WISH, tied=False))
    assert own[0].prediction.file_bytes > found[0].prediction.file_bytes


def test_nothing_fits_and_quality_is_nobodys() -> None:
    impossible = LIMITS.model_copy(update={"decode_tok_per_s": 1e6})
    assert search(PI, impossible, WISH) == []
    floor = LIMITS.model_copy(
        update={"quality": QualityFloor(at_least=45), "file_size": 30_000_000}
    )
    assert search(PI, floor, WISH)[0].verdict.metric is None


PUBLISHED = (
    "smollm2-135m", "smollm2-360m", "smollm2-1.7b", "mobilellm-125m", "mobilellm-350m",
    "mobilellm-600m", "mobilellm-1b", "llama-3.2-1b", "llama-3.2-3b", "qwen2.5-0.5b",
    "qwen3-0.6b", "tinyllama-1.1b-intermediate-step-1431k-3t",
)  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_grid_is_where_published_decoders_are(model: str) -> None:
    spec = catalog.load()[model].spec
    low, high = stored_layers(spec.hidden, WISH)
    assert low <= spec.layers <= high
    assert 2.6 <= spec.intermediate / spec.hidden <= 5.5
    assert min(FFN_RATIOS) > 2.6 and max(FFN_RATIOS) < 5.5
    if spec.hidden <= DEEP_UP_TO:
        assert spec.hidden / spec.layers <= 48
    assert spec.heads // spec.kv_heads in {*GROUPS, 2, 7}


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"layer_repeats": 2}])
def test_our_reader_takes_the_config_back(changes: dict[str, object], tmp_path: Path) -> None:
    wish = replace(WISH, **changes)  # type: ignore[arg-type]
    for template in list(templates(wish))[::25]:
        (tmp_path / "config.json").write_text(json.dumps(config_of(template)))
        assert spec_from_folder(tmp_path, template.id) == template
