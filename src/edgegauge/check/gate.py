"""Gates: what `edgegauge check` requires of which candidates on which devices, as one TOML file.

    format = 1
    devices = ["raspberry-pi-5-8gb", "boards/kitchen.toml"]

    [budget]                        # for all; `docs/reference/budget.md`
    decode_tok_per_s = 10

    [device_budget."boards/kitchen.toml"]
    decode_tok_per_s = 4

    [[subject]]
    artifact = "build/*.gguf"       # on disk: its real size, and its quality if asked for

    [[subject]]
    model = "smollm2-135m"          # predicted only
    formats = ["gguf", "onnx"]
    recipes = ["int4"]
    budget = { memory = "300MB" }

    [quality]
    task = "commands.jsonl"
    exact_match_at_least = 0.9

    [[paired]]
    artifact = "build/model.gguf"
    baseline = "released/model.gguf"

    [baseline]                      # compare with the committed figures

A limit of a subject goes before that of a device, and that before `[budget]`. Paths are relative to
the gate's own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgegauge.artifact import FileFormat
from edgegauge.budget import Budget, Positive, merge
from edgegauge.check.paired_statistics import LEAST_PAIRS, MOST_PAIRS
from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(gt=0, le=1_000_000)]

EVALUATED = ("exact_match", "perplexity", "bits_per_byte")
"""Metrics that no one publishes: they are evaluated, as `[quality]` says."""


class Quality(Document):
    """What an artifact is evaluated on, and the floor."""

    task: Text | None = None
    """JSON lines of prompt and answer, for exact match; `ladder:evaluation.jsonl` is bundled."""
    exact_match_at_least: Share | None = None
    """Share of answers that have to be right; needs `task`."""
    text: Text | None = None
    """UTF-8 text, for bits per byte."""
    bits_per_byte_at_most: Positive | None = None
    """Needs `text`."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Only the first items of the task and the first windows of the text."""

    @model_validator(mode="after")
    def _has_files_for_its_floors(self) -> Quality:
        if (self.task is None) != (self.exact_match_at_least is None):
            raise ValueError("task and exact_match_at_least are given together or not at all")
        if (self.text is None) != (self.bits_per_byte_at_most is None):
            raise ValueError("text and bits_per_byte_at_most are given together or not at all")
        if self.task is None and self.text is None:
            raise ValueError("give a task or a text")
        return self


class GateSubject(Document):
    """Artifacts on disk, or a model at recipes of formats."""

    artifact: Text | None = None
    """A model file, a folder that holds one, or a pattern (`build/*.gguf`) that has matches."""
    model: Text | None = None
    """A catalog id, a Hugging Face folder, a config.json or a GGUF file; only predicted."""
    formats: list[FileFormat] = Field(default=[], max_length=3)
    """Of `model`."""
    recipes: list[Text] = Field(default=[], max_length=20)
    """Of `model`; a format that has not got one of them is left out with a warning."""
    devices: list[Text] | None = Field(default=None, min_length=1, max_length=200)
    """Those of the gate's devices that it is judged on; all of them where none are named."""
    budget: Budget = Field(default_factory=Budget)
    """Its own limits, in place of the device's and the gate's."""
    quality: Quality | None = None
    """In place of the gate's."""

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> GateSubject:
        if (self.artifact is None) == (self.model is None):
            raise ValueError("give either artifact or model")
        if (self.model is None) == bool(self.formats and self.recipes):
            raise ValueError("a model needs formats and recipes, and an artifact takes neither")
        if self.model is not None and self.quality is not None:
            raise ValueError(
                "only an artifact can be evaluated; budget.quality is about published scores"
            )
        return self


class Paired(Document):
    """A comparison of speed with a baseline, both measured here side by side."""

    artifact: Text
    """The candidate."""
    baseline: Text | None = None
    """What it is compared with; the same artifact where none is named."""
    baseline_python: Text | None = None
    """The interpreter of another environment, with the runtime to compare with."""
    slower_at_most: Annotated[float, Field(gt=0, lt=1)] = 0.025
    """Share by which a token may take longer than in the baseline; twice as much is noticed."""
    most_pairs: Annotated[int, Field(ge=LEAST_PAIRS, le=MOST_PAIRS)] = 40
    """Pairs of processes after which nobody can tell."""
    prompt_tokens: Tokens = 128
    """Length of the prompts that are read."""
    generated_tokens: Annotated[int, Field(gt=1, le=1_000_000)] = 64
    """Tokens decoded after a prompt."""
    threads: Annotated[int, Field(gt=0, le=1024)] = 1
    """On a busy machine, comparing with more of them takes much longer."""

    @model_validator(mode="after")
    def _compares_two_things(self) -> Paired:
        if self.baseline is None and self.baseline_python is None:
            raise ValueError("give a baseline, a baseline_python, or both")
        return self


class BaselineRule(Document):
    """How far exact figures may be from those of the committed baseline file."""

    file: Annotated[str, Field(pattern=r"^[^/\\]{1,100}\.json$")] | None = None
    """Beside the gate; `GATE.baseline.json` where none is named."""
    growth_at_most: Share = 0.01
    """Share by which sizes and predicted memory may grow."""
    quality_loss_at_most: Share = 0.01
    """By how much exact match may fall (0.01 is one item in a hundred) and bits per byte rise."""


class Gate(Document):
    """A gate file."""

    format: Literal[1] = 1
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What reports are headed with; the file's name if not said."""
    devices: list[Text] = Field(min_length=1, max_length=200)
    """Ids of device profiles, or paths of `.toml` files."""
    prompt_tokens: Tokens = 128
    """Length of the prompt that speed and memory are predicted for."""
    context: Tokens | None = None
    """Room that is required for prompt and answer; 2048, or all that a model has, if not said."""
    cannot_tell: Literal["passes", "breaks"] = "passes"
    """What a limit inside a prediction's interval does to the exit status."""
    budget: Budget = Field(default_factory=Budget)
    """Limits for all."""
    device_budget: dict[str, Budget] = Field(default={}, max_length=200)
    """Limits on single devices, named as in `devices`."""
    subject: list[GateSubject] = Field(min_length=1, max_length=500)
    """What is judged."""
    quality: Quality | None = None
    """For every artifact that has no other."""
    paired: list[Paired] = Field(default=[], max_length=50)
    """Comparisons of speed that are measured here."""
    baseline: BaselineRule | None = None
    """Compare exact figures with a baseline file; without this table nothing is."""

    @model_validator(mode="after")
    def _names_its_devices(self) -> Gate:
        if len(set(self.devices)) < len(self.devices):
            raise ValueError("devices: a device is named twice")
        named = {f"device_budget.{name}": [name] for name in self.device_budget}
        named |= {f"subject.{i}.devices": s.devices or [] for i, s in enumerate(self.subject)}
        for path, names in named.items():
            if strange := [name for name in names if name not in self.devices]:
                raise ValueError(f"{path}: {strange[0][:80]!r} is not one of the gate's devices")
        return self

    @model_validator(mode="after")
    def _evaluates_what_nobody_publishes(self) -> Gate:
        budgets = {"budget": self.budget}
        budgets |= {f"device_budget.{name}": b for name, b in self.device_budget.items()}
        budgets |= {f"subject.{i}.budget": s.budget for i, s in enumerate(self.subject)}
        for path, budget in budgets.items():
            if budget.quality and budget.quality.metric in EVALUATED:
                raise ValueError(
                    f"{path}.quality: {budget.quality.metric} is evaluated, and not published: "
                    "set its floor in [quality]"
                )
        return self

    def limits(self, subject: GateSubject, device: str) -> Budget:
        """What is required of this subject on this device."""
        on_device = merge(self.budget, _own(self.device_budget.get(device, Budget())))
        return merge(on_device, _own(subject.budget))


def _own(budget: Budget) -> dict[str, object]:
    return budget.model_dump(exclude={"format"})


def read_gate(path: Path) -> Gate:
    """The gate in this TOML file; InputError with every problem, or what a plain budget lacks."""
    try:
        return read_toml(path, Gate)
    except InputError:
        if _is_budget(path):
            raise InputError(
                f"{path} is a budget: it says what is required, but of nothing and nowhere",
                hint='put its limits under [budget], name devices = ["ID", ...], and add a '
                '[[subject]] with artifact = "FILE", or with model, formats and recipes',
            ) from None
        raise


def _is_budget(path: Path) -> bool:
    try:
        return read_toml(path, Budget) != Budget()
    except InputError:
        return False
