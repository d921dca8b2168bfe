"""Converting encoders: what to convert, the protocol of a converter, and how one is found.

    if is_encoder_reference("./all-MiniLM-L6-v2"):
        job = encoder_job("./all-MiniLM-L6-v2", "int8", Path("models"))
        artifact = encoder_converter_for("onnx").convert(job, progress)

A converter is an entry point of the group `edgegauge.encoder_converters`, named after the file
format it writes. It is as a converter of language models is (`convert.py`), only its spec differs.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edgegauge import hub
from edgegauge.artifact import Artifact, Origin
from edgegauge.convert import Progress
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.read_encoder import encoder_from_folder, is_encoder

GROUP = "edgegauge.encoder_converters"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderJob:
    """What to convert: a spec, and a Hugging Face folder with its weights or None for synthetic."""

    spec: EncoderSpec
    folder: Path | None
    origin: Origin
    recipe: str
    output: Path
    """Folder the artifact is written into."""
    threads: int | None = None


class EncoderConverter(Protocol):
    """Writes one file format."""

    def convert(self, job: EncoderJob, progress: Progress) -> Artifact:
        """Write the artifact and its manifest; raises ConversionError or InputError."""


def encoder_converter_for(file_format: str) -> EncoderConverter:
    """The registered converter of this format; InputError names those there are."""
    points = {p.name: p for p in entry_points(group=GROUP)}
    if file_format not in points:
        raise InputError(
            f"no converter writes {file_format!r} of encoders; there are: {', '.join(points)}"
        )
    made: EncoderConverter = points[file_format].load()()
    return made


def is_encoder_reference(reference: str) -> bool:
    """Whether this names an encoder: a folder, a config.json, or `hf:owner/name`, whose
    configuration is fetched to tell."""
    if reference.startswith(hub.HUB_PREFIX):
        return is_encoder(hub.fetch(reference, weights=False))
    return os.path.exists(reference) and is_encoder(Path(reference))


def encoder_job(
    reference: str, recipe: str, output: Path, *, synthetic: bool = False,
    threads: int | None = None,
) -> EncoderJob:  # fmt: skip
    """Resolve an encoder; fetches what a hub reference needs. InputError.

    With `synthetic` a bare `config.json` serves too, and of a hub model only small files are
    fetched.
    """
    if reference.startswith(hub.HUB_PREFIX):
        folder = hub.fetch(reference, weights=not synthetic)
        name = hub.parse_reference(reference)[0].split("/")[1]
        spec = encoder_from_folder(folder, id=name.lower())
        exact = f"{hub.HUB_PREFIX}{hub.parse_reference(reference)[0]}@{folder.name}"
        origin = Origin(kind="hub", reference=exact, synthetic=synthetic)
    else:
        folder = Path(reference)
        spec = encoder_from_folder(folder)
        kind = "folder" if folder.is_dir() else "config"
        origin = Origin(kind=kind, reference=reference, synthetic=synthetic)
    if not synthetic and not folder.is_dir():
        raise InputError(
            f"{reference} is only a configuration, without weights",
            hint="name the folder with its safetensors, or add --synthetic for random weights",
        )
    return EncoderJob(
        spec=spec, folder=None if synthetic else folder, origin=origin, recipe=recipe,
        output=output, threads=threads,
    )  # fmt: skip
