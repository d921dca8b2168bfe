"""The model that an engine converts: a Hugging Face folder of any architecture.

    source = source_of("hf:microsoft/phi-2")
    source.folder, source.spec       # spec is None: no blueprint knows this architecture

Weights must be safetensors: a pickle can execute anything while it is read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgegauge import catalog, hub
from edgegauge.artifact import Origin
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec
from edgegauge.read_config import id_of, spec_from_folder

MAX_HEADER_BYTES = 100_000_000
"""Of a safetensors file; the format's own library refuses more."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder with a model: its id, where it came from, and its spec where one describes it."""

    id: str
    folder: Path
    origin: Origin
    spec: ModelSpec | None
    parameters: int
    """Stored parameters."""


def source_of(reference: str) -> Source:
    """The model of a folder, `hf:owner/name[@revision]` or a catalog id; fetches the latter two.

    Raises InputError.
    """
    entry = catalog.load().get(reference.lower())
    if entry is not None and entry.hub is not None:
        reference = hub.HUB_PREFIX + entry.hub
    if reference.startswith(hub.HUB_PREFIX):
        folder = hub.fetch(reference)
        repo, _ = hub.parse_reference(reference)
        origin = Origin(kind="hub", reference=f"{hub.HUB_PREFIX}{repo}@{folder.name}")
        return _source(repo.split("/")[1].lower(), folder, origin)
    folder = Path(reference)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"no model folder {reference!r}",
            hint="an engine converts a folder with config.json and safetensors, or hf:owner/name",
        )
    return _source(
        id_of(folder / "config.json"), folder, Origin(kind="folder", reference=reference)
    )


def _source(id: str, folder: Path, origin: Origin) -> Source:
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise InputError(
            f"no model*.safetensors in {folder}", hint="weights in pickles are never read"
        )
    try:
        spec = spec_from_folder(folder, id=id)
    except InputError:  # outside the blueprint, which is what engines are for
        spec = None
    parameters = spec.parameters if spec else sum(map(stored_parameters, files))
    return Source(id, folder.resolve(), origin, spec, parameters)


def stored_parameters(path: Path) -> int:
    """Elements of all tensors of a safetensors file, from its header; InputError."""
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > MAX_HEADER_BYTES:
                raise InputError(
                    f"the header of {path} would have {size} bytes: no safetensors file"
                )
            text = stream.read(size)
        if len(text) < size:
            raise InputError(f"{path} is cut off: no complete header of a safetensors file")
        header: dict[str, Any] = json.loads(text)
        shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        return sum(math.prod(map(int, shape)) for shape in shapes)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} has no header of a safetensors file: {error}") from None
