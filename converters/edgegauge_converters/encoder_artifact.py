"""What every encoder artifact has beside its main file: the tokenizer's files and the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgegauge.artifact import Artifact, ArtifactFile, Manifest, manifest_path, sha256_of
from edgegauge.convert_encoder import EncoderJob
from edgegauge.document import atomic_write, write_json
from edgegauge.recipe import StoredTensor
from edgegauge_converters.encoder_recipe import tensor_bytes
from edgegauge_converters.genai_config import tokenizer_files
from edgegauge_converters.manifest import file_stem, tool_versions


def main_path(job: EncoderJob, recipe: str, file_format: str) -> Path:
    """Where the main file goes: in a folder of its own where it has others beside it."""
    stem = f"{file_stem(job.spec.id)}-{recipe}"
    if file_format == "gguf":
        return job.output / f"{stem}.gguf"
    return job.output / f"{stem}-{file_format}" / f"{stem}.{file_format}"


def copy_tokenizer(job: EncoderJob, final: Path) -> list[ArtifactFile]:
    """The model's own tokenizer files beside the main file, if it has any."""
    written = []
    for path in tokenizer_files(job.folder) if job.folder else ():
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
    job: EncoderJob,
    recipe: str,
    stored: list[StoredTensor],
    files: list[ArtifactFile],
    *,
    tools: Sequence[str],
    warnings: list[str],
) -> Artifact:
    """Write the manifest, which makes the artifact complete."""
    size = tensor_bytes(stored)
    manifest = Manifest.model_validate(
        {
            "model": job.spec.id,
            "encoder": job.spec,
            "recipe": recipe,
            "file_format": final.suffix.removeprefix("."),
            "files": files,
            "tensor_bytes": size,
            "effective_bits": 8 * size / job.spec.parameters,
            "origin": job.origin,
            "tools": tool_versions(tools),
            "warnings": warnings,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    write_json(manifest_path(final), manifest.model_dump(mode="json"))
    return Artifact(final, manifest)
