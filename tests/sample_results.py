"""Made-up summaries and result files, for the tests of what is made from them."""

from __future__ import annotations

import hashlib
from typing import Any

from edgegauge.battery import battery_of
from edgegauge.device import Battery
from edgegauge.energy import Energy, MeterFacts
from edgegauge.evaluate.result import AccuracyResult, EvaluationResult, Outcome, Source
from edgegauge.figure import Figure
from edgegauge.report import load
from edgegauge.report.summary import (
    BrokenLimit,
    CandidateFigures,
    CandidateKey,
    CandidateRow,
    DeviceFacts,
    DevicePrediction,
    RunSummary,
)
from edgegauge.result import (
    ArtifactFacts,
    MemorySummary,
    Percentiles,
    Result,
    Round,
    Run,
    Summary,
    Tool,
    Workload,
)
from edgegauge.usage import load as load_usage

TOOL = Tool(edgegauge="0.1.0", runtime="llama.cpp", runtime_version="0.3.36")
MODELS = {"small": (1e6, 0.5), "middle": (4e6, 0.8), "large": (16e6, 0.95)}
"""Model: parameters, quality."""
BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}


def figure(value: float, unit: Any, kind: Any = "measured", source: str = "made up") -> Figure:
    """A figure with an interval of 4 % to both sides."""
    return Figure(value, unit, kind, source, value * 0.96, value * 1.04)


def row(model: str, recipe: str, **changes: Any) -> CandidateRow:
    """A candidate whose size, speed and quality follow from its model and recipe."""
    parameters, quality = MODELS.get(model, (2e6, 0.7))
    size = round(parameters * BITS.get(recipe, 8) / 8)
    passes = quality >= 0.75
    made = CandidateRow(
        model=model,
        recipe=recipe,
        format="gguf",
        parameters=int(parameters),
        file_bytes=size,
        effective_bits=BITS.get(recipe),
        passes=passes,
        broken=[]
        if passes
        else [BrokenLimit(limit="quality", required=0.75, figure=figure(quality, "1"))],
        reason="meets every limit" if passes else f"scores {quality}, needs 0.75",
        frontier=recipe != "f16",
        figures=CandidateFigures(
            decode_tok_per_s=figure(1e9 / size, "tok/s"),
            prefill_tok_per_s=figure(9e9 / size, "tok/s"),
            ttft_s=figure(size / 1e8, "s"),
            peak_memory_bytes=figure(size * 2.0, "bytes"),
            quality=Figure(quality, "1", "measured", "exact match", quality - 0.03, quality + 0.03),
        ),
    )
    return made.model_copy(update=changes)


def prediction(**changes: Any) -> DevicePrediction:
    """Forty predicted candidates, the quality of the first without a figure."""
    rows = []
    for index in range(40):
        size = 50_000_000 * (index + 1)
        quality = figure(40.0 + index, "%", "stated", f"card {index}") if index else None
        rows.append(
            CandidateRow(
                model=f"model-{index}",
                recipe="q4_k_m",
                format="gguf",
                file_bytes=size,
                passes=3 <= index < 20,
                reason="meets every limit" if 3 <= index < 20 else "misses one",
                frontier=index % 3 == 0,
                figures=CandidateFigures(
                    decode_tok_per_s=figure(5e9 / size, "tok/s", "predicted", "class prior"),
                    peak_memory_bytes=figure(size * 1.2, "bytes", "predicted", "footprint"),
                    quality=quality,
                ),
            )
        )
    return DevicePrediction(
        device=DeviceFacts(id="board", name="A Board", app_memory_bytes=1.2e9),
        candidates=rows,
        recommended=CandidateKey(model="model-3", recipe="q4_k_m", format="gguf"),
        explanation="model-3 q4_k_m is the smallest that meets every limit",
        budget={"decode_tok_per_s": 5.0, "quality": {"metric": "avg", "at_least": 41.0}},
        quality_metric="avg",
    ).model_copy(update=changes)


def summary(**changes: Any) -> RunSummary:
    """Nine measured candidates, one device, a recommendation."""
    return RunSummary(
        title="Which model?",
        created="2026-01-02T03:04:05+00:00",
        host={"cpu_model": "Imagined CPU", "cores_usable": 4, "memory_total_bytes": 8e9},
        budget={"format": 1, "memory": 50_000_000, "file_size": None, "decode_tok_per_s": 100.0,
                "quality": {"metric": "exact_match", "at_least": 0.75}},
        measured=[row(m, r) for m in MODELS for r in BITS],
        predicted=[prediction()],
        recommended=CandidateKey(model="middle", recipe="q4_0", format="gguf"),
        explanation="middle q4_0 is the smallest that meets every limit.",
        quality_metric="exact_match",
        workload=Workload(threads=2),
        tools={"llama.cpp": "0.3.36"},
    ).model_copy(update=changes)  # fmt: skip


def facts(name: str) -> ArtifactFacts:
    """An artifact named like this, whose hash follows from the name."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return ArtifactFacts(
        name=name, model=name, recipe="q8_0", format="gguf", file_bytes=1000, sha256=sha256
    )


def result(name: str, speed: float = 10.0, **changes: Any) -> Result:
    """A result of `edgegauge measure`."""
    times = Percentiles(p50=figure(0.1, "s"), max=figure(0.3, "s"), samples=5)
    memory = figure(5e7, "bytes")
    return Result(
        tool=TOOL,
        artifact=facts(name),
        host={"cpu_model": "Imagined CPU"},
        workload=Workload(threads=2),
        samples=[],
        summary=Summary(
            prefill_tok_per_s=figure(100.0, "tok/s"),
            decode_tok_per_s=figure(speed, "tok/s"),
            ttft_s=times,
            inter_token_s=times,
            load_s=figure(0.01, "s"),
            memory=MemorySummary(
                peak_rss_bytes=memory, peak_anonymous_bytes=memory, peak_file_bytes=memory
            ),
        ),
        created="2026-01-02T03:04:05+00:00",
    ).model_copy(update=changes)


def measured_result(rates: list[float], peak_bytes: float = 1e8, **changes: Any) -> Result:
    """A result whose runs decode at these rates: three rounds of 10 gaps in each run."""
    runs = [
        Run(
            load_s=0.01,
            rounds=[
                Round(prefill_s=1.0, ttft_s=1.01, inter_token_s=[wobble / rate] * 10)
                for wobble in (0.999, 1.0, 1.001)
            ],
            phases={},
            peak_rss_bytes=round(peak_bytes),
        )
        for rate in rates
    ]
    state = {"governor": "performance", "power_source": "mains"}
    host = {
        "cpu_model": "Imagined CPU", "machine": "x86_64", "cores_usable": 4, "cpu_quota": None,
        "kernel": "6.1.0", "before": state,
    }  # fmt: skip
    made = result("sample", sorted(rates)[len(rates) // 2])
    memory = made.summary.memory.model_copy(update={"peak_rss_bytes": figure(peak_bytes, "bytes")})
    summary = made.summary.model_copy(update={"memory": memory})
    found = {"samples": runs, "host": host, "summary": summary}
    return made.model_copy(update={**found, **changes})


def evaluation(name: str, correct: int = 8, **changes: Any) -> EvaluationResult:
    """A result of `edgegauge evaluate` with ten items."""
    items = [Outcome(index=i, ok=i < correct, got="x") for i in range(10)]
    return EvaluationResult(
        tool=TOOL,
        artifact=facts(name),
        threads=1,
        accuracy=AccuracyResult(
            task=Source(name="t.jsonl", sha256="0" * 64),
            exact_match=figure(correct / 10, "1"),
            correct=correct,
            total=10,
            max_tokens=9,
            sequences=4,
            seconds=1.0,
            items=items,
        ),
        created="2026-01-02T03:05:05+00:00",
    ).model_copy(update=changes)


def energy_of(spread: float = 0.0, **source: Any) -> Energy:
    """A device of 2 W idle that decodes 10 tok/s with 7 W and reads 50 tok/s of prompt with 8 W."""

    def measured(value: float, unit: Any) -> Figure:
        return Figure(value, unit, "measured", "gauge", value * (1 - spread), value * (1 + spread))

    facts = {
        "meter": "battery", "id": "battery:BAT0", "read_from": "/sys/BAT0", "unit": "µW",
        "counter": False, "update_period_s": 1.0, "calibration_share": 0.05,
        "calibration": "uncalibrated gauge", "grade": "C", "whole_device": True,
        "covers": ["whole device"], "excludes": [], **source,
    }  # fmt: skip
    return Energy(
        source=MeterFacts.model_validate(facts),
        windows=[],
        idle_before_w=measured(2, "W"),
        idle_after_w=measured(2, "W"),
        prefill_w=measured(8, "W"),
        decode_w=measured(7, "W"),
        prefill_j_per_token=measured(8 / 50, "J/token"),
        decode_j_per_token=measured(7 / 10, "J/token"),
        net_prefill_j_per_token=measured(6 / 50, "J/token"),
        net_decode_j_per_token=measured(5 / 10, "J/token"),
    )


def metered(name: str, joules: float = 0.7, spread: float = 0.1) -> Result:
    """A result with energy from a gauge of the whole device, and what its battery makes of it."""
    share = joules / 0.7
    energy = energy_of(spread)
    scaled = {
        key: Figure(f.value * share, f.unit, f.kind, f.source, f.least * share, f.most * share)
        for key in (
            "prefill_w", "decode_w", "prefill_j_per_token", "decode_j_per_token",
            "net_prefill_j_per_token", "net_decode_j_per_token",
        )
        if (f := getattr(energy, key))
    }  # fmt: skip
    energy = energy.model_copy(update=scaled)
    capacity: Any = {"value": 15.0, "source": "energy_full_design of BAT0"}
    made = result(name)
    assert made.summary.decode_tok_per_s
    found = battery_of(
        energy, battery=Battery(capacity_wh=capacity, health=0.9), usage=load_usage(),
        decode_tok_per_s=made.summary.decode_tok_per_s,
        prefill_tok_per_s=made.summary.prefill_tok_per_s,
    )  # fmt: skip
    summary = made.summary.model_copy(
        update={"energy_j_per_token": energy.decode_j_per_token, "battery": found.figures}
    )
    return made.model_copy(update={"energy": [energy], "summary": summary})


def merged(results: list[Result], evaluations: list[EvaluationResult]) -> list[RunSummary]:
    """What is made of result files, one summary for each machine and budget."""
    return [chapter.summary for chapter in load.merged(results, evaluations)]
