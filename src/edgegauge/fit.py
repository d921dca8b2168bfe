"""Fitting: every candidate predicted for one device and judged against a budget.

    candidates = candidates_of(["int8", "int4"], ["gguf", "onnx"])
    report = fit(load("raspberry-pi-5-8gb"), subjects, candidates.stored, Budget())
    report.choice.recommended
    report.to_json()                    # the document of `edgegauge fit --json`

Without a memory limit in the budget, the limit is what the device lets one application use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgegauge.battery import BATTERY_FIGURES
from edgegauge.budget import DEFAULT_METRIC, Budget, merge
from edgegauge.catalog import CatalogEntry
from edgegauge.choose import Candidate, Choice, Verdict, choose, explain
from edgegauge.device import DeviceProfile
from edgegauge.figure import Figure
from edgegauge.model import ModelSpec
from edgegauge.predict import DEFAULT_PROMPT_TOKENS, RUNTIMES, Prediction, Predictor
from edgegauge.recipe import resolve_each
from edgegauge.usage import Usage

FORMATS = tuple(RUNTIMES)

Recipes = Mapping[str, Sequence[str]]
"""What each format is tried with, under the names that `recipe.resolve` gives."""

DEFAULT_RECIPES: Recipes = {
    "gguf": ("q8_0", "q4_0", "q4_k_m"),
    "onnx": ("int8", "int4"),
    "tflite": ("int8", "int4"),
}
"""INT8 and INT4, of which GGUF has two."""


def recipes_for(
    formats: Sequence[str], recipes: Sequence[str] | None = None
) -> tuple[Recipes, list[str]]:
    """The recipes named in every format that has them (None: the usual ones), and sentences on what
    is left out. InputError for a recipe that none of the formats has."""
    if recipes is None:
        return {f: DEFAULT_RECIPES[f] for f in formats}, []
    found: dict[str, dict[str, None]] = {f: {} for f in formats}
    left_out: list[str] = []
    for name in recipes:
        resolved, refusals = resolve_each(name, formats)
        for file_format, recipe in resolved.items():
            found[file_format][recipe] = None
        left_out += refusals.values()
    return {f: tuple(names) for f, names in found.items()}, left_out


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to judge, and its published score on the metric in force, if it has one."""

    spec: ModelSpec
    quality: Figure | None = None


@dataclass(frozen=True, slots=True)
class FitReport:
    """Predictions and the choice among them, in the same order."""

    device: DeviceProfile
    budget: Budget
    metric: str
    predictions: list[Prediction]
    choice: Choice
    usage: Usage
    """What the battery figures count."""

    def rows(self) -> list[tuple[Prediction, Verdict]]:
        """Predictions with their verdicts: those that pass by size, then the rest by size."""
        pairs = zip(self.predictions, self.choice.verdicts, strict=True)
        return sorted(pairs, key=lambda p: (not p[1].passes, p[0].file_bytes, p[1].candidate.key))

    def to_json(self) -> dict[str, Any]:
        """The document of design contract 4, candidates in the order of `rows`."""
        best = self.choice.recommended
        return {
            "format": 1,
            "device": self.device.id,
            "usage": self.usage.model_dump(mode="json"),
            "candidates": [self._candidate(p, v) for p, v in self.rows()],
            "recommended": best and {
                "model": best.model, "recipe": best.recipe, "format": best.format,
                "file_bytes": best.file_bytes,
            },
        }  # fmt: skip

    def _candidate(self, prediction: Prediction, verdict: Verdict) -> dict[str, Any]:
        candidate = verdict.candidate
        battery = prediction.battery
        names = (
            "decode_tok_per_s", "prefill_tok_per_s", "ttft_s", "peak_memory_bytes",
            "needed_memory_bytes", "energy_j_per_token", "quality",
        )  # fmt: skip
        return {
            "model": candidate.model,
            "recipe": candidate.recipe,
            "format": candidate.format,
            "passes": verdict.passes,
            "broken": [
                {"limit": b.limit, "required": b.required, "figure": _json(b.figure)}
                for b in verdict.broken
            ],
            "uncertain": verdict.uncertain,
            "reason": explain(verdict),
            "outcome": prediction.outcome,
            "parameters": candidate.parameters,
            "effective_bits": round(candidate.effective_bits, 3),
            "file_bytes": _json(candidate.figure("file_bytes")),
            **{name: _json(candidate.figure(name)) for name in names},
            "battery": battery and {name: _json(figure) for name, figure in battery.items()},
            "frontier": candidate.key in self.choice.frontier,
        }


def _json(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else figure.to_json()


def fit(
    device: DeviceProfile,
    subjects: Iterable[Subject],
    recipes: Recipes = DEFAULT_RECIPES,
    budget: Budget | None = None,
    *,
    metric: str = DEFAULT_METRIC,
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
    context: int | None = None,
    usage: Usage | None = None,
) -> FitReport:
    """Predict and judge every subject in each format at its recipes; InputError as `predict`."""
    limits = within_device(budget or Budget(), device)
    predictor = Predictor(device, prompt_tokens=prompt_tokens, context=context, usage=usage)
    predictions, candidates = [], []
    for subject in subjects:
        for file_format, names in recipes.items():
            for recipe in names:
                prediction = predictor.predict(subject.spec, recipe, file_format)
                predictions.append(prediction)
                candidates.append(candidate_of(prediction, subject.quality))
    return FitReport(
        device, limits, metric, predictions, choose(candidates, limits), predictor.usage
    )


def within_device(budget: Budget, device: DeviceProfile) -> Budget:
    """The budget with the device's own memory as its limit, unless it has a smaller one."""
    there = int(device.app_memory_bytes)
    return merge(budget, {"memory": min(budget.memory or there, there)})


def candidate_of(prediction: Prediction, quality: Figure | None = None) -> Candidate:
    """A prediction as something to choose from."""
    return Candidate(
        model=prediction.model,
        recipe=prediction.recipe,
        format=prediction.file_format,
        parameters=prediction.parameters,
        file_bytes=prediction.file_bytes,
        effective_bits=prediction.effective_bits,
        figures=_Figures(prediction, quality),
    )


_PREDICTED = frozenset({
    "decode_tok_per_s", "prefill_tok_per_s", "ttft_s", "peak_memory_bytes",
    "needed_memory_bytes", "energy_j_per_token",
})  # fmt: skip


class _Figures(NamedTuple):
    """A prediction's figures by their names in `choose.Candidate`. Those of the battery cost more
    than all others together and few candidates are asked for them, so they are made then."""

    prediction: Prediction
    quality: Figure | None

    def get(self, name: str, /) -> Figure | None:
        """The figure of this name; None where there is none."""
        if name in _PREDICTED:
            figure: Figure | None = getattr(self.prediction, name)
            return figure
        if name in BATTERY_FIGURES:
            return (self.prediction.battery or {}).get(BATTERY_FIGURES[name])
        return self.quality if name == "quality" else None


def published_quality(entry: CatalogEntry, metric: str) -> Figure | None:
    """The entry's published score on `metric`, or None.

    A metric is a benchmark, with the shots where they matter: `avg8_0shot`, `MMLU_5shot`, `MMLU`.
    The first one found counts where several publishers measured it. The score is that of the
    weights as published: what quantisation costs is not in it. Losses are no quality to set a floor
    on, so `val_loss` counts as None.
    """
    benchmark, _, shots = metric.partition("_")
    for score in entry.scores:
        named = score.benchmark.lower() == benchmark.lower() and score.metric != "val_loss"
        if named and shots in ("", "" if score.shots is None else f"{score.shots}shot"):
            source = f"{metric}, {score.source}; of the weights as published, not quantised"
            return Figure(score.value, "%", "stated", source)
    return None
