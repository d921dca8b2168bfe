"""From result files to the answer: which figure a limit is checked against, and when to doubt."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_results import evaluation, figure, metered, result

from edgegauge.artifact import Artifact, ArtifactFile, Manifest, Origin
from edgegauge.budget import Budget, QualityFloor
from edgegauge.catalog import load
from edgegauge.plan import Plan, PlanPrediction
from edgegauge.result import Percentiles
from edgegauge.summarise import Outcome, candidate_of, predicted, summarise


def outcome(name: str, size: int = 1000, *, trustworthy: bool = True, correct: int = 8) -> Outcome:
    manifest = Manifest(
        model=name,
        spec=load()["smollm2-135m"].spec,
        recipe="q8_0",
        file_format="gguf",
        files=[ArtifactFile(name=f"{name}.gguf", bytes=size, sha256="0" * 64)],
        tensor_bytes=size,
        effective_bits=8.5,
        origin=Origin(kind="folder", reference=name),
        tools={},
        created="2026-01-02T03:04:05+00:00",
    )
    artifact = Artifact(Path(f"{name}.gguf"), manifest)
    measured = result(name, 10.0, trustworthy=trustworthy, warnings=["noisy"])
    return Outcome(name, "q8_0", "gguf", artifact, measured, evaluation(name, correct))


def plan(**limits: object) -> Plan:
    return Plan(title="t", models=["m"], recipes=["q8_0"], budget=Budget.model_validate(limits))


def test_a_latency_limit_is_checked_against_the_worst_that_is_known() -> None:
    p50, p99, most = figure(1.0, "s"), figure(3.0, "s"), figure(4.0, "s")
    assert Percentiles(p50=p50, p99=p99, max=most, samples=400).tail == p99
    assert Percentiles(p50=p50, max=most, samples=9).tail == most
    assert Percentiles(p50=p50, samples=1).tail == p50


def test_quality_counts_only_on_the_metric_that_was_measured() -> None:
    assert candidate_of(outcome("a"), "exact_match").figure("quality") is not None
    assert candidate_of(outcome("a"), "avg8_0shot").figure("quality") is None


def test_battery_limits_are_checked_against_what_was_measured() -> None:
    lasting = Outcome(
        "a", "q8_0", "gguf", outcome("a").artifact, metered("a", 0.35), evaluation("a")
    )
    short = Outcome("b", "q8_0", "gguf", outcome("b").artifact, metered("b", 0.7), evaluation("b"))
    found = summarise(plan(battery_h=2.5), [short, lasting, outcome("c")], [])
    assert found.recommended is not None and found.recommended.model == "a"
    reasons = {row.model: row.reason for row in found.measured}
    assert reasons["b"] == "lasts 1.79 h on battery, 2.5 h required"
    assert reasons["c"] == "battery time is not known"
    figures = found.measured[0].figures
    assert figures.tokens_per_charge and figures.added_drain_percent_per_hour
    assert len(found.energy_notes) == 1 and "grade C" in found.energy_notes[0]


def test_the_smallest_that_passes_is_recommended_and_failures_come_last() -> None:
    outcomes = [
        outcome("large", 3000, correct=9),
        Outcome("lost", "q8_0", "gguf", failure="no such file"),
        outcome("small", 1000, correct=5),
        outcome("middle", 2000, correct=8),
    ]
    floor = QualityFloor(metric="exact_match", at_least=0.75)
    found = summarise(plan(quality=floor.model_dump()), outcomes, [])
    assert [row.model for row in found.measured] == ["small", "middle", "large", "lost"]
    assert found.recommended is not None and found.recommended.model == "middle"
    assert found.measured[-1].reason == "not finished: no such file"
    assert found.warnings == ["large (gguf), small (gguf), middle (gguf): noisy"]


@pytest.mark.parametrize(
    "limit,trustworthy,believed",
    [(10.1, False, False), (10.1, True, True), (5.0, False, True), (20.0, False, True)],
)
def test_a_disturbance_matters_only_where_it_leaves_a_limit_open(
    limit: float, trustworthy: bool, believed: bool
) -> None:
    # The sample decodes at 10 tok/s, with an interval of 4 % to both sides.
    found = summarise(
        plan(decode_tok_per_s=limit), [outcome("a", trustworthy=trustworthy)], []
    )  # fmt: skip
    assert found.trustworthy is believed


def test_a_device_that_is_not_here_is_predicted_in_every_format() -> None:
    asked = PlanPrediction(device="raspberry-pi-5-8gb", models=["smollm2-135m"])
    ways = [(c.format, c.recipe) for c in predicted(asked, Path()).candidates]
    assert sorted(ways) == [
        ("gguf", "q4_0"), ("gguf", "q4_k_m"), ("gguf", "q8_0"),
        ("onnx", "int4"), ("onnx", "int8"), ("tflite", "int4"), ("tflite", "int8"),
    ]  # fmt: skip


def test_what_a_prediction_leaves_out_is_a_warning() -> None:
    asked = {"device": "raspberry-pi-5-8gb", "models": ["smollm2-135m"],
             "formats": ["gguf", "onnx"], "recipes": ["int8", "q4_0"]}  # fmt: skip
    chosen = predicted(PlanPrediction.model_validate(asked), Path()).candidates
    assert {(c.format, c.recipe) for c in chosen} == {
        ("gguf", "q8_0"), ("gguf", "q4_0"), ("onnx", "int8"),
    }  # fmt: skip
    both = Plan.model_validate(
        {"title": "t", "models": ["m"], "recipes": ["q8_0"], "predict": [asked, asked]}
    )
    (warning,) = summarise(both, [], []).warnings
    assert warning.startswith("not predicted: onnx has no recipe 'q4_0'")
