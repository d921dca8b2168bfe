"""The trained ladder answers alike through llama.cpp, ONNX Runtime and LiteRT."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from edgegauge import ladder
from edgegauge.convert import converter_for, prepare
from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import AccuracyResult, paired_difference

pytest.importorskip("llama_cpp")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

FORMATS = ("gguf", "onnx", "tflite")
ROWS = 200


def accuracies(recipe: str, folder: Path) -> list[AccuracyResult]:
    """The smallest model's first ROWS answers in each format."""
    found = []
    for file_format in FORMATS:
        job = prepare(str(ladder.path() / ladder.MODELS[0]), recipe, file_format)
        artifact = converter_for(file_format).convert(
            job.into(folder / file_format), lambda done, note: None
        )
        result = evaluate(artifact, task=ladder.path() / "evaluation.jsonl", limit=ROWS)
        assert result.accuracy is not None
        found.append(result.accuracy)
    return found


def test_exact_weights_give_the_same_answers_in_every_runtime(tmp_path: Path) -> None:
    said = [[item.got for item in each.items] for each in accuracies("f32", tmp_path)]
    assert len(said[0]) == ROWS
    for one, other in combinations(said, 2):
        assert sum(a != b for a, b in zip(one, other, strict=True)) <= 2


def test_eight_bits_cost_the_same_in_every_runtime(tmp_path: Path) -> None:
    found = accuracies("int8", tmp_path)
    for one, other in combinations(found, 2):
        assert not paired_difference(one, other).certain
        assert one.exact_match.least <= other.exact_match.value <= one.exact_match.most
