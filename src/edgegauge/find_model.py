"""What a model reference means: a catalog id, a Hugging Face folder, a config.json or a GGUF file.

    resolve_model("smollm2-135m").spec
    resolve_model("./my-model").path         # a folder with a config.json
    resolve_model("model-q4_0.gguf").spec    # from the file's header

An exact catalog id wins over a folder of the same name; write `./NAME` for the folder.
`hf:owner/name` is found here only if the catalog has it: nothing is fetched.
"""

from __future__ import annotations

import difflib
import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgegauge import catalog
from edgegauge.config_reader import shown
from edgegauge.errors import InputError
from edgegauge.gguf_header import spec_from_gguf
from edgegauge.model import ModelSpec
from edgegauge.read_config import spec_from_folder

HUB_PREFIX = "hf:"


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A resolved reference: `kind` says what it was, `path` where it is, `entry` what is known."""

    reference: str
    kind: Literal["catalog", "folder", "config", "gguf"]
    spec: ModelSpec
    path: Path | None = None
    entry: catalog.CatalogEntry | None = None


def resolve_model(reference: str) -> FoundModel:
    """The model that this reference means; raises InputError with what there is."""
    entry = _entry(reference)
    if entry is not None:
        return FoundModel(reference, "catalog", entry.spec, entry=entry)
    path = Path(reference)
    if reference.startswith(HUB_PREFIX) or not os.path.exists(reference):
        raise _unknown(reference)
    if path.is_dir():
        return FoundModel(reference, "folder", spec_from_folder(path), path)
    if is_gguf(reference):
        return FoundModel(reference, "gguf", spec_from_gguf(path), path)
    return FoundModel(reference, "config", spec_from_folder(path), path)


def is_gguf(reference: str) -> bool:
    """Whether this names a GGUF file: by its first bytes, or by its name where those are wrong."""
    path = Path(reference)
    if not os.path.isfile(reference):
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF" or path.suffix == ".gguf"
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _entry(reference: str) -> catalog.CatalogEntry | None:
    """The catalog entry with this id or this name on the hub."""
    entries = catalog.load()
    if reference.lower() in entries:
        return entries[reference.lower()]
    hub = reference.removeprefix(HUB_PREFIX).lower()
    if reference.startswith(HUB_PREFIX) or not os.path.exists(reference):
        return next((e for e in entries.values() if e.hub and e.hub.lower() == hub), None)
    return None


def _unknown(reference: str) -> InputError:
    """Nothing has this name: say what is close, and how models are named."""
    name = reference.removeprefix(HUB_PREFIX).split("/")[-1].lower()
    close = difflib.get_close_matches(name, catalog.known_ids(), n=4, cutoff=0.5)
    near = f"; close are {', '.join(close)}" if close else ""
    if reference.startswith(HUB_PREFIX):
        message = f"{shown(reference)} is not in the catalog, and nothing is fetched here{near}"
        return InputError(message, hint="download it, then name its folder")
    return InputError(
        f"no model {shown(reference)}: neither a file, a folder nor a catalog id{near}",
        hint="edgegauge models list shows the catalog",
    )
