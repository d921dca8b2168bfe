"""Gate files: what is wrong with them is told at once, with its place, whatever they hold."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest
from gates import PI, write_artifact, write_gate
from hypothesis import given, settings
from hypothesis import strategies as st

from edgegauge.check.gate import Gate, read_gate
from edgegauge.check.targets import find_targets
from edgegauge.errors import InputError
from edgegauge.toml import dumps

SUBJECT = {"model": "smollm2-135m", "formats": ["gguf"], "recipes": ["q4_0"]}
WHOLE: dict[str, Any] = {
    "format": 1, "title": "All of it", "devices": [PI], "prompt_tokens": 64, "context": 512,
    "cannot_tell": "breaks", "budget": {"memory": "1GB", "decode_tok_per_s": 5},
    "device_budget": {PI: {"decode_tok_per_s": 2.5}},
    "subject": [SUBJECT, {"artifact": "a.gguf", "devices": [PI], "budget": {"file_size": 10}}],
    "quality": {"task": "t.jsonl", "exact_match_at_least": 0.5, "limit": 3},
    "paired": [{"artifact": "a.gguf", "baseline": "b.gguf"}],
    "baseline": {"growth_at_most": 0.02},
}  # fmt: skip


def problems(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        find_targets(read_gate(path), path)
    assert path.name in str(caught.value)
    return str(caught.value)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in WHOLE.items() if k != key}


def test_a_whole_gate_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(dumps(WHOLE))
    gate = read_gate(path)
    assert gate == Gate.model_validate(WHOLE)
    assert gate.limits(gate.subject[1], PI).decode_tok_per_s == 2.5
    assert gate.limits(gate.subject[1], PI).memory == 10**9


@pytest.mark.parametrize(
    "change,said",
    [
        ({"devices": []}, "devices: "),
        ({"devices": [PI, PI]}, "devices: a device is named twice"),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"subject": [{}]}, "subject.0: give either artifact or model"),
        ({"subject": [SUBJECT | {"artifact": "a.gguf"}]}, "subject.0: give either"),
        ({"subject": [{"model": "smollm2-135m"}]}, "subject.0: a model needs formats and recipes"),
        (
            {"subject": [{"artifact": "a", "recipes": ["q4_0"], "formats": ["gguf"]}]},
            "takes neither",
        ),
        ({"subject": [SUBJECT | {"devices": ["x"]}]}, "subject.0.devices: 'x' is not one of the"),
        ({"device_budget": {"x": {}}}, "device_budget.x: 'x' is not one of the gate's devices"),
        ({"budget": {"memory": "lots"}}, "budget.memory: not a size: 'lots'"),
        ({"budget": {"decode_tok_per_s": -1}}, "budget.decode_tok_per_s: must be > 0, got -1"),
        (
            {"budget": {"quality": {"metric": "exact_match", "at_least": 0.9}}},
            "budget.quality: exact_match is evaluated, and not published: set its floor in",
        ),
        ({"quality": {"task": "t"}}, "task and exact_match_at_least are given together"),
        ({"quality": {}}, "give a task or a text"),
        ({"paired": [{"artifact": "a"}]}, "paired.0: give a baseline"),
        ({"baseline": {"file": "../../elsewhere.json"}}, "baseline.file: "),
        ({"cannot_tell": "maybe"}, "cannot_tell: "),
    ],
)
def test_what_a_gate_cannot_mean_is_said_with_its_place(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(dumps(WHOLE | change))
    assert said in problems(path)


def test_the_gates_of_the_manual_are_gates(tmp_path: Path) -> None:
    manual = Path(__file__).parents[1] / "docs" / "how-to"
    for page in ("check-a-budget.md", "gate-in-ci.md"):
        for block in re.findall(r"```toml\n(.*?)```", (manual / page).read_text(), re.S):
            path = tmp_path / "gate.toml"
            whole = block if "devices" in block else dumps(without("paired")) + block
            path.write_text(whole)
            assert read_gate(path).devices


def test_a_plain_budget_is_told_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "kitchen.toml"
    path.write_text('memory = "900MB"\ndecode_tok_per_s = 10\n')
    with pytest.raises(InputError, match="is a budget: it says what is required") as caught:
        read_gate(path)
    assert "[budget]" in str(caught.value.hint) and "[[subject]]" in str(caught.value.hint)


def test_everything_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    gate = write_gate(tmp_path, f"""devices = ["{PI}", "no-such-board", "boards/x.toml"]
[quality]
task = "nowhere.jsonl"
exact_match_at_least = 0.5
[[subject]]
artifact = "build/*.gguf"
[[subject]]
model = "smollm9"
formats = ["gguf"]
recipes = ["q4_0"]
[[subject]]
model = "smollm2-135m"
formats = ["gguf", "onnx"]
recipes = ["int3"]
[[paired]]
artifact = "a.gguf"
baseline = "b.gguf"
""")  # fmt: skip
    said = problems(gate)
    for place in ("devices.1: no device profile", "devices.2: cannot read", "quality: cannot read",
                  "subject.0: 'build/*.gguf' matches nothing", "subject.1: no model 'smollm9'",
                  "subject.2: ", "paired.0: no such artifact"):  # fmt: skip
        assert place in said
    assert said.startswith("7 problems") or said.startswith("8 problems")


def test_patterns_find_artifacts_once(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_artifact(tmp_path / "build" / f"{name}.gguf")
    gate = write_gate(tmp_path, "[[subject]]\nartifact = 'build/*'\n")
    found = find_targets(read_gate(gate), gate).targets
    assert [t.subject.name for t in found] == ["build/a.gguf", "build/b.gguf"]
    gate.write_text(gate.read_text() + "[[subject]]\nartifact = 'build/a.gguf'\n")
    assert "subject: build/a.gguf is there twice" in problems(gate)


@pytest.mark.parametrize(
    "pattern", ["/etc/*", "/**", "*\\u0000*", "\\u0000", "../*/nothing/*", "[", "**/[x"]
)
def test_strange_patterns_are_no_traceback(tmp_path: Path, pattern: str) -> None:
    gate = write_gate(tmp_path, f'[[subject]]\nartifact = "{pattern}"\n')
    assert "subject.0: " in problems(gate)


def test_a_recipe_that_a_format_has_not_got_is_left_out_and_told(tmp_path: Path) -> None:
    gate = write_gate(tmp_path, (
        "[[subject]]\nmodel = 'smollm2-135m'\nformats = ['gguf', 'onnx']\nrecipes = ['q4_0']\n"
    ))  # fmt: skip
    found = find_targets(read_gate(gate), gate)
    assert [t.subject.file_format for t in found.targets] == ["gguf"]
    assert any("onnx has no recipe 'q4_0'" in sentence for sentence in found.left_out)


def test_too_many_cells_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgegauge.check.targets.MOST_CELLS", 0)
    assert "at most 0" in problems(write_gate(tmp_path, dumps({"subject": [SUBJECT]})))


# Hostile files.

keys = st.sampled_from([*WHOLE, "artifact", "model", "file", "x", "\x00", "ü" * 50])
leaves: st.SearchStrategy[Any] = (
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["../../x", "/", "", "*", PI, "ladder:nothing", "hf:a/b", "x" * 2000])
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80)
@given(st.dictionaries(keys, values, max_size=3))
def test_any_values_are_a_gate_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("gate") / "gate.toml"
    path.write_text(dumps(without("quality") | changes), encoding="utf-8", errors="surrogatepass")
    try:
        find_targets(read_gate(path), path)
    except InputError as error:
        assert "gate.toml" in str(error)
        assert len(str(error)) < 20_000


@settings(max_examples=60)
@given(st.integers(0, 400), st.text(string.printable, max_size=6))
def test_a_torn_file_is_a_gate_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: str
) -> None:
    path = tmp_path_factory.mktemp("gate") / "gate.toml"
    text = dumps(WHOLE)
    path.write_text(text[: min(cut, len(text))] + junk)
    try:
        read_gate(path)
    except InputError as error:
        assert "gate.toml" in str(error)


@pytest.mark.parametrize("key,value", [
    ("devices", [PI] * 5000), ("subject", [SUBJECT] * 5000), ("title", "x" * 10**6),
    ("device_budget", {f"d{i}": {} for i in range(5000)}),
])  # fmt: skip
def test_huge_lists_are_refused_in_few_words(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(dumps(WHOLE | {key: value}))
    with pytest.raises(InputError) as caught:
        read_gate(path)
    assert key in str(caught.value) and len(str(caught.value)) < 2000
