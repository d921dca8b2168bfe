"""`edgegauge evaluate` through the installed entry point, with the real runtime in its child."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from make_bigram import write_bigram

from edgegauge.cli import main
from edgegauge.document import read_json
from edgegauge.evaluate import manager
from edgegauge.evaluate.result import EvaluationResult

pytest.importorskip("llama_cpp")

TABLE: dict[str, str | None] = {
    "1": "o", "o": "n", "n": "e", "e": None, "2": "t", "t": "w", "w": "!", "!": "\n", "\n": "1",
}  # fmt: skip
"""1 -> one, its end; 2 -> tw!, a new line, 1one, its end."""

Called = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bigram(tmp_path_factory.mktemp("model") / "speller.gguf", TABLE)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Called:
    def called(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", *map(str, arguments)])
        status = ended.value.code
        assert isinstance(status, int)
        return (status, *capsys.readouterr())

    return called


def task_file(folder: Path, *pairs: tuple[str, str]) -> Path:
    path = folder / "task.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in pairs))
    return path


def test_a_task_is_answered_by_the_model(model: Path, tmp_path: Path, call: Called) -> None:
    task = task_file(
        tmp_path, ("q1", "one"), ("say 1", "one"), ("q2", "tw!"), ("2", "two"), ("n", "e")
    )
    output = tmp_path / "result.json"
    status, out, err = call(model, "--task", task, "-o", output, "--json")
    assert status == 0 and f"written to {output}" in err.replace("\n", "")
    document = json.loads(out)
    items = document["accuracy"]["items"]
    assert [item["got"] for item in items] == ["one", "one", "tw!", "tw!", "e"]
    assert [item["ok"] for item in items] == [True, True, True, False, True]
    assert document["accuracy"]["exact_match"]["value"] == 0.8
    assert document["perplexity"] is None
    result = read_json(output, EvaluationResult)
    assert result.model_dump(mode="json") == document
    assert result.artifact.model == "speller" and result.artifact.recipe is None
    assert result.artifact.parameters and result.artifact.effective_bits == 32.0


def test_a_task_and_a_text_as_a_table(model: Path, tmp_path: Path, call: Called) -> None:
    text = tmp_path / "text.txt"
    text.write_text("1one2two" * 60)
    status, out, err = call(model, "--task", task_file(tmp_path, ("1", "one")), "--text", text)
    assert status == 0
    for words in ("speller", "exact match", "1 of 1 items right", "perplexity", "480 tokens"):
        assert words in out
    assert "Traceback" not in err


def test_lanes_change_nothing_but_the_time(model: Path, tmp_path: Path, call: Called) -> None:
    text = tmp_path / "text.txt"
    text.write_text("1one2two n e w " * 100)
    task = task_file(tmp_path, *((f"{i}{i % 2 + 1}", "one") for i in range(150)))
    found = []
    for threads in (1, 3):
        status, out, _ = call(model, "--task", task, "--text", text, "--threads", threads, "--json")
        assert status == 0
        document = json.loads(out)
        found.append((document["accuracy"]["items"], document["perplexity"]["windows"]))
    assert found[0] == found[1] and sum(item["ok"] for item in found[0][0]) == 75


def test_a_limit_evaluates_the_beginning(model: Path, tmp_path: Path, call: Called) -> None:
    text = tmp_path / "text.txt"
    text.write_text("1one2two" * 200)
    task = task_file(tmp_path, ("1", "one"), ("2", "x"), ("3", "x"))
    status, out, _ = call(model, "--task", task, "--text", text, "--limit", 1, "--json")
    document = json.loads(out)
    assert status == 0 and document["accuracy"]["total"] == 1
    assert len(document["perplexity"]["windows"]) == 1
    assert document["perplexity"]["context"] == 256  # the model's own


def test_neither_task_nor_text_is_wrong_usage(model: Path, call: Called) -> None:
    status, _, err = call(model)
    assert status == 2 and "--task" in err and "--text" in err


def test_mistakes_in_the_data_are_told_before_anything_runs(
    model: Path, tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "MODULE", "must.not.start")
    path = tmp_path / "task.jsonl"
    path.write_text('{"prompt": "1"}\n{"answer": "2"}\n')
    status, out, err = call(model, "--task", path)
    assert (status, out) == (1, "")
    assert "line 1: answer: required" in err and "line 2: prompt: required" in err
    assert call(model, "--text", tmp_path / "absent.txt")[0] == 1
    assert call(tmp_path / "absent.gguf", "--task", path)[0] == 1


def test_prompts_beyond_the_model_are_told_by_line(
    model: Path, tmp_path: Path, call: Called
) -> None:
    task = task_file(tmp_path, ("1", "one"), ("x" * 300, "y"))
    status, _, err = call(model, "--task", task)
    assert status == 1 and "context is 256 tokens" in err and "line 2: 301 tokens" in err


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 50])
def test_a_file_that_is_no_model(content: bytes, model: Path, tmp_path: Path, call: Called) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(content or model.read_bytes()[:20_000])
    status, _, err = call(bad, "--task", task_file(tmp_path, ("1", "one")))
    assert status == 1 and err.startswith("error: ") and "Traceback" not in err


def test_a_child_that_breaks_is_an_error_and_leaves_no_file(
    model: Path, tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "result.json"
    task = task_file(tmp_path, ("1", "one"))
    for module in ("this", "no_such_module"):  # `this` prints what is no message
        monkeypatch.setattr(manager, "MODULE", module)
        status, _, err = call(model, "--task", task, "-o", output)
        assert status == 1 and err.startswith("error: ") and not output.exists()


def test_figures_of_random_weights_come_with_a_warning(
    model: Path, tmp_path: Path, call: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = manager.artifact_facts

    def synthetic(*arguments: Any) -> Any:
        return facts(*arguments).model_copy(update={"synthetic": True})

    monkeypatch.setattr(manager, "artifact_facts", synthetic)
    status, out, err = call(model, "--task", task_file(tmp_path, ("1", "one")), "--json")
    assert status == 0 and "random" in json.loads(out)["warnings"][0] and "random" in err
