"""Converting: what to convert, the protocol of a converter, and how one is found.

    job = prepare("hf:HuggingFaceTB/SmolLM2-135M", "q4_k_m", "gguf").into(Path("models"))
    artifact = converter_for("gguf").convert(job, progress)

A converter is an entry point of the group `edgegauge.converters`, named after the file format it
writes. It writes to a temporary name and renames, and writes the manifest last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edgegauge import hub
from edgegauge.artifact import Artifact, Origin
from edgegauge.errors import InputError
from edgegauge.find_model import FoundModel, resolve_model
from edgegauge.model import ModelSpec
from edgegauge.read_config import spec_from_folder
from edgegauge.recipe import Recipe, resolve

GROUP = "edgegauge.converters"

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """What to convert: a spec, and a Hugging Face folder with its weights or None for synthetic."""

    spec: ModelSpec
    folder: Path | None
    origin: Origin
    recipe: Recipe
    output: Path
    """Folder the artifact is written into."""
    threads: int | None = None
    context: int | None = None
    """Tokens that the file has room for, in TFLite; None: the converter's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A resolved model and recipe, lacking only a place to write to."""

    spec: ModelSpec
    folder: Path | None
    origin: Origin
    recipe: Recipe

    def into(
        self, output: Path, threads: int | None = None, context: int | None = None
    ) -> ConversionJob:
        """The job that writes into this folder."""
        return ConversionJob(
            spec=self.spec, folder=self.folder, origin=self.origin, recipe=self.recipe,
            output=output, threads=threads, context=context,
        )  # fmt: skip


class Converter(Protocol):
    """Writes one file format."""

    def convert(self, job: ConversionJob, progress: Progress) -> Artifact:
        """Write the artifact and its manifest; raises ConversionError or InputError."""


def converter_for(file_format: str) -> Converter:
    """The registered converter of this format; InputError names those there are."""
    points = {p.name: p for p in entry_points(group=GROUP)}
    if file_format not in points:
        raise InputError(f"no converter writes {file_format!r}; there are: {', '.join(points)}")
    made: Converter = points[file_format].load()()
    return made


def prepare(
    reference: str, recipe: Recipe, file_format: str, *, synthetic: bool = False
) -> Preparation:
    """Resolve a model and a recipe; fetches what a hub reference or catalog id needs.

    `reference` is a Hugging Face folder, `hf:owner/name[@revision]` or a catalog id; with
    `synthetic` also a bare `config.json` or a GGUF file, and of a hub model only the configuration
    is fetched. Raises InputError.
    """
    named = resolve(recipe, file_format)
    if synthetic:
        spec, origin = _shape(reference)
        return Preparation(spec=spec, folder=None, origin=origin, recipe=named)
    spec, folder, origin = _weights(reference)
    return Preparation(spec=spec, folder=folder, origin=origin, recipe=named)


def _shape(reference: str) -> tuple[ModelSpec, Origin]:
    if _is_hub(reference):
        folder = hub.fetch(reference, weights=False)
        return _hub_spec(reference, folder), _hub_origin(reference, folder, synthetic=True)
    found = resolve_model(reference)
    if found.kind == "catalog":
        return found.spec, Origin(kind="catalog", reference=found.spec.id, synthetic=True)
    kind = "folder" if found.kind == "folder" else "config"
    return found.spec, Origin(kind=kind, reference=reference, synthetic=True)


def _weights(reference: str) -> tuple[ModelSpec, Path, Origin]:
    if not _is_hub(reference):
        found = resolve_model(reference)
        if found.kind != "catalog":
            folder = _folder_of(found)
            return found.spec, folder, Origin(kind="folder", reference=reference)
        if found.entry is None or found.entry.hub is None:
            raise InputError(
                f"the catalog names no place to fetch {found.spec.id} from",
                hint="name a folder that has the model, or add --synthetic",
            )
        reference = hub.HUB_PREFIX + found.entry.hub
    folder = hub.fetch(reference)
    return _hub_spec(reference, folder), folder, _hub_origin(reference, folder)


def _folder_of(found: FoundModel) -> Path:
    if found.kind == "folder" and found.path is not None:
        return found.path
    if found.kind == "gguf":
        raise InputError(f"{found.reference} is a GGUF file already; convert from the original")
    raise InputError(
        f"{found.reference} is only a configuration, without weights",
        hint="name the folder with its safetensors, or add --synthetic for random weights",
    )


def _is_hub(reference: str) -> bool:
    return reference.startswith(hub.HUB_PREFIX)


def _hub_spec(reference: str, folder: Path) -> ModelSpec:
    name = hub.parse_reference(reference)[0].split("/")[1]
    return spec_from_folder(folder, id=name.lower())


def _hub_origin(reference: str, folder: Path, *, synthetic: bool = False) -> Origin:
    """The reference with the commit that was fetched, which names the snapshot's folder."""
    repo, _ = hub.parse_reference(reference)
    exact = f"{hub.HUB_PREFIX}{repo}@{folder.name}"
    return Origin(kind="hub", reference=exact, synthetic=synthetic)
