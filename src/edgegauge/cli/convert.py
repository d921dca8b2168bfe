"""`edgegauge convert`: a model to an on-device format."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
from rich.markup import escape
from rich.text import Text

from edgegauge.artifact import Artifact, Manifest, manifest_path
from edgegauge.auto import Goal, convert_auto, goal_of, search
from edgegauge.cli.output import emit_json, json_option, progress, stderr, stdout, table, warn
from edgegauge.convert import ConversionJob, Progress, converter_for, prepare
from edgegauge.convert_encoder import (
    EncoderJob,
    encoder_converter_for,
    encoder_job,
    is_encoder_reference,
)
from edgegauge.engines import find_engine
from edgegauge.engines.conversion import EngineJob, convert_with
from edgegauge.engines.environment import environment_path, is_built
from edgegauge.engines.source import source_of
from edgegauge.errors import InputError
from edgegauge.recipe import Recipe
from edgegauge.recipe_file import read_recipe
from edgegauge.units import format_bytes
from edgegauge.verify import verified

AUTO = "auto"


@click.command("convert")
@click.argument("model")
@click.option(
    "--format",
    "file_format",
    default="gguf",
    show_default=True,
    metavar="FORMAT",
    help="gguf, onnx or tflite.",
)
@click.option(
    "--recipe",
    default="int4",
    show_default=True,
    metavar="ID",
    help="How weights are stored: f32, f16, int8 or int4; gguf also knows q8_0 (its int8), q4_0 "
    "and q4_k_m (its int4). Or a recipe's own file (FILE.toml), or auto: the smallest within "
    "--max-kl.",
)
@click.option(
    "--max-kl",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NAT",
    help="With auto: the KL divergence from the model's own weights that may not be exceeded.",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    metavar="FILE.txt",
    help="With auto: what the divergence is measured on (default: a built-in text).",
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
@click.option(
    "--context",
    type=click.IntRange(1),
    metavar="N",
    help="Tokens that a tflite file has room for, its keys and values included (default: 1280, or"
    " what the model was made for if that is less). Other formats take it when they are opened.",
)
@click.option(
    "--verify/--no-verify",
    "verifies",
    default=True,
    show_default=True,
    help="Run the artifact and compare it with the model; a broken one is refused.",
)
@click.option(
    "--engine",
    "engine_name",
    metavar="NAME",
    help="Convert with another project's tool (optimum, litert-torch, genai), in its own"
    " environment: for architectures that are not known here.",
)
@json_option
def command(
    model: str, file_format: str, recipe: str, max_kl: float | None, text: Path | None,
    output: Path, synthetic: bool, threads: int | None, context: int | None, verifies: bool,
    engine_name: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Convert MODEL and write it to DIR as <model>-<recipe>.<format>.

    MODEL is a Hugging Face folder (config.json, safetensors, tokenizer.json), hf:owner/name, or an
    id of the catalog; with --synthetic also a bare config.json. Of a BERT-type encoder it makes a
    file that turns texts into vectors.
    """
    if (recipe == AUTO) != (max_kl is not None) or (text is not None and recipe != AUTO):
        raise click.UsageError("--recipe auto and --max-kl NAT go together, and --text with them")
    if context is not None:
        _check_context(model, file_format, engine_name)
    if engine_name is not None:
        if synthetic:
            raise InputError("an engine needs the model's weights: leave out --synthetic")
        artifact = _with_engine(engine_name, model, recipe, file_format, output, threads, verifies)
    elif is_encoder_reference(model):
        encoder = encoder_job(model, recipe, output, synthetic=synthetic, threads=threads)
        convert = partial(encoder_converter_for(file_format).convert, encoder)
        artifact = _convert(encoder, convert, verifies)
    else:
        converter_for(file_format)  # a wrong format is said before anything is fetched
        named = _recipe(recipe, max_kl)
        job = prepare(model, named, file_format, synthetic=synthetic).into(output, threads, context)
        if max_kl is not None:
            artifact = _convert_auto(job, goal_of(file_format, text), max_kl, verifies)
        else:
            artifact = _convert(job, partial(converter_for(file_format).convert, job), verifies)
    manifest = artifact.manifest
    assert manifest is not None  # a converter's result always has one
    for warning in manifest.warnings:
        warn(warning)
    if as_json:
        emit_json(_document(artifact, manifest))
    else:
        _print(artifact, manifest)


def _check_context(model: str, file_format: str, engine_name: str | None) -> None:
    """InputError where the file that is asked for would not hold a number of tokens."""
    if file_format != "tflite" or engine_name is not None or is_encoder_reference(model):
        raise InputError(
            "--context is for language models that are converted to tflite, without an engine",
            hint="GGUF and ONNX files take any context when they are opened",
        )


def _recipe(recipe: str, max_kl: float | None) -> Recipe:
    """The recipe to prepare with; for auto, any that every format has."""
    if recipe.endswith(".toml"):
        return read_recipe(Path(recipe))
    return recipe if max_kl is None else "f32"


def _convert_auto(job: ConversionJob, goal: Goal, max_kl: float, verifies: bool) -> Artifact:
    """Find a recipe and convert with it."""
    with (
        progress(f"measuring {job.spec.id}", total=1.0) as advance,
        search(job, goal, advance) as found,
    ):
        return convert_auto(job, goal, found, max_kl, verifies=verifies, progress=advance)


def _convert(
    job: ConversionJob | EncoderJob, convert: Callable[[Progress], Artifact], verifies: bool
) -> Artifact:
    """Convert with a recipe that is known."""
    with progress(f"converting {job.spec.id}", total=1.0) as advance:
        artifact = convert(advance)
    if not verifies:
        return artifact
    with progress(f"verifying {job.spec.id}", total=1.0) as advance:
        return verified(artifact, job.spec, job.folder, threads=job.threads, progress=advance)


def _with_engine(
    name: str, model: str, recipe: str, file_format: str, output: Path, threads: int | None,
    compares: bool,
) -> Artifact:  # fmt: skip
    """Convert with an engine, which compares what it wrote with the original itself."""
    engine = find_engine(name)
    engine.precision(recipe, file_format)  # a wrong recipe is said before anything is fetched
    job = EngineJob(
        source=source_of(model), recipe=recipe, file_format=file_format, output=output,
        threads=threads, compares=compares,
    )  # fmt: skip
    if not is_built(engine):
        size, place = format_bytes(engine.facts.disk_bytes), environment_path(engine)
        note = f"building the environment of {name}, once, {size} or more: {place}"
        stderr().print(escape(note), soft_wrap=True)
    with progress(f"{name} converts {job.source.id}", total=None) as advance:
        return convert_with(engine, job, lambda note: advance(0.0, note))


def _document(artifact: Artifact, manifest: Manifest) -> dict[str, object]:
    return {
        "format": 1,
        "artifact": str(artifact.path),
        "manifest": manifest.model_dump(mode="json"),
        "manifest_file": str(manifest_path(artifact.path)),
    }


def _print(artifact: Artifact, manifest: Manifest) -> None:
    rows = table(
        "file", "size", "bits per weight", "verified", "warnings", right=("size", "bits per weight")
    )
    size = sum(file.bytes for file in manifest.files)
    rows.add_row(
        Text(str(artifact.path)),
        format_bytes(size),
        f"{manifest.effective_bits:.2f}",
        _verified(manifest),
        str(len(manifest.warnings)) if manifest.warnings else "none",
    )
    stdout().print(rows)


def _verified(manifest: Manifest) -> str:
    """What quantisation costs, where that was found."""
    encoder = manifest.encoder_verification
    if encoder and encoder.original:
        return f"cosine {encoder.original.least_cosine.value:.4f}"
    found = manifest.verification
    compared = manifest.agreement or (found and found.original)
    if compared:
        return f"KL {compared.kl_mean.value:.2g} nat"
    return "yes" if found or encoder else "no"
