"""The published runs whose power is known, as the fit of consumption uses them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from predictor.files import spec_of, work_of_file
from published_quants import stored_published

from edgegauge.device import load
from edgegauge.memory_llama_cpp import LlamaCppMemory, instruction_set
from edgegauge.recipe import GGUF_RECIPES, inventory
from edgegauge.units import GB
from edgegauge.work import Work

FOLDER = Path(__file__).resolve().parents[2] / "src" / "edgegauge" / "measurements"

DEVICE = "raspberry-pi-5-2gb"

TOKENS = 128
"""Of each prompt. The sweep and the format tax took the mean of all readings, ten a second, of a
whole `llama-bench -p 128 -n 128 -r 3`: four prompts (one warms up), three answers, and loading,
which is not told apart. The memory wall left out the first four seconds of `-p 128 -n 256 -r 2`,
which hold loading and the prompts, so that its power counts as that of answers alone."""

IDLE_W = 2.0459
"""Of the same author's board, by the same rails: edge-llm-memory-wall results/L3_energy.json
@30c2547 (4 s at a fixed 2.4 GHz)."""


@dataclass(frozen=True)
class Run:
    """One file on one number of threads."""

    series: str
    model: str
    recipe: str
    threads: int
    prompts: int
    answer_tokens: int
    """Of all its answers together."""
    prompt_s: float
    """Of all its prompts together."""
    answer_s: float
    mean_w: float
    """Of the sum of the rails."""
    work: Work
    peak_gb: float
    """Memory that the file, the copy of its reordered weights and the buffers take together."""

    @property
    def seconds(self) -> float:
        """Of prompts and answers."""
        return self.prompt_s + self.answer_s

    @property
    def joules(self) -> float:
        """Of prompts and answers."""
        return self.mean_w * self.seconds

    @property
    def prompt_gb(self) -> float:
        """Read from memory by its prompts: the weights once for each, since 128 tokens are computed
        at once."""
        return self.prompts * self.work.weight_bytes / GB

    @property
    def answer_gb(self) -> float:
        """Read from memory by its answers: the weights for each token."""
        return self.answer_tokens * self.work.weight_bytes / GB

    @property
    def fits(self) -> bool:
        """Whether the board's memory holds it. Where it does not, weights are read from the card at
        each load, and the mean power is mostly that of waiting."""
        return self.peak_gb * GB <= load(DEVICE).app_memory_bytes


def read_runs() -> list[Run]:
    """All runs of the package's file."""
    with (FOLDER / "energy.csv").open(newline="") as stream:
        return [_run(entry) for entry in csv.DictReader(stream)]


def _run(entry: dict[str, str]) -> Run:
    model, recipe = entry["model"], entry["recipe"]
    prompts, answers = int(entry["prompts"]), int(entry["answer_tokens"])
    return Run(
        entry["series"], model, recipe, int(entry["threads"]), prompts, answers,
        prompts * TOKENS / float(entry["prefill_tok_per_s"]) if prompts else 0.0,
        answers / float(entry["decode_tok_per_s"]),
        float(entry["mean_w"]), work_of_file(model, recipe), _peak_gb(model, recipe),
    )  # fmt: skip


def _peak_gb(model: str, recipe: str) -> float:
    spec = spec_of(model)
    if recipe in GGUF_RECIPES:
        stored = inventory(spec, recipe)
    else:
        stored = [(each, 1) for each in stored_published(spec, recipe)]
    memory = LlamaCppMemory(spec, stored, instruction_set(load(DEVICE).cpu.features))
    return memory.footprint(context=2 * TOKENS, prompt_tokens=TOKENS, ubatch=512).peak_bytes / GB


def left_out() -> Counter[str]:
    """Reason -> published rows with power or joules that are not in the file."""
    with (FOLDER / "energy_left_out.csv").open(newline="") as stream:
        return Counter({e["reason"]: int(e["rows"]) for e in csv.DictReader(stream)})
