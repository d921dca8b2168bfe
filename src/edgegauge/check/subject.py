"""Subjects: what a gate judges, an artifact on disk or a candidate that is only predicted.

    artifact_subject(open_artifact(Path("model-q4_0.gguf")))
    model_subject("smollm2-135m", "int4", "gguf")

A subject without a spec or recipe (an encoder, a file of an unknown family) has a size on disk and
nothing else; `unpredictable` says why.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgegauge import catalog
from edgegauge.artifact import Artifact
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.find_model import HUB_PREFIX, resolve_model
from edgegauge.fit import published_quality
from edgegauge.gguf_header import spec_from_header, storage, tensor_name
from edgegauge.gguf_reader import GgufHeader, read_header
from edgegauge.model import ModelSpec, Role
from edgegauge.recipe import Recipe, inventory, resolve, tensor_bytes
from edgegauge.recipe_file import TYPES, RecipeFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged; `name` is what the gate and its reports call it."""

    name: str
    model: str
    recipe: Recipe
    file_format: str
    parameters: int
    tensor_bytes: int
    spec: ModelSpec | None
    """None: nothing can be predicted of it."""
    unpredictable: str | None = None
    """Why not."""
    entry: catalog.CatalogEntry | None = None
    """The published model that the weights are those of."""
    artifact: Artifact | None = None
    """None: it is not on disk."""
    disk_bytes: int | None = None
    """Bytes of the artifact's files, as they are."""
    context: int | None = None
    """Tokens that the file has room for, where it fixes them."""

    @property
    def effective_bits(self) -> float:
        """Bits per parameter."""
        return 8 * self.tensor_bytes / max(1, self.parameters)

    def published(self, metric: str) -> Figure | None:
        """The published score of the unquantised weights on this metric, if there is one."""
        return published_quality(self.entry, metric) if self.entry else None


def model_subject(reference: str, recipe: str, file_format: str) -> Subject:
    """A candidate that is not on disk; `reference` as `resolve_model` takes it. InputError."""
    found = resolve_model(reference)
    stored = resolve(recipe, file_format)
    return Subject(
        name=f"{found.spec.id} {stored} {file_format}", model=found.spec.id, recipe=stored,
        file_format=file_format, parameters=found.spec.parameters,
        tensor_bytes=tensor_bytes(found.spec, stored, file_format), spec=found.spec,
        entry=found.entry,
    )  # fmt: skip


def artifact_subject(artifact: Artifact, name: str | None = None) -> Subject:
    """An artifact; InputError where its files are not those that its manifest lists."""
    name = name or str(artifact.path)
    if artifact.manifest is None:
        return _bare_gguf(artifact, name)
    manifest = artifact.manifest
    spec, why = manifest.spec, None
    if spec is None:
        why = "an encoder" if manifest.encoder else "converted by an engine of others"
    else:
        try:
            inventory(spec, manifest.stored_as, manifest.file_format)
        except InputError as error:
            spec, why = None, str(error)
    return Subject(
        name=name, model=manifest.model, recipe=manifest.stored_as,
        file_format=manifest.file_format, parameters=manifest.parameters,
        tensor_bytes=manifest.tensor_bytes, spec=spec, unpredictable=why, entry=_entry(artifact),
        artifact=artifact, disk_bytes=_disk_bytes(artifact), context=manifest.context,
    )  # fmt: skip


def _disk_bytes(artifact: Artifact) -> int:
    """The size of all files, which has to be what the manifest says."""
    assert artifact.manifest
    total = 0
    for file in artifact.manifest.files:
        path = artifact.path.with_name(file.name)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None
        if size != file.bytes:
            raise InputError(
                f"{path} has {size} bytes, but its manifest says {file.bytes}",
                hint="convert the model again, or delete the manifest to use the file as it is",
            )
        total += size
    return total


def _entry(artifact: Artifact) -> catalog.CatalogEntry | None:
    """The catalog's entry of the model that the artifact was made from."""
    assert artifact.manifest
    origin = artifact.manifest.origin
    if origin.kind not in ("hub", "catalog"):
        return None
    hub = origin.reference.removeprefix(HUB_PREFIX).split("@")[0].lower()
    entries = catalog.load().values()
    return next((e for e in entries if hub in (e.id, (e.hub or "").lower())), None)


def _bare_gguf(artifact: Artifact, name: str) -> Subject:
    """A GGUF file without a manifest, described by its header."""
    header = read_header(artifact.path)
    stored = storage(header)
    spec: ModelSpec | None = None
    recipe: Recipe = "unknown"
    why = None
    try:
        spec = spec_from_header(header)
        recipe = _recipe_of(header, spec)
    except InputError as error:
        spec, why = None, str(error)
    return Subject(
        name=name, model=artifact.name, recipe=recipe, file_format="gguf",
        parameters=sum(t.elements for t in stored.types), tensor_bytes=stored.tensor_bytes,
        spec=spec, unpredictable=why, artifact=artifact,
        disk_bytes=artifact.path.stat().st_size,
    )  # fmt: skip


def _recipe_of(header: GgufHeader, spec: ModelSpec) -> RecipeFile:
    """The recipe that stores every matrix as this file does, whatever the file calls it.

    Raises InputError for types that recipes have no name for."""
    matrices = [tensor for tensor in spec.tensors() if not tensor.is_vector]
    types = {tensor: header.tensors[tensor_name(tensor)].type for tensor in matrices}
    if foreign := sorted({*types.values()} - {*TYPES["gguf"]}):
        raise InputError(f"it stores weights in {', '.join(foreign)}")
    usual = Counter(types.values()).most_common(1)[0][0]
    layers: dict[str, dict[Role, str]] = {}
    for tensor, kind in types.items():
        if tensor.layer is not None and kind != usual:
            layers.setdefault(str(tensor.layer), {})[tensor.role] = kind
    outside = {tensor.role: kind for tensor, kind in types.items() if tensor.layer is None}
    return RecipeFile(id="as-stored", format="gguf", matrix=usual, roles=outside, layers=layers)
