"""`edgegauge evaluate --against`: one artifact against another, and against its own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conversions import convert
from make_models import make_folder

from edgegauge.artifact import Artifact
from edgegauge.cli import main
from edgegauge.evaluate.against import AgainstResult, compare_with
from edgegauge.evaluate.agreement import Comparison, common_prefix, quantile

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "m"
    make_folder(made, "llama", seed=3)
    return made


@pytest.fixture(scope="module")
def artifacts(folder: Path) -> dict[str, Artifact]:
    spec = make_folder(folder, "llama", seed=3)
    made = {}
    for recipe in ("f16", "q8_0", "q4_0", "f32"):
        file_format = "onnx" if recipe == "f32" else "gguf"
        made[recipe] = convert(spec, folder, folder.parent, recipe, file_format=file_format)
    return made


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Called:
    def called(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, arguments), "--threads", "1"])
        assert isinstance(ended.value.code, int)
        return (ended.value.code, *capsys.readouterr())

    return called


def test_fewer_bits_cost_more(artifacts: dict[str, Artifact]) -> None:
    costs = {}
    for recipe in ("q8_0", "q4_0"):
        found = compare_with(artifacts[recipe], artifacts["f16"], threads=1)
        kl = found.agreement.kl_mean
        assert kl.low is not None and kl.high is not None and kl.low < kl.value < kl.high
        assert found.agreement.positions == sum(w.positions for w in found.windows)
        assert kl.value == pytest.approx(
            sum(w.kl for w in found.windows) / found.agreement.positions
        )
        assert (found.artifact.recipe, found.other.recipe) == (recipe, "f16")
        costs[recipe] = kl
    assert costs["q8_0"].most < costs["q4_0"].least


def test_an_artifact_against_itself_is_the_same(artifacts: dict[str, Artifact]) -> None:
    found = compare_with(artifacts["q8_0"], artifacts["q8_0"], limit=3, threads=1)
    assert found.agreement.kl_max.value == 0 and found.agreement.max_error.value == 0
    assert found.agreement.same_choice.value == 1 and found.greedy_prefix.value == 32


def test_two_runtimes_agree_on_one_model(artifacts: dict[str, Artifact]) -> None:
    found = compare_with(artifacts["f32"], artifacts["f16"], limit=3, threads=1)
    assert found.tool.runtime == "ONNX Runtime" and found.other_runtime.startswith("llama.cpp")
    assert found.agreement.kl_mean.value < 1e-4 and found.agreement.same_choice.value > 0.97


def test_on_a_text_as_json_and_in_a_file(
    artifacts: dict[str, Artifact], call: Called, tmp_path: Path
) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("the lamp is on and the door is open " * 60)
    output = tmp_path / "found.json"
    status, out, _ = call(artifacts["q4_0"].path, "--against", artifacts["q8_0"].path,
                          "--text", text, "--limit", 2, "--json", "-o", output)  # fmt: skip
    assert status == 0 and json.loads(out) == json.loads(output.read_text())
    found = AgainstResult.model_validate_json(out)
    assert found.text == "mine.txt" and len(found.windows) == 2


def test_a_table(artifacts: dict[str, Artifact], call: Called) -> None:
    status, out, _ = call(artifacts["q4_0"].path, "--against", artifacts["q8_0"].path)
    assert status == 0 and "tiny-llama-q4_0 against tiny-llama-q8_0" in out
    for words in ("KL divergence, mean", "same choice", "greedy tokens in common", "of 32"):
        assert words in out


def test_against_its_own_model(artifacts: dict[str, Artifact], call: Called) -> None:
    status, out, _ = call(artifacts["q4_0"].path, "--against", "f32", "--json")
    document = json.loads(out)
    assert status == 0 and document["original"]["kl_mean"]["value"] > 0.01
    assert document["own_weights"]["kl_mean"]["value"] < 0.01
    status, out, _ = call(artifacts["q8_0"].path, "--against", "f32")
    assert status == 0 and "against its model" in out and "its own stored weights" in out


def test_other_vocabularies_do_not_compare(
    artifacts: dict[str, Artifact], call: Called, tmp_path: Path
) -> None:
    spec = make_folder(tmp_path / "q", "qwen2", seed=3)
    other = convert(spec, tmp_path / "q", tmp_path, "q8_0")
    status, _, err = call(artifacts["q8_0"].path, "--against", other.path)
    assert status == 1 and "not one vocabulary" in err


@pytest.mark.parametrize(
    "arguments", [("--task", "x.jsonl"), ("--text", "x.txt")], ids=["a task", "a text"]
)
def test_what_does_not_go_together(
    arguments: tuple[str, str], artifacts: dict[str, Artifact], call: Called
) -> None:
    assert call(artifacts["q8_0"].path, "--against", "f32", *arguments)[0] == 2


def test_a_comparison_is_that_of_the_formulas() -> None:
    random = np.random.RandomState(0)
    expected = random.randn(40, 30).astype(np.float32) * 3
    computed = expected + 0.1 * random.randn(40, 30).astype(np.float32)
    found = Comparison()
    for start in range(0, 40, 7):
        found.add(expected[start : start + 7], computed[start : start + 7])
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (expected, computed))
    assert np.allclose(found.kl, (p * np.log(p / q)).sum(1), atol=1e-6)
    error = np.abs(computed - expected) / expected.std()
    made = found.agreement("test", (3, 8))
    assert made.max_error.value == pytest.approx(error.max(), rel=1e-5)
    assert made.mean_error.value == pytest.approx(error.mean(), rel=1e-5)
    assert made.rms_error.value == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert made.same_choice.value == np.mean(expected.argmax(1) == computed.argmax(1))
    assert (made.greedy_prefix, made.greedy_tokens) == (3, 8)


def test_what_is_not_finite_agrees_with_nothing() -> None:
    found = Comparison()
    found.add(np.ones((1, 4), np.float32).cumsum(1), np.full((1, 4), np.nan, np.float32))
    assert found.rms == float("inf") and found.kl == [float("inf")]


def test_quantiles_have_intervals_where_there_are_enough_values() -> None:
    value, unit, (low, high) = quantile([float(i) for i in range(1, 1001)], 0.99)
    assert (value, unit) == (990.0, "nat") and 980 < low < 985 and 995 < high <= 998
    assert quantile([1.0, 2.0], 0.99)[2] == (1.0, None)


def test_common_prefixes() -> None:
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0
