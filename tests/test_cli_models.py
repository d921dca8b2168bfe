"""`edgegauge models`: what a user sees, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_models import config_of, make_spec
from rich.text import Text
from test_gguf_header import raw, string, write

from edgegauge.cli import main
from edgegauge.cli.models import count_of


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one call."""
    with pytest.raises(SystemExit) as caught:
        main(["models", *arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_list_shows_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "list")
    row = next(line for line in out.splitlines() if line.startswith("smollm2-135m "))
    assert (status, err) == (0, "")
    for part in ("134.5M", "30 x 576", "8192", "22.5", "Apache-2.0", "avg8 50.5"):
        assert part in row
    assert "30(x2) x 576" in out


def test_the_list_fits_its_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No column is cut off: a wide terminal has all of them, a narrow one fewer."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for columns, shapes in ((100, True), (80, False)):
        monkeypatch.setenv("COLUMNS", str(columns))
        out = Text.from_ansi(run(capsys, "list")[1]).plain
        assert max(map(len, out.splitlines())) <= columns
        assert "TinyStories 1.297" in out and "Qwen Research*" in out
        assert ("30 x 576" in out) == shapes


def test_list_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", "--json")
    models = {m["id"]: m for m in json.loads(out)["models"]}
    assert status == 0
    small = models["smollm2-135m"]
    assert small["parameters"] == 134515008
    assert small["spec"]["hidden"] == 576
    assert small["licence"] == {"name": "Apache-2.0", "restriction": None}
    assert small["published"][0]["scores"]["avg8"] == 50.5
    assert "MobileLLM-R1 paper" in small["published"][0]["source"]


def test_show_a_catalog_entry(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "show", "llama-3.1-8b")
    assert status == 0
    split = "8,030,261,248 = embedding 525,336,576 + body 6,979,588,096 + head 525,336,576"
    assert split in out
    for part in ("700 million", "llama3 scaling by 8", "66.7", "MODEL_CARD", "hf:meta-llama"):
        assert part in out
    status, out, _ = run(capsys, "show", "gemma-3-270m")
    assert "one block in 6 sees all" in out


def test_show_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "we[ird]"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(make_spec("qwen3"))))
    status, out, _ = run(capsys, "show", str(folder))
    assert status == 0 and "we[ird]" in out and "qwen3" in out
    _, out, _ = run(capsys, "show", str(folder), "--json")
    document = json.loads(out)
    assert (document["kind"], document["spec"]["qk_norm"]) == ("folder", True)


def test_show_a_gguf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "tiny.gguf", make_spec("llama"), "q4_k_m")
    status, out, err = run(capsys, "show", str(path))
    assert status == 0
    assert "Stored as Q4_K_M" in out and "Q5_0" in out and "Q8_0" in out
    assert "labelled Q4_K_M" in " ".join(err.split())
    _, out, _ = run(capsys, "show", str(path), "--json")
    document = json.loads(out)
    assert sum(t["bytes"] for t in document["types"].values()) == document["tensor_bytes"]
    assert document["spec"]["layers"] == 3 and document["reason"] is None


def test_show_a_gguf_file_without_a_spec(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [(string("general.architecture"), b"\x08\0\0\0" + string("mamba[/red]"))]
    path = raw(tmp_path / "x.gguf", keys)
    status, out, err = run(capsys, "show", str(path))
    assert status == 0 and "GGUF version 3" in out
    assert "no spec: general.architecture" in err and "mamba[/red]" in err
    _, out, _ = run(capsys, "show", str(path), "--json")
    assert json.loads(out)["spec"] is None


@pytest.mark.parametrize("content", [b"GGUF", b"not a model"])
def test_broken_files_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    status, out, err = run(capsys, "show", str(path))
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and "Traceback" not in err


def test_unknown_models_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "show", "smollm2-153m")
    assert (status, out) == (1, "")
    assert "smollm2-135m" in err and "hint: " in err
    assert run(capsys, "show")[0] == 2


def test_counts_as_people_write_them() -> None:
    assert [count_of(n) for n in (260_032, 9_999_999, 134_515_008, 1_235_814_400)] == [
        "0.26M", "10.00M", "134.5M", "1.24B",
    ]  # fmt: skip
