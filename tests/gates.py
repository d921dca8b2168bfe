"""Gate files and artifacts for the tests of `edgegauge check`: small, and some of them not real."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgegauge import catalog
from edgegauge.recipe import effective_bits, tensor_bytes

PI = "raspberry-pi-5-8gb"
ZERO = "raspberry-pi-zero-2-w"


def write_gate(folder: Path, text: str, name: str = "gate.toml") -> Path:
    """A gate in this folder, on one device unless the text names some."""
    devices = "" if "devices =" in text.split("[")[0] else f'devices = ["{PI}"]\n'
    path = folder / name
    path.write_text(devices + text)
    return path


def write_artifact(
    path: Path, *, model: str = "smollm2-135m", recipe: str = "q4_0", size: int = 1000,
    origin: str = "folder", context: int | None = None,
) -> Path:  # fmt: skip
    """A file of zeros whose manifest says that it is this model of the catalog; of a large one no
    digest."""
    spec = catalog.load()[model].spec
    file_format = path.suffix.removeprefix(".")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(size)
    digest = hashlib.sha256(bytes(size if size < 10**6 else 0)).hexdigest()
    manifest = {
        "model": model, "spec": spec.model_dump(mode="json"), "recipe": recipe,
        "file_format": file_format,
        "files": [
            {"name": path.name, "bytes": size, "sha256": digest}
        ],
        "tensor_bytes": tensor_bytes(spec, recipe, file_format),
        "effective_bits": effective_bits(spec, recipe, file_format), "context": context,
        "origin": {"kind": origin, "reference": model}, "tools": {}, "created": "2026-11-23",
    }  # fmt: skip
    path.with_name(f"{path.name}.manifest.json").write_text(json.dumps(manifest))
    return path
