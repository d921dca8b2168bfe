"""tflite-runtime 2.14: the session on an interpreter, files that it must refuse, and itself.

LiteRT brings the same interpreter interface, which stands in for the old library, except in the
last test: that runs the old library in an environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from make_graphs import tflite_sum
from make_models import FAMILIES
from test_agreement_tflite import CONTEXT, TOKENS, agrees, artifact_of, computed

from edgegauge.errors import InputError, MissingDependency
from edgegauge.measure.runtimes import litert, tflite_runtime
from edgegauge.measure.runtimes.litert import LiteRtRuntime
from edgegauge.measure.runtimes.tflite_runtime import OldRuntime, check_weights
from edgegauge.measure.runtimes.tflite_session import TfliteSession

ROOT = Path(__file__).parents[1]


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> OldRuntime:
    monkeypatch.setattr(tflite_runtime, "_library", lambda: interpreter)
    monkeypatch.setattr(tflite_runtime, "version", lambda package: "2.14.0")
    return OldRuntime()


@pytest.fixture
def session(old: OldRuntime) -> Iterator[TfliteSession]:
    with closing(old.open(artifact_of("llama", "f32"), threads=1, context=CONTEXT)) as opened:
        yield opened


def test_it_computes_what_litert_computes(session: TfliteSession) -> None:
    rows = np.array(list(session.logits(TOKENS)))
    assert agrees(rows, computed(artifact_of("llama", "f32")), "f32")


def test_pieces_and_rewinding(session: TfliteSession) -> None:
    rows = computed(artifact_of("llama", "f32"))
    for split in (32, 33, 97, 140):
        session.reset()
        session.prefill(TOKENS[:split])
        assert np.abs(session._row() - rows[split - 1]).max() < 1e-3 * rows.std()
        session.step(TOKENS[split])
        assert np.abs(session._row() - rows[split]).max() < 1e-3 * rows.std()
    session.rewind(20)
    session.prefill(TOKENS[20:60])
    assert np.abs(session._row() - rows[59]).max() < 1e-3 * rows.std()


def test_facts(session: TfliteSession) -> None:
    facts = session.facts()
    assert facts["source"] == "tflite-runtime 2.14.0"
    with closing(LiteRtRuntime().open(artifact_of("llama", "f32"), threads=1, context=8)) as other:
        once = other.facts()["buffers_bytes"]["KV/CPU"]
    assert facts["buffers_bytes"]["KV/CPU"] == 4 * once  # in and out of decode and of prefill


@pytest.mark.parametrize("recipe", ["int4", "int4_row"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_weights_that_it_computes_wrongly(old: OldRuntime, family: str, recipe: str) -> None:
    with pytest.raises(InputError, match="computes 4-bit weights") as caught:
        old.open(artifact_of(family, recipe), threads=1, context=8)
    assert "--recipe int8" in str(caught.value.hint)


def test_scales_for_rows_within_a_tensor(old: OldRuntime, tmp_path: Path) -> None:
    whole = artifact_of("llama", "int8").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(whole, 0))
    weights = [t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.INT8]
    weights[-1].quantization.scale = np.ones(2, np.float32)
    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "rows.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(InputError, match="a scale for each row"):
        old.open(path, threads=1, context=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_it_computes_rightly(family: str) -> None:
    for recipe in ("f32", "int8"):
        check_weights(artifact_of(family, recipe))


def test_files_that_are_no_language_models(old: OldRuntime, tmp_path: Path) -> None:
    for content in (b"", b"GGUF" * 100, b"\x20\0\0\0TFL3" + b"\xff" * 64):
        path = tmp_path / "broken.tflite"
        path.write_bytes(content)
        with pytest.raises(InputError):
            old.open(path, threads=1, context=8)
    with pytest.raises(InputError, match="no language model"):
        old.open(tflite_sum(tmp_path / "sum.tflite"), threads=1, context=8)


@given(st.data())
def test_damaged_files_end_in_a_clear_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(tflite_sum(folder / "whole.tflite").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    path = folder / "damaged.tflite"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        check_weights(path)
    except InputError as error:
        assert str(path) in str(error) or path.name in str(error)


@pytest.mark.parametrize(
    "there,chosen",
    [
        ({"ai_edge_litert", "tflite_runtime"}, LiteRtRuntime),
        ({"ai_edge_litert"}, LiteRtRuntime),
        ({"tflite_runtime"}, OldRuntime),
        (set(), LiteRtRuntime),
    ],
)
def test_litert_is_preferred(
    monkeypatch: pytest.MonkeyPatch, there: set[str], chosen: type
) -> None:
    monkeypatch.setattr(litert, "find_spec", lambda name: name if name in there else None)
    assert type(litert.installed()) is chosen


def test_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(tflite_runtime, "version", missing)
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    for call in (OldRuntime().version, OldRuntime().prepare):
        with pytest.raises(MissingDependency) as caught:
            call()
        assert "edgegauge[tflite-runtime]" in str(caught.value.hint)


ALONE = """
import json, sys
from contextlib import closing
from pathlib import Path
import numpy as np
from edgegauge.errors import InputError
from edgegauge.measure.runtimes import runtime_for
tokens, paths = json.load(sys.stdin)
runtime = runtime_for("tflite")
assert (runtime.name, runtime.version()) == ("tflite-runtime", "2.14.0")
assert np.__version__ < "2"
found = {}
for path in paths:
    try:
        with closing(runtime.open(Path(path), threads=1, context=len(tokens))) as session:
            rows = np.array(list(session.logits(tokens)))
            session.reset()
            session.prefill(tokens[:100])
            rows = np.concatenate([rows, session._row()[None]])
            np.save(path + ".npy", rows)
        found[path] = "ran"
    except InputError as error:
        found[path] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python in an environment with tflite-runtime and without LiteRT, NumPy 2 and the rest."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", f"{ROOT}[tflite-runtime]"]
    subprocess.run(pip, check=True)
    return python


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime ends at Python 3.11")
def test_the_library_itself(alone: Path) -> None:
    kinds = [(f, r) for f in FAMILIES for r in ("f32", "int8", "int4")]
    paths = [str(artifact_of(family, recipe)) for family, recipe in kinds]
    done = subprocess.run(
        [str(alone), "-c", ALONE], input=json.dumps([TOKENS, paths]), text=True,
        stdout=subprocess.PIPE, check=True, cwd=alone.parent,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    for (family, recipe), path in zip(kinds, paths, strict=True):
        if recipe == "int4":
            assert "4-bit weights" in found[path]
            continue
        assert found[path] == "ran", (family, recipe)
        *rows, after_prompt = np.load(path + ".npy")
        assert agrees(np.array(rows), computed(Path(path)), recipe), (family, recipe)
        most = (1e-3 if recipe == "f32" else 0.3) * np.std(rows)
        assert np.abs(after_prompt - rows[99]).max() < most, (family, recipe)
