"""The shipped engines for real: gigabytes are fetched, so only where EDGEGAUGE_REAL_ENGINES says.

    EDGEGAUGE_REAL_ENGINES=genai,optimum,litert-torch python -m pytest tests/test_engines_real.py

Environments are kept in the user's cache folder (XDG_CACHE_HOME), so a second time is quick.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from make_models import make_folder

from edgegauge.engines import find_engine
from edgegauge.engines.conversion import EngineJob, convert_with
from edgegauge.engines.source import source_of
from edgegauge.measure.facts import digest_of

CHOSEN = [name for name in os.environ.get("EDGEGAUGE_REAL_ENGINES", "").split(",") if name]
GRANITE = {
    "architectures": ["GraniteForCausalLM"], "model_type": "granite", "embedding_multiplier": 1.5,
    "logits_scaling": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2,
}  # fmt: skip
"""Llama's tensors under arithmetic that no blueprint here describes."""

CASES = [
    (name, kind, recipe)
    for name in CHOSEN
    for recipe in find_engine(name).facts.recipes
    for kind in ("llama", "granite")
]
MOST_RMS = {"f32": 1e-3, "int8": 0.2, "int4": 0.8}

pytestmark = pytest.mark.skipif(not CHOSEN, reason="EDGEGAUGE_REAL_ENGINES names no engine")


@pytest.mark.parametrize("name,kind,recipe", CASES)
def test_the_artifact_computes_the_model(name: str, kind: str, recipe: str, tmp_path: Path) -> None:
    folder = tmp_path / f"tiny-{kind}"
    make_folder(folder, "llama", tokenizer="llama3")
    if kind == "granite":
        config = json.loads((folder / "config.json").read_text()) | GRANITE
        (folder / "config.json").write_text(json.dumps(config))
    engine, source = find_engine(name), source_of(str(folder))
    assert (source.spec is None) == (kind == "granite")
    job = EngineJob(
        source=source, recipe=recipe, file_format=engine.facts.file_format, output=tmp_path / "out"
    )
    artifact = convert_with(engine, job, lambda note: None)
    manifest = artifact.manifest
    assert manifest is not None and manifest.agreement is not None
    assert manifest.agreement.rms_error.value < MOST_RMS[recipe]
    assert set(engine.facts.tools) <= set(manifest.tools)
    assert 0 < manifest.tensor_bytes <= artifact.bytes
    assert any(file.name == "tokenizer.json" for file in manifest.files)
    assert len(digest_of(artifact)) == 64
