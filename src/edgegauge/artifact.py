"""Artifacts: a candidate on disk, and the manifest that says what made it.

An artifact is one file, or a main file with others beside it that the manifest lists after it.

The manifest of `smollm2-135m-q4_0.gguf` is `smollm2-135m-q4_0.gguf.manifest.json` beside it; it is
written last, so an artifact with a manifest is complete. A bare GGUF file made by anything else is
an artifact too: its spec is read from its header and its recipe is unknown.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from edgegauge.document import Document, read_json
from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec
from edgegauge.recipe import Recipe
from edgegauge.recipe_file import RecipeFile
from edgegauge.verification import Agreement, EncoderVerification, Verification

FileFormat = Literal["gguf", "onnx", "tflite"]
SUFFIX = ".manifest.json"
_PLACES = (f"*{SUFFIX}", "*.gguf", f"*/*{SUFFIX}")
"""Where a folder's artifact may be, in order; a format of several files has a folder of its own."""


class ArtifactFile(Document):
    """One file of an artifact, by its path relative to the manifest's folder."""

    name: str = Field(min_length=1, max_length=400, pattern=r"^[^/\\][^\\]*$")
    bytes: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Origin(Document):
    """Where the weights came from; `synthetic` ones are random and good for speed only."""

    kind: Literal["folder", "hub", "catalog", "config"]
    reference: str
    synthetic: bool = False


class Manifest(Document):
    """What an artifact is and what made it."""

    format: Literal[1] = 1
    model: str
    spec: ModelSpec | None = None
    """None: no blueprint describes the architecture, and an engine of others converted it."""
    encoder: EncoderSpec | None = None
    """What it is if it is no language model but turns texts into vectors."""
    recipe: str
    recipe_file: RecipeFile | None = None
    """All of the recipe, where it is no shipped one."""
    file_format: FileFormat
    files: list[ArtifactFile] = Field(min_length=1)
    tensor_bytes: int = Field(gt=0)
    """Bytes of tensor data, without header, metadata and padding."""
    effective_bits: float = Field(gt=0)
    """8 x tensor_bytes / stored parameters."""
    context: int | None = Field(default=None, gt=0)
    """Tokens that the file has room for; None: whoever opens it says how many."""
    cache_bytes: int | None = Field(default=None, gt=0)
    """Bytes of their keys and values in memory, where the file fixes them."""
    origin: Origin
    tools: dict[str, str]
    warnings: list[str] = []
    verification: Verification | None = None
    """What verifying it found; None: nobody did."""
    encoder_verification: EncoderVerification | None = None
    """Likewise of an encoder."""
    agreement: Agreement | None = None
    """What an engine's artifact computed there against PyTorch; None: it was not compared."""
    created: str

    @property
    def stored_as(self) -> Recipe:
        """The recipe, as `edgegauge.recipe` takes it."""
        return self.recipe_file or self.recipe

    @property
    def parameters(self) -> int:
        """Stored parameters, shared and tied ones counted once."""
        if self.spec is not None:
            return self.spec.parameters
        return round(8 * self.tensor_bytes / self.effective_bits)


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact's main path and, where it has one, its manifest."""

    path: Path
    manifest: Manifest | None

    @property
    def name(self) -> str:
        """`smollm2-135m-q4_0`."""
        return self.path.stem

    @property
    def bytes(self) -> int:
        """Size on disk: of all files that the manifest lists, or of the one file there is."""
        if self.manifest:
            return sum(file.bytes for file in self.manifest.files)
        return self.path.stat().st_size

    @property
    def paths(self) -> list[Path]:
        """All its files; whatever a runtime reads beside the main one is in the manifest."""
        listed = self.manifest.files if self.manifest else []
        return [self.path.with_name(file.name) for file in listed] or [self.path]

    @property
    def file_format(self) -> FileFormat:
        """The format that the manifest names; a bare file is a GGUF file (`open_artifact`)."""
        return self.manifest.file_format if self.manifest else "gguf"


def file_stem(id: str) -> str:
    """The id as a file name: no separators, no leading dot."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", id).lstrip(".-") or "model"


def manifest_path(artifact: Path) -> Path:
    """Where the manifest of the artifact at this path is or goes."""
    return artifact.with_name(artifact.name + SUFFIX)


def open_artifact(path: Path) -> Artifact:
    """The artifact at `path`: a model file, or a folder that holds exactly one; InputError."""
    if path.is_dir():
        found = next((f for f in map(sorted, map(path.glob, _PLACES)) if f), [])
        if len(found) != 1:
            names = [p.name.removesuffix(SUFFIX) for p in found]
            raise InputError(
                f"expected one artifact in {path}, found {len(found)}", names, "name the file"
            )
        path = found[0].with_name(found[0].name.removesuffix(SUFFIX))
    if not path.exists():
        raise InputError(f"no such artifact: {path}")
    beside = manifest_path(path)
    if beside.exists():
        return Artifact(path, read_json(beside, Manifest))
    if not _is_gguf(path):
        raise InputError(f"{path} is neither a GGUF file nor has it a manifest beside it")
    return Artifact(path, None)


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
