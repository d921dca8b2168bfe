"""Encoders through the command line: convert to three formats, and measure them on text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_encoders import make_encoder

from edgegauge.cli import main


def invoke(*arguments: str) -> int:
    """The exit status of one call."""
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_convert_then_measure_on_text(file_format: str, tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    assert not invoke("convert", str(tmp_path / "m"), "--format", file_format, "--recipe", "int8",
                      "-o", str(tmp_path))  # fmt: skip
    artifact = tmp_path / f"m-int8-{file_format}"
    text, result = tmp_path / "texts.txt", tmp_path / "result.json"
    text.write_text("a small model\nThe quick brown fox jumps over the lazy dog\n")
    status = invoke("measure", str(artifact), "--text", str(text), "--runs", "1", "--inferences",
                    "3", "--meter", "none", "-o", str(result))  # fmt: skip
    assert status in (0, 4)  # 4: one run cannot be trusted
    document = json.loads(result.read_text())
    assert document["graph"]["name"] == "m-int8"
    assert document["summary"]["tokens_per_s"]["value"] > 0


def test_an_encoder_in_gguf_takes_nothing_but_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_encoder(tmp_path / "m", "distilbert")
    assert not invoke("convert", str(tmp_path / "m"), "--recipe", "q8_0", "-o", str(tmp_path))
    model, text = str(tmp_path / "m-q8_0.gguf"), tmp_path / "x.txt"
    text.write_text("some words")
    for call in (["measure", model], ["evaluate", "--text", str(text), model]):
        assert invoke(*call) == 1
        assert "is an encoder, which turns texts into vectors" in capsys.readouterr().err
    assert invoke("measure", model) == 1
    assert "--text FILE" in capsys.readouterr().err
