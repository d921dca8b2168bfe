"""`--recipe auto`: the search against trying everything, and the whole way in each format."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_models import make_folder, make_spec

import edgegauge.auto
from edgegauge import ladder
from edgegauge.artifact import open_artifact
from edgegauge.auto import Goal, convert_auto
from edgegauge.cli import main
from edgegauge.convert import ConversionJob, prepare
from edgegauge.errors import ConversionError, InputError
from edgegauge.model import ModelSpec, Tensor
from edgegauge.recipe import TOGETHER, stored_tensors, tensor_bytes
from edgegauge.recipe_file import RecipeFile, read_recipe
from edgegauge.verify import verify_again
from edgegauge_converters import auto
from edgegauge_converters.auto_groups import groups_of, recipe_of
from edgegauge_converters.blueprint import Linear, Operation
from edgegauge_converters.plain_rows import PlainRows
from edgegauge_converters.reference import Reference, Weights
from edgegauge_converters.rounding import runtime_rounding
from edgegauge_converters.sensitivity import Passes, Types
from edgegauge_converters.stored_values import stored_values
from edgegauge_converters.weights import Checkpoint

LADDER = ladder.path() / "ladder-0.2m"
TEXT = ladder.path() / "heldout.txt"
FORMATS = ("gguf", "onnx", "tflite")


def quiet(done: float, note: str) -> None:
    del done, note


def job_of(folder: Path, output: Path) -> ConversionJob:
    return prepare(str(folder), "f32", "gguf").into(output, threads=1)


@contextmanager
def searching(file_format: str, folder: Path = LADDER) -> Iterator[auto.AutoSearch]:
    goal = Goal(file_format=file_format, text=TEXT.read_text()[:4000])
    with auto.begin(job_of(folder, folder), goal, quiet) as search:
        yield search


def execute(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def roughly(monkeypatch: pytest.MonkeyPatch, positions: int = 72) -> None:
    """Tell no layers apart, on few positions: the same search in less time."""
    monkeypatch.setattr(auto, "stretches_of", lambda spec, file_format: 1)
    monkeypatch.setattr(auto, "positions_for", lambda spec: (positions, []))


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_whole_way(
    file_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Within the limit as measured on the artifact; repeated by the file; read back without it."""
    roughly(monkeypatch, positions=256)
    options = ("--format", file_format, "--threads", 1)
    assert execute("convert", LADDER, *options, "--recipe", "auto", "--max-kl", 0.02,
                   "--text", TEXT, "-o", tmp_path / "a", "--json") == 0  # fmt: skip
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert manifest["recipe"] == "auto-kl0.02" and manifest["verification"]["on"] == "given text"
    assert 0.008 < manifest["verification"]["original"]["kl_mean"]["value"] <= 0.02
    (path,) = (tmp_path / "a").rglob("*.recipe.toml")
    recipe = read_recipe(path)
    assert manifest["recipe_file"] == recipe.model_dump(mode="json")
    assert recipe.found is not None and recipe.found.kl.low is not None
    assert recipe.found.kl.low < recipe.found.kl.value <= 0.02
    job = job_of(LADDER, tmp_path)
    assert manifest["tensor_bytes"] == tensor_bytes(job.spec, recipe, file_format)

    assert execute("convert", LADDER, *options, "--recipe", path, "-o", tmp_path / "b",
                   "--no-verify") == 0  # fmt: skip
    again = open_artifact(tmp_path / "b")
    assert again.manifest is not None
    hashes = [f["sha256"] for f in manifest["files"]]
    assert [f.sha256 for f in again.manifest.files] == hashes
    path.unlink()
    assert verify_again(again, threads=1).positions == 256


def test_it_is_smaller_than_shipped_recipes_at_their_divergence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(auto, "positions_for", lambda spec: (72, []))
    for file_format, shipped in (("gguf", ("q4_0", "q4_k_m")), ("onnx", ("int8", "int4"))):
        with searching(file_format) as search:
            for name in shipped:
                stored = stored_tensors(search.spec, name, file_format)
                types = {s.tensor: s.type for s in stored if not s.tensor.is_vector}
                recipe = search.recipe("found", search.mixture(types).mean)
                size = tensor_bytes(search.spec, recipe, file_format)
                assert size <= tensor_bytes(search.spec, name, file_format), (name, size)


def test_against_trying_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap that docs/explanation/recipes.md states: five groups with three types each."""
    monkeypatch.setitem(auto.CANDIDATES, "onnx", ("INT8/128", "INT4/32", "INT4/128"))
    roughly(monkeypatch, positions=36)
    make_folder(tmp_path, "llama", layers=1)
    with searching("onnx", tmp_path) as search:
        mixtures = []
        for types in itertools.product(*search.options.values()):
            chosen = list(zip(search.options, types, strict=True))
            mixtures.append(search.mixture({t: x for g, x in chosen for t in g.tensors}))
        kls = [mixture.mean for mixture in mixtures]
        gaps = []
        for limit in np.geomspace(1.2 * min(kls), 0.9 * max(kls), 6):
            best = min(mixture.bytes for mixture in mixtures if mixture.mean <= limit)
            recipe = search.recipe("found", float(limit))
            matrices = [
                s.bytes for s in stored_tensors(search.spec, recipe, "onnx")
                if not s.tensor.is_vector
            ]  # fmt: skip
            gaps.append(sum(matrices) / best - 1)
        assert min(gaps) >= 0 and max(gaps) <= 0.05 and sorted(gaps)[3] == 0


@pytest.mark.parametrize("file_format", FORMATS)
def test_divergences_are_those_of_a_plain_pass(file_format: str, tmp_path: Path) -> None:
    """Resuming, sharing weights and going side by side change nothing."""
    spec = make_folder(tmp_path, "gemma3")
    tokens = list(range(3, 40))
    with Checkpoint(tmp_path, spec) as checkpoint:
        weights = PlainRows(checkpoint, spec)
        passes = Passes(spec, weights, file_format, tokens, [3], threads=2)
        group = next(
            g for g in groups_of(spec, file_format, 2)
            if g.tensors[0].role == "ffn_down" and g.start == 3
        )  # fmt: skip
        kinds = auto.types_of(group, file_format)[1:3]
        variants = [dict.fromkeys(group.tensors, type) for type in kinds]
        found = passes.divergences(variants, group.start)
        for types, kl in zip(variants, found, strict=True):
            wanted = plainly(spec, weights, file_format, types, tokens)
            # Of divergences of 1e-5, 1e-6 is the noise of logits in single precision.
            assert kl == pytest.approx(wanted, rel=1e-2, abs=2e-6)


def plainly(
    spec: ModelSpec, weights: Weights, file_format: str, types: Types, tokens: list[int]
) -> list[float]:
    """The divergences of one variant by one pass of the reference and their definition."""
    keep = stored_values(file_format)
    runtime = runtime_rounding(file_format, types.__getitem__)

    def stored(tensor: Tensor) -> Any:
        return keep(weights(tensor), types[tensor]) if tensor in types else weights(tensor)

    def rounding(operation: Operation, inputs: list[Any]) -> list[Any]:
        mine = isinstance(operation, Linear) and operation.weight in types
        return runtime(operation, inputs) if mine else inputs

    reference = Reference(spec, stored)
    *_, (_, hidden) = reference.values(tokens, rounding)
    computed = np.stack(list(reference.head(hidden)))
    expected = Reference(spec, weights).logits(tokens)
    p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (expected, computed))
    found: list[float] = (np.exp(p) * (p - q)).sum(1).tolist()
    return found


def test_groups_hold_every_matrix_once() -> None:
    for family in ("llama", "llama3", "mobilellm", "gemma3"):
        spec = make_spec(family)
        for file_format, stretches in itertools.product(FORMATS, (1, 2, spec.layers)):
            groups = groups_of(spec, file_format, stretches)
            tensors = [t for group in groups for t in group.tensors]
            assert sorted(map(str, tensors)) == sorted(
                str(t) for t in spec.tensors() if not t.is_vector
            )
            sizes = sum(g.bytes("F32", spec, file_format) for g in groups)
            whole = stored_tensors(spec, "f32", file_format)
            assert sizes == sum(s.bytes for s in whole if not s.tensor.is_vector)


def test_projections_of_one_input_stay_together() -> None:
    for group in groups_of(make_spec("llama"), "tflite", 1):
        roles = {t.role for t in group.tensors}
        assert all(not roles & set(t) or roles == set(t) for t in TOGETHER)


def test_a_recipe_says_every_type_again() -> None:
    spec = make_spec("llama", layers=6)
    types = {
        t: ("Q8_0", "Q4_0", "Q5_0")[(t.layer or 0) // 2 % (2 + (t.role == "ffn_up"))]
        for t in spec.tensors() if not t.is_vector
    }  # fmt: skip
    fields = recipe_of(spec, types)
    assert set(fields["layers"]) <= {"0-1", "2-3", "4-5"}
    recipe = RecipeFile(id="x", format="gguf", **fields)
    assert {t: recipe.type_of(t) for t in types} == types


def test_what_cannot_be_reached_names_the_least(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    roughly(monkeypatch)
    assert execute("convert", LADDER, "--recipe", "auto", "--max-kl", 1e-12, "-o", tmp_path) == 1
    said = capsys.readouterr().err
    assert "no mixture keeps the KL divergence within 1e-12 nat" in said
    assert "with the widest types of gguf it is" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--recipe", "auto"], 2, "--max-kl"),
        (["--max-kl", "0.1"], 2, "--recipe auto"),
        (["--recipe", "q8_0", "--text", "x.txt"], 2, "--text"),
        (["--recipe", "auto", "--max-kl", "0"], 2, "0"),
        (["--recipe", "auto", "--max-kl", "0.1", "--synthetic"], 1, "these are random"),
        (["--recipe", "auto", "--max-kl", "0.1", "--text", "absent.txt"], 1, "absent.txt"),
        (["--recipe", "absent.toml"], 1, "absent.toml"),
    ],
)
def test_wrong_use(
    arguments: list[str], status: int, said: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert execute("convert", LADDER, *arguments, "-o", tmp_path) == status
    assert said in capsys.readouterr().err


def test_without_a_tokenizer_it_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, "llama")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"auto reads its text with tokenizer\.json"):
        searching("gguf", tmp_path).__enter__()


def test_effort_decides_how_finely_layers_are_told_apart() -> None:
    small, large = make_spec("llama"), make_spec("llama", layers=40, hidden=2048, intermediate=8192)
    assert auto.stretches_of(small, "gguf") == small.layers
    assert auto.stretches_of(large, "gguf") == auto.LEAST_STRETCHES
    assert auto.positions_of(small) == (224, 224) and auto.positions_of(large)[1] < 64


def test_the_interval_widens_with_what_depends() -> None:
    alternating, in_runs = [0.0, 1.0] * 32, [0.0] * 32 + [1.0] * 32
    assert auto.half_width(alternating) < 1e-9 < auto.half_width(in_runs)


MINE = {
    "gguf": """
        matrix = "Q5_0"
        roles = { token_embd = "Q8_0" }
        [layers]
        0 = { attn_q = "Q4_0", attn_k = "F16", ffn_down = "Q5_1" }
        2 = { ffn_up = "F32" }""",
    "onnx": """
        matrix = "INT4/32"
        roles = { token_embd = "INT8/64" }
        [layers]
        0 = { attn_q = "F32", attn_k = "INT8/32", ffn_down = "INT4/16" }
        2 = { ffn_up = "F32" }""",
    "tflite": """
        matrix = "INT4/32"
        roles = { token_embd = "INT8" }
        [layers]
        0 = { ffn_down = "F32" }
        2 = { ffn_up = "INT8", ffn_gate = "INT8", attn_output = "INT4" }""",
}


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_recipe_by_hand(
    file_format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any mixture runs in the runtime and computes its model: verification says so."""
    spec = make_folder(tmp_path / "m", "llama", id="m")
    mine = tmp_path / "mine.toml"
    mine.write_text(f'id = "mine"\nformat = "{file_format}"\n{MINE[file_format]}')
    assert execute("convert", tmp_path / "m", "--format", file_format, "--recipe", mine,
                   "--threads", 1, "-o", tmp_path, "--json") == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    manifest = document["manifest"]
    assert "m-mine." in document["artifact"] and manifest["verification"] is not None
    assert manifest["tensor_bytes"] == tensor_bytes(spec, read_recipe(mine), file_format)
    assert len({s.type for s in stored_tensors(spec, read_recipe(mine), file_format)}) >= 4


class Promises:
    """A search whose recipes are not what it says; `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def recipe(self, id: str, max_kl: float) -> RecipeFile:
        self.asked.append(max_kl)
        return RecipeFile(id=id, format="gguf", matrix="Q8_0")


@pytest.mark.parametrize("measured", [[0.02, 0.009], [0.02, 0.02, 0.02]])
def test_the_artifact_decides(
    measured: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One over the limit is made again with less, and none is left if that does not help."""
    make_folder(tmp_path / "m", "llama")
    job, found, results = job_of(tmp_path / "m", tmp_path / "out"), Promises(), iter(measured)
    monkeypatch.setattr(edgegauge.auto, "_measured", lambda artifact: next(results))

    def convert() -> None:
        goal = Goal(file_format="gguf")
        convert_auto(job, goal, found, 0.01, verifies=False, progress=quiet)

    if measured[-1] > 0.01:
        with pytest.raises(ConversionError, match=r"0\.02 nat, over 0\.01, after 3 tries"):
            convert()
        assert not list((tmp_path / "out").iterdir())
    else:
        convert()
        assert len(list((tmp_path / "out").iterdir())) == 3
    assert found.asked == pytest.approx([0.01, 0.01 * 0.475, 0.01 * 0.475**2][: len(measured)])
