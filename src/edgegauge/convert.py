"""Converting: the protocol of a converter and how one is found.

A converter is an entry point of the group `edgegauge.converters`, named after the file format it
writes. It writes to a temporary name and renames, and writes the manifest last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from edgegauge.artifact import Artifact, Origin
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec

GROUP = "edgegauge.converters"

Progress = Callable[[float, str], None]
"""Called with the share done (0..1) and what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """What to convert: a spec, and a Hugging Face folder with its weights or None for synthetic."""

    spec: ModelSpec
    folder: Path | None
    origin: Origin
    recipe: str
    output: Path
    """Folder the artifact is written into."""
    threads: int | None = None


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
