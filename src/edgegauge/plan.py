"""Plans: what `edgegauge run` does, as one TOML file.

    format = 1
    title = "Which model for the thermostat?"
    models = ["ladder:ladder-1m", "../models/mine", "hf:owner/name"]
    formats = ["gguf", "onnx", "tflite"]
    recipes = ["int8", "int4"]

    [workload]
    prompt_tokens = 64

    [evaluation]
    task = "commands.jsonl"

    [budget]
    memory = "200MB"
    quality = { metric = "exact_match", at_least = 0.9 }

    [[predict]]
    device = "raspberry-pi-5-8gb"

Without `formats` all three are meant. A format that cannot be made and run here is left out with a
warning, and so is a recipe in a format that has not got it.

Paths are relative to the plan's own folder. The built-in plan is `example.toml`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from edgegauge import ladder, usage
from edgegauge.artifact import FileFormat
from edgegauge.budget import Budget
from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError

LADDER_PREFIX = "ladder:"


class PlanWorkload(Document):
    """The measured shape; threads None means all physical cores this process may use."""

    prompt_tokens: int = Field(default=128, gt=0, le=1_000_000)
    generated_tokens: int = Field(default=64, gt=1, le=1_000_000)
    threads: int | None = Field(default=None, gt=0, le=1024)
    runs: int = Field(default=3, gt=0, le=100)
    repetitions: int = Field(default=3, gt=0, le=1000)
    energy: bool | None = None
    """Read the machine's energy meters, which takes minutes for each candidate. None: only where
    the budget limits energy or battery."""
    usage: str = usage.DEFAULT
    """A shipped usage model or a `.toml` file, for the battery figures."""


class PlanEvaluation(Document):
    """Quality: a JSONL task for exact match, a text for perplexity, or both."""

    task: str | None = None
    text: str | None = None
    limit: int | None = Field(default=None, gt=0)
    """Use only the first rows of the task, and the first windows of the text."""


class PlanPrediction(Document):
    """Catalog models predicted for a device that is not here."""

    device: str
    models: list[str] | None = None
    """None: the whole catalog."""
    formats: list[FileFormat] = Field(default=list(get_args(FileFormat)), min_length=1)
    recipes: list[str] | None = Field(default=None, min_length=1)
    """None: the usual ones of each format (`fit.DEFAULT_RECIPES`)."""
    budget: Budget = Budget()


class Plan(Document):
    """A plan file."""

    format: Literal[1] = 1
    title: str = Field(min_length=1, max_length=200)
    models: list[str] = Field(min_length=1, max_length=200)
    formats: list[FileFormat] = Field(default=list(get_args(FileFormat)), min_length=1)
    recipes: list[str] = Field(min_length=1, max_length=20)
    workload: PlanWorkload = PlanWorkload()
    evaluation: PlanEvaluation | None = None
    budget: Budget = Budget()
    predict: list[PlanPrediction] = []


def read_plan(path: Path | None) -> tuple[Plan, Path]:
    """The plan at `path` (None: the built-in one) and the folder its paths are relative to."""
    if path is None:
        path = Path(str(resources.files("edgegauge"))) / "example.toml"
    return read_toml(path, Plan), path.parent


def locate(reference: str, base: Path) -> str:
    """A plan's file or model reference as one that works from anywhere.

    `ladder:NAME` is a bundled file or folder; a path that exists below `base` becomes absolute;
    anything else (`hf:owner/name`, a catalog id) is returned unchanged.
    """
    if reference.startswith(LADDER_PREFIX):
        bundled = ladder.path() / reference.removeprefix(LADDER_PREFIX)
        if not bundled.exists():
            raise InputError(f"no {reference!r}: the ladder has {', '.join(ladder.MODELS)}")
        return str(bundled)
    path = (base / reference).absolute()
    return str(path) if path.exists() else reference
