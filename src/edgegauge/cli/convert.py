"""`edgegauge convert`: a model to an on-device format."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from edgegauge.artifact import Artifact, Manifest, manifest_path
from edgegauge.cli.output import emit_json, json_option, progress, stdout, table, warn
from edgegauge.convert import converter_for, prepare
from edgegauge.units import format_bytes


@click.command("convert")
@click.argument("model")
@click.option(
    "--format",
    "file_format",
    default="gguf",
    show_default=True,
    metavar="FORMAT",
    help="File format to write.",
)
@click.option(
    "--recipe",
    default="q4_k_m",
    show_default=True,
    metavar="ID",
    help="How weights are stored: f32, f16, q8_0 (int8), q4_0, q4_k_m (int4).",
)
@click.option(
    "-o",
    "--output",
    default=".",
    show_default=True,
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the artifact and its manifest.",
)
@click.option(
    "--synthetic",
    is_flag=True,
    help="Random weights of the same shape: right in size and speed, nothing fetched.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads that encode (default: all this process may use).",
)
@json_option
def command(
    model: str, file_format: str, recipe: str, output: Path, synthetic: bool,
    threads: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Convert MODEL and write it to DIR as <model>-<recipe>.<format>.

    MODEL is a Hugging Face folder (config.json, safetensors, tokenizer.json), hf:owner/name, or an
    id of the catalog; with --synthetic also a bare config.json.
    """
    converter = converter_for(file_format)
    job = prepare(model, recipe, file_format, synthetic=synthetic).into(output, threads)
    with progress(f"converting {job.spec.id}", total=1.0) as advance:
        artifact = converter.convert(job, advance)
    manifest = artifact.manifest
    assert manifest is not None  # a converter's result always has one
    for warning in manifest.warnings:
        warn(warning)
    if as_json:
        emit_json(_document(artifact, manifest))
    else:
        _print(artifact, manifest)


def _document(artifact: Artifact, manifest: Manifest) -> dict[str, object]:
    return {
        "format": 1,
        "artifact": str(artifact.path),
        "manifest": manifest.model_dump(mode="json"),
        "manifest_file": str(manifest_path(artifact.path)),
    }


def _print(artifact: Artifact, manifest: Manifest) -> None:
    rows = table("file", "size", "bits per weight", "warnings", right=("size", "bits per weight"))
    size = sum(file.bytes for file in manifest.files)
    rows.add_row(
        Text(str(artifact.path)),
        format_bytes(size),
        f"{manifest.effective_bits:.2f}",
        str(len(manifest.warnings)) if manifest.warnings else "none",
    )
    stdout().print(rows)
