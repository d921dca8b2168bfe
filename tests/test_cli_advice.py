"""`edgegauge fit --advice` and `--shape` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgegauge.cli import main

Call = Callable[..., tuple[int, str, str]]
PI = ("--device", "raspberry-pi-5-4gb")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `edgegauge fit ...` in this process: (exit status, stdout, stderr)."""
    monkeypatch.setenv("NO_COLOR", "1")

    def execute(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["fit", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return execute


def test_advice_under_each_failing_candidate(call: Call) -> None:
    asked = (*PI, "--format", "gguf", "--memory", "1.5GB", "qwen2.5-1.5b", "--advice")
    status, out, _ = call(*asked)
    assert status == 0
    shown = out[out.index("qwen2.5-1.5b q8_0 gguf needs") :]
    assert "recipe q4_k_m" in shown and "meets every limit" in shown
    document = json.loads(call(*asked, "--json")[1])
    by_recipe = {c["recipe"]: c for c in document["candidates"]}
    assert "advice" not in by_recipe["q4_0"]  # it passes
    recipe = next(a for a in by_recipe["q8_0"]["advice"] if a["change"] == "recipe")
    assert recipe["value"] == "q4_k_m" and recipe["passes"] and recipe["mends"] == ["memory"]


def test_every_format_gets_its_own_recipes_advised(call: Call) -> None:
    asked = (*PI, "--file-size", "1.1GB", "qwen2.5-1.5b", "--advice", "--json")
    for candidate in json.loads(call(*asked)[1])["candidates"]:
        for advice in candidate.get("advice", []):
            if advice["change"] == "recipe":
                assert (advice["value"] == "int4") == (candidate["format"] != "gguf")


def test_no_advice_where_nothing_helps(call: Call) -> None:
    status, out, _ = call(*PI, "--memory", "50MB", "--recipe", "q4_0", "smollm2-135m", "--advice")
    assert status == 3 and "No single change" in out and "helps smollm2-135m q4_0 gguf" in out


@pytest.mark.parametrize(
    "arguments",
    [
        (*PI, "--advice"),
        (*PI, "--device", "apple-iphone-13", "--advice", "smollm2-135m"),
        (*PI, "--shape", "smollm2-135m"),
        ("--all-devices", "--shape"),
        (*PI, "--shape", "--recipe", "q4_0", "--recipe", "q8_0"),
        (*PI, "--vocab", "1000", "smollm2-135m"),
        (*PI, "--write-config", "x.json"),
    ],
)
def test_options_that_say_nothing_together(arguments: tuple[str, ...], call: Call) -> None:
    assert call(*arguments)[0] == 2


def test_shape_shows_the_frontier_and_writes_the_config(call: Call, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    shape = (*PI, "--shape", "--decode", "60", "--recipe", "q4_0", "--context", "1024")
    status, out, err = call(*shape, "--vocab", "8192", "--write-config", config)
    assert status == 0 and f"written: {config}" in err
    rows = [line for line in out.splitlines() if "tok/s" in line]
    assert rows[0].startswith(">") and rows[-1].startswith("shared") and " x2 " in rows[-1]
    assert max(map(len, map(str.rstrip, out.splitlines()[:-1]))) <= 120
    written = json.loads(config.read_text())
    assert written["vocab_size"] == 8192 and str(written["hidden_size"]) in rows[0]
    again = json.loads(call(*PI, "--format", "gguf", "--recipe", "q4_0", config, "--context",
                            "1024", "--decode", "60", "--json")[1])  # fmt: skip
    assert again["candidates"][0]["passes"]
    document = json.loads(call(*shape, "--vocab", "8192", "--json")[1])
    assert document["recommended"]["config"] == written
    figure = document["recommended"]["decode_tok_per_s"]
    assert figure == again["candidates"][0]["decode_tok_per_s"] and figure["value"] >= 60
    assert set(document["alternatives"]) == {"own head", "shared"}


def test_no_shape_fits(call: Call) -> None:
    status, out, _ = call(*PI, "--shape", "--decode", "100000")
    assert status == 3 and "Nothing fits" in out
