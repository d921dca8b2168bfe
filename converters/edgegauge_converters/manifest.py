"""What a converter makes beside the main file: its name, the tokenizer's files, the manifest.

final = main_path(job, recipe, "onnx")
files = [..., *copy_tokenizer(job.folder, final)]
return finish(final, job, recipe, tensor_bytes, files, tools=TOOLS)
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgegauge import __version__
from edgegauge.artifact import (
    Artifact,
    ArtifactFile,
    Manifest,
    file_stem,
    manifest_path,
    sha256_of,
)
from edgegauge.convert import ConversionJob
from edgegauge.convert_encoder import EncoderJob
from edgegauge.document import atomic_write, write_json
from edgegauge.recipe import Recipe
from edgegauge.recipe_file import RecipeFile

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
"""Copied beside the main file where the model has them."""


def main_path(job: ConversionJob | EncoderJob, recipe: Recipe, file_format: str) -> Path:
    """Where the main file goes: in a folder of its own where it has others beside it."""
    stem = f"{file_stem(job.spec.id)}-{recipe}"
    if file_format == "gguf":
        return job.output / f"{stem}.gguf"
    return job.output / f"{stem}-{file_format}" / f"{stem}.{file_format}"


def copy_tokenizer(folder: Path | None, final: Path) -> list[ArtifactFile]:
    """The model's own tokenizer files beside the main file, if it has any."""
    written = []
    for path in (folder / name for name in TOKENIZER_FILES) if folder else ():
        if not path.is_file():
            continue
        copy = final.with_name(path.name)
        with path.open("rb") as original, atomic_write(copy) as stream:
            shutil.copyfileobj(original, stream)
        written.append(file_of(copy))
    return written


def file_of(path: Path) -> ArtifactFile:
    """A file that is complete, by its bytes and hash."""
    return ArtifactFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path))


def finish(
    final: Path,
    job: ConversionJob | EncoderJob,
    recipe: Recipe,
    tensor_bytes: int,
    files: list[ArtifactFile],
    *,
    tools: Sequence[str],
    **facts: Any,
) -> Artifact:
    """Write the manifest, with these further facts, which makes the artifact complete."""
    manifest = Manifest.model_validate(
        {
            "model": job.spec.id,
            "encoder" if isinstance(job, EncoderJob) else "spec": job.spec,
            "recipe": str(recipe),
            "recipe_file": recipe if isinstance(recipe, RecipeFile) else None,
            "file_format": final.suffix.removeprefix("."),
            "files": files,
            "tensor_bytes": tensor_bytes,
            "effective_bits": 8 * tensor_bytes / job.spec.parameters,
            "origin": job.origin,
            "tools": _tool_versions(tools),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **facts,
        }
    )
    write_json(manifest_path(final), manifest.model_dump(mode="json"))
    return Artifact(final, manifest)


def _tool_versions(tools: Sequence[str]) -> dict[str, str]:
    """Versions of edgegauge and of those of these packages that are installed."""
    found = {"edgegauge": __version__}
    for tool in tools:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found
