"""Converting small models in tests, and verifying what came of it in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_models import make_folder, make_spec, tensor_name

from edgegauge.artifact import Artifact, Origin, open_artifact
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.model import ModelSpec
from edgegauge.verify import Job, Spec, verifier_for


def quiet(done: float, note: str) -> None:
    """No progress."""


def conversion(
    spec: ModelSpec, folder: Path | None, output: Path, recipe: str = "q8_0", **more: Any
) -> ConversionJob:
    """The job of converting the checkpoint in `folder`, or random weights."""
    origin = Origin(kind="folder", reference=str(folder), synthetic=folder is None)
    return ConversionJob(
        spec=spec, folder=folder, origin=origin, recipe=recipe, output=output, **more
    )


def convert(
    spec: ModelSpec, folder: Path | None, output: Path, recipe: str = "q8_0",
    threads: int | None = None, *, file_format: str = "gguf",
) -> Artifact:  # fmt: skip
    job = conversion(spec, folder, output, recipe, threads=threads)
    return converter_for(file_format).convert(job, quiet)


def check(artifact: Artifact, spec: Spec, folder: Path | None) -> Any:
    """What verification finds; an error where it refuses the artifact."""
    manifest = artifact.manifest
    assert manifest is not None
    job = Job(
        path=artifact.path, file_format=manifest.file_format, recipe=manifest.recipe, spec=spec,
        folder=folder, threads=1,
    )  # fmt: skip
    return verifier_for(job).verify(job, quiet)


LIMITED = """
import resource, sys
from pathlib import Path
from edgegauge.artifact import Origin
from edgegauge.convert import ConversionJob, converter_for
from edgegauge.read_config import spec_from_folder
folder, output, recipe, file_format = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:5]
converter = converter_for(file_format)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
job = ConversionJob(spec=spec_from_folder(folder, "big"), folder=folder, recipe=recipe,
                    origin=Origin(kind="folder", reference="big"), output=output, threads=2)
converter.convert(job, lambda done, what: None)
"""


def convert_large(path: Path, recipe: str, file_format: str) -> tuple[ModelSpec, Artifact]:
    """256 MB of weights, one tensor of 134 MB, within 100 MB more than the imports take."""
    folder = path / "big"
    small = make_folder(folder, "llama", dtype="f32", vocab=512)
    spec = make_spec("llama", hidden=1024, intermediate=4096, heads=16, kv_heads=8, head_dim=64,
                     layers=2, vocab=32768)  # fmt: skip
    make_sparse_weights(folder, small, spec)
    assert (folder / "model.safetensors").stat().st_size > 250e6
    subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder), str(path / "out"), recipe, file_format],
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # glibc reserves 64 MiB for each thread
        check=True, timeout=300,
    )  # fmt: skip
    return spec, open_artifact(path / "out")


def make_sparse_weights(folder: Path, small: ModelSpec, spec: ModelSpec) -> None:
    """Make the model in `folder` a large one of zeros, which take no space on disk."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_size": spec.hidden, "intermediate_size": spec.intermediate,
               "num_attention_heads": spec.heads, "num_key_value_heads": spec.kv_heads,
               "head_dim": spec.head_dim, "num_hidden_layers": spec.layers,
               "vocab_size": spec.vocab}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for tensor in spec.tensors():
        shape = [tensor.cols] if tensor.is_vector else [tensor.rows, tensor.cols]
        span = [end, end + 4 * tensor.elements]
        header[tensor_name(spec, tensor)] = {"dtype": "F32", "shape": shape, "data_offsets": span}
        end = span[1]
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)
