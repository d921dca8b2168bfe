"""`--recipe auto`: the smallest mixture of types that keeps a model's answers.

    goal = goal_of("gguf", Path("notes.txt"))
    with search(job, goal, progress) as found:
        artifact = convert_auto(job, goal, found, 0.01, progress=progress)

The mixture is found by a search, an entry point of the group `edgegauge.searches`, which computes
with the weights and no runtime. What it promises is then held against what verification measures on
the artifact: where that is above the limit, the search is asked for less. The recipe is written
beside the artifact as a file that `--recipe FILE` repeats.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edgegauge.artifact import Artifact
from edgegauge.convert import ConversionJob, Progress, converter_for
from edgegauge.document import atomic_write
from edgegauge.errors import ConversionError, InputError
from edgegauge.evaluate.task import read_text
from edgegauge.recipe_file import RecipeFile
from edgegauge.verify import discard, verified

GROUP = "edgegauge.searches"

TRIES = 3
"""Artifacts made until one's measured divergence is within the limit."""

CHARACTERS = 2**16
"""Of a text: more than is ever run."""

MARGIN = 0.95
"""Of the limit that the artifact before would have met, what the next one is searched for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a search is for."""

    file_format: str
    text: str | None = None
    """What divergences are measured on; None: the built-in text."""


class Search(Protocol):
    """Finds recipes for one model, whose sensitivities it has measured."""

    def recipe(self, id: str, max_kl: float) -> RecipeFile:
        """The smallest found within this KL divergence, in nats; InputError naming the least."""


Begin = Callable[[ConversionJob, Goal, Progress], AbstractContextManager[Search]]
"""The entry point: measures the sensitivities of a model, whatever the job's recipe."""


def goal_of(file_format: str, text: Path | None) -> Goal:
    """The goal, with the text of this file; InputError for what is no text."""
    given = read_text(text).content[:CHARACTERS] if text else None
    return Goal(file_format=file_format, text=given)


def search(job: ConversionJob, goal: Goal, progress: Progress) -> AbstractContextManager[Search]:
    """Measure the sensitivities of the job's model; InputError for synthetic weights."""
    if job.folder is None:
        raise InputError(
            "auto measures what quantising does to a model's weights, and these are random",
            hint="leave out --synthetic, or name a recipe",
        )
    # The search divides its work itself; read when NumPy is loaded, which it is not yet.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for point in entry_points(group=GROUP):
        begin: Begin = point.load()
        return begin(job, goal, progress)
    raise InputError("no search for recipes is installed")


def convert_auto(
    job: ConversionJob, goal: Goal, found: Search, max_kl: float, *, verifies: bool = True,
    progress: Progress,
) -> Artifact:  # fmt: skip
    """Convert with the smallest recipe within `max_kl` nats and verify; its file lies beside.

    Raises InputError where no mixture of the format's types is within it, and ConversionError as
    converting and verifying do.
    """
    limit = max_kl
    for _ in range(TRIES):
        recipe = found.recipe(f"auto-kl{max_kl:g}", limit)
        named = replace(job, recipe=recipe)
        artifact = converter_for(goal.file_format).convert(named, progress)
        if verifies:
            artifact = verified(
                artifact, job.spec, job.folder, threads=job.threads, text=goal.text,
                progress=progress,
            )  # fmt: skip
        measured = _measured(artifact)
        if measured is None or measured <= max_kl:
            _write(recipe, artifact)
            return artifact
        limit *= MARGIN * max_kl / measured
    discard(artifact)
    raise ConversionError(
        f"the artifact's KL divergence is {measured:.3g} nat, over {max_kl:g}, after {TRIES} tries",
        hint="its runtime computes less exactly than was foreseen: ask for a larger --max-kl",
    )


def _measured(artifact: Artifact) -> float | None:
    """The divergence from the model's own weights, where verification measured it."""
    found = artifact.manifest and artifact.manifest.verification
    return found.original.kl_mean.value if found and found.original else None


def _write(recipe: RecipeFile, artifact: Artifact) -> None:
    """Write the recipe beside the artifact."""
    path = artifact.path.with_name(f"{artifact.name}.recipe.toml")
    with atomic_write(path, "w") as stream:
        stream.write(recipe.to_toml())
