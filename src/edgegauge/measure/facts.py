"""What can be said of an artifact: its hash, its shape, and the facts that a result file keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgegauge.artifact import Artifact, sha256_of
from edgegauge.errors import EdgeGaugeError, InputError
from edgegauge.model import ModelSpec
from edgegauge.result import ArtifactFacts


def digest_of(artifact: Artifact) -> str:
    """SHA-256 of the artifact's main file; InputError where a file is not that of the manifest."""
    main = _sha256(artifact.path)
    for file in artifact.manifest.files if artifact.manifest else ():
        path = artifact.path.with_name(file.name)
        digest = main if path == artifact.path else _sha256(path)
        if file.sha256 != digest:
            raise InputError(
                f"{path} has SHA-256 {digest}, but its manifest says {file.sha256}",
                hint="convert the model again, or delete the manifest to use the file as it is",
            )
    return main


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def spec_of(artifact: Artifact) -> ModelSpec | None:
    """The model's shape, from the manifest or the file's header; None for an unknown family.

    InputError for what its manifest calls no language model.
    """
    if artifact.manifest:
        if artifact.manifest.encoder is not None:
            raise InputError(
                f"{artifact.path} is an encoder, which turns texts into vectors: no language model",
                hint="`edgegauge measure` runs encoders in ONNX and TFLite",
            )
        return artifact.manifest.spec
    from edgegauge.gguf_header import spec_from_gguf

    try:
        return spec_from_gguf(artifact.path)
    except EdgeGaugeError:  # the runtime may still know this family, and says so if it does not
        return None


def artifact_facts(artifact: Artifact, digest: str, runtime_facts: dict[str, Any]) -> ArtifactFacts:
    """What the manifest says, or for a bare file what the runtime found in it."""
    manifest = artifact.manifest
    parameters = runtime_facts.get("parameters")
    tensor_bytes = runtime_facts.get("tensor_bytes")
    bits = 8 * tensor_bytes / parameters if parameters and tensor_bytes else None
    return ArtifactFacts(
        name=artifact.name,
        model=manifest.model if manifest else artifact.name,
        recipe=manifest.recipe if manifest else None,
        format=artifact.file_format,
        file_bytes=artifact.bytes,
        sha256=digest,
        parameters=manifest.parameters if manifest else parameters,
        effective_bits=manifest.effective_bits if manifest else bits,
        synthetic=manifest.origin.synthetic if manifest else False,
    )
