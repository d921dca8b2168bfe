"""Converting with an engine: its process, and what it wrote as an artifact like any other.

    artifact = convert_with(find_engine("genai"), job, progress)

writes the folder `<model>-<recipe>-<engine>/` with the files that the engine made and the manifest.
The folder is filled under a temporary name beside its place and renamed, so that it is there
complete or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

from pydantic import Field

from edgegauge import __version__
from edgegauge.artifact import Artifact, ArtifactFile, Manifest, file_stem, manifest_path, sha256_of
from edgegauge.document import Document, read_json, write_json
from edgegauge.engines import Engine
from edgegauge.engines.environment import packages_path, python_of
from edgegauge.engines.process import Heard, execute
from edgegauge.engines.source import Source
from edgegauge.errors import ConversionError, InputError
from edgegauge.figure import Figure, Unit
from edgegauge.verification import Agreement

TIMEOUT_S = 6 * 3600.0
"""For one conversion, however large the model."""


MOST_ERROR_F32 = 0.01
"""Of a logit, in standard deviations of PyTorch's: an f32 artifact that is farther off is wrong."""

MOST_RMS_ERROR = 1.0
"""Likewise for any recipe, root mean square; logits that have nothing in common differ by 1.41."""


NOT_COMPARED = "not compared with the original: it predicts no next token, or gives no logits"


class Compared(Document):
    """How the artifact's logits differ from PyTorch's in f32, over the positions of one prompt.

    As `verification.Agreement` has them, without units.
    """

    positions: int = Field(gt=0)
    max_error: float = Field(ge=0)
    mean_error: float = Field(ge=0)
    rms_error: float = Field(ge=0)
    kl_mean: float
    kl_p99: float
    kl_max: float
    same_choice: float = Field(ge=0, le=1)


class Answer(Document):
    """What a driver says of its work."""

    tensor_bytes: int = Field(gt=0)
    agreement: Compared | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJob:
    """What an engine is to convert, and into which folder."""

    source: Source
    recipe: str
    file_format: str
    output: Path
    threads: int | None = None
    compares: bool = True
    """Whether the artifact's logits are compared with the original's."""


def convert_with(engine: Engine, job: EngineJob, heard: Heard) -> Artifact:
    """Write the artifact; `heard` is told what is being done.

    Raises InputError for what the engine does not write, ConversionError with the engine's last
    words where it fails, RunTimeout where it takes longer than TIMEOUT_S.
    """
    precision = engine.precision(job.recipe, job.file_format)
    python = python_of(engine, heard)
    name = f"{file_stem(job.source.id)}-{job.recipe.lower()}-{engine.name}"
    final = job.output / name
    try:
        job.output.mkdir(parents=True, exist_ok=True)
        _remove_left(job.output, name)
        prefix = f".{name}.{os.getpid()}."
        with tempfile.TemporaryDirectory(prefix=prefix, dir=job.output) as scratch:
            work = Path(scratch).resolve()
            main = work / "output" / f"{name}.{job.file_format}"
            answer = _drive(engine, python, job, precision, main, heard)
            heard("hashing")
            manifest = _manifest(engine, python, job, main, answer)
            write_json(manifest_path(main), manifest.model_dump(mode="json"))
            _replace(final, main.parent, work / "older")
    except OSError as error:
        said = error.strerror or error
        raise ConversionError(f"{final} cannot be written: {said}") from error
    return Artifact(final / main.name, manifest)


def _drive(
    engine: Engine, python: Path, job: EngineJob, precision: str, main: Path, heard: Heard
) -> Answer:
    work = main.parent.parent
    main.parent.mkdir()
    answer = work / "answer.json"
    asked = {
        "model": str(job.source.folder), "output": str(main.parent), "name": main.name,
        "precision": precision, "answer": str(answer), "compare": job.compares,
    }  # fmt: skip
    write_json(work / "job.json", asked)
    command = [str(python), "-IB", "-W", "ignore", str(engine.driver), str(work / "job.json")]
    environment = driver_environment(work, job.threads)
    try:
        execute(
            f"the engine {engine.name}", command, environment=environment, folder=work,
            timeout_s=TIMEOUT_S, heard=heard,
        )  # fmt: skip
    except ConversionError as error:
        if "trust_remote_code" in str(error):
            error.hint = "the model needs code of its own, which edgegauge never executes"
        raise
    if not main.is_file():
        raise ConversionError(f"the engine {engine.name} ended well but wrote no {main.name}")
    try:
        return read_json(answer, Answer)
    except InputError as error:
        raise ConversionError(
            f"the engine {engine.name} ended without an answer: {error}"
        ) from None


def driver_environment(work: Path, threads: int | None) -> dict[str, str]:
    """The variables a driver sees: no token, no network, a home that goes away with the work."""
    passed = {n: os.environ[n] for n in ("PATH", "LANG", "LC_ALL") if n in os.environ}
    limits = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**passed, **limits, **offline, "HOME": str(work), "TMPDIR": str(work)}


def _manifest(engine: Engine, python: Path, job: EngineJob, main: Path, answer: Answer) -> Manifest:
    source, recipe = job.source, job.recipe.lower()
    tools = _versions(engine, python)
    agreement = _agreement(answer.agreement, recipe, tools, engine.name)
    return Manifest(
        model=source.id,
        spec=source.spec,
        recipe=recipe,
        file_format=engine.facts.file_format,
        files=_files(main),
        tensor_bytes=answer.tensor_bytes,
        effective_bits=8 * answer.tensor_bytes / source.parameters,
        origin=source.origin,
        tools={"edgegauge": __version__, "engine": engine.name, **tools},
        agreement=agreement,
        warnings=[] if agreement or not job.compares else [NOT_COMPARED],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _files(main: Path) -> list[ArtifactFile]:
    """Every file in the main one's folder, that one first."""
    folder = main.parent
    found = [p for p in sorted(folder.rglob("*")) if p != main and not p.is_dir()]
    for path in (main, *found):
        if path.is_symlink() or not path.is_file():
            raise ConversionError(f"{path.relative_to(folder)} is no plain file")
    return [
        ArtifactFile(
            name=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=sha256_of(path)
        )
        for path in (main, *found)
    ]


def _versions(engine: Engine, python: Path) -> dict[str, str]:
    found = {d.name: d.version for d in distributions(path=packages_path(python))}
    return {tool: found[tool] for tool in engine.facts.tools if tool in found}


def _agreement(
    compared: Compared | None, recipe: str, tools: dict[str, str], name: str
) -> Agreement | None:
    """What the driver compared, as figures; ConversionError where the artifact is another model."""
    if compared is None:
        return None
    rms, worst = compared.rms_error, compared.max_error
    if rms > MOST_RMS_ERROR or (recipe == "f32" and worst > MOST_ERROR_F32):
        raise ConversionError(
            f"what {name} wrote does not compute the model: its logits are off by {worst:.2g}"
            f" standard deviations at most, {rms:.2g} root mean square; nothing was kept",
            hint="try another engine, or another recipe",
        )
    against = f"torch {tools.get('torch', '')} in f32".replace("  ", " ")

    def figure(value: float, unit: Unit) -> Figure:
        return Figure(value, unit, "measured", f"engine {name} against {against}")

    return Agreement(
        positions=compared.positions,
        max_error=figure(worst, "1"),
        mean_error=figure(compared.mean_error, "1"),
        rms_error=figure(rms, "1"),
        kl_mean=figure(compared.kl_mean, "nat"),
        kl_p99=figure(compared.kl_p99, "nat"),
        kl_max=figure(compared.kl_max, "nat"),
        same_choice=figure(compared.same_choice, "1"),
    )


def _replace(final: Path, new: Path, aside: Path) -> None:
    """Put the new folder in place; an older one goes `aside`, or back if that fails."""
    if final.exists():
        final.rename(aside)
    try:
        new.rename(final)
    except OSError:
        if aside.exists():
            aside.rename(final)
        raise


def _remove_left(output: Path, name: str) -> None:
    """Remove what killed conversions of this artifact left; their process id is in the name."""
    for left in output.glob(f".{name}.*.*"):
        process = left.name.removeprefix(f".{name}.").split(".")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
