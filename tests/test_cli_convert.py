"""The convert command: what MODEL may be, what is printed where, and exit statuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, fake_hub
from make_models import make_folder

from edgegauge import hub
from edgegauge.artifact import open_artifact
from edgegauge.cli import main
from edgegauge.convert import converter_for, prepare
from edgegauge.errors import InputError, MissingDependency
from edgegauge.read_config import spec_from_folder

CATALOG_ID = "stories260k"


def execute(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    status = caught.value.code
    assert isinstance(status, int)
    return status


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_folder(tmp_path / "Tiny-Model", "llama")
    return tmp_path / "Tiny-Model"


def test_json_is_one_document(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute("convert", model, "--format", "gguf", "--recipe", "int4",
                   "-o", tmp_path / "out", "--threads", 1, "--json") == 0  # fmt: skip
    out, err = capsys.readouterr()
    document = json.loads(out)
    path = tmp_path / "out" / "tiny-model-q4_k_m.gguf"
    assert document["artifact"] == str(path)
    assert document["manifest"] == json.loads(Path(document["manifest_file"]).read_text())
    assert document["manifest"]["origin"] == {
        "kind": "folder", "reference": str(model), "synthetic": False,
    }  # fmt: skip
    assert open_artifact(path).manifest is not None
    assert "warning: q4_k_m takes 6.41 bits" in err


def test_table(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("convert", model, "--recipe", "q8_0", "-o", tmp_path) == 0
    out, err = capsys.readouterr()
    heading, row = out.splitlines()
    assert heading.split() == ["file", "size", "bits", "per", "weight", "verified", "warnings"]
    assert row.split()[-7:-3] == ["187.4", "kB", "8.56", "KL"]
    assert row.split()[-2:] == ["nat", "none"]
    assert "warning" not in err


def test_catalog_model_as_a_synthetic_one(tmp_path: Path) -> None:
    assert execute("convert", CATALOG_ID, "--synthetic", "--recipe", "q8_0", "-o", tmp_path) == 0
    manifest = open_artifact(tmp_path).manifest
    assert manifest is not None
    assert manifest.origin.model_dump() == {
        "kind": "catalog", "reference": CATALOG_ID, "synthetic": True,
    }  # fmt: skip


def test_bare_configuration_as_a_synthetic_model(model: Path, tmp_path: Path) -> None:
    config = model / "config.json"
    assert execute("convert", config, "--synthetic", "--recipe", "q8_0", "-o", tmp_path) == 0
    manifest = open_artifact(tmp_path).manifest
    assert manifest is not None
    assert (manifest.origin.kind, manifest.origin.synthetic) == ("config", True)
    assert manifest.spec == spec_from_folder(model)


def test_gguf_header_as_a_synthetic_model(model: Path, tmp_path: Path) -> None:
    assert execute("convert", model, "--recipe", "q8_0", "-o", tmp_path / "a") == 0
    file = tmp_path / "a" / "tiny-model-q8_0.gguf"
    assert execute("convert", file, "--synthetic", "--recipe", "q4_0", "-o", tmp_path / "b") == 0
    assert open_artifact(tmp_path / "b").manifest is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}/config.json"], "only a configuration, without weights"),
        (["{model}", "--recipe", "q9"], "unknown recipe 'q9' for gguf"),
        (["{model}", "--format", "onyx"], "no converter writes 'onyx'"),
        (["smollm2-135"], "no model 'smollm2-135'"),
        (["hf:nonsense"], "not a hub reference"),
        (["hf:a/b/c"], "not a hub reference"),
        (["{model}/model.safetensors"], "model.safetensors"),
    ],
)
def test_wrong_input(
    arguments: list[str], message: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute("convert", *(a.format(model=model) for a in arguments)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["x", "--threads", "0"], ["x", "--what"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert execute("convert", *arguments) == 2
    assert capsys.readouterr().out == ""


def test_gguf_files_are_not_converted_again(model: Path, tmp_path: Path) -> None:
    assert execute("convert", model, "--recipe", "q8_0", "-o", tmp_path) == 0
    with pytest.raises(InputError, match="GGUF file already"):
        prepare(str(tmp_path / "tiny-model-q8_0.gguf"), "q4_0", "gguf")


# --- the hub


def run(server: FakeHub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: huggingface_hub reads its settings at import."""
    script = "import sys; from edgegauge.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", script, "convert", *map(str, arguments)],
        env=os.environ | server.environment(home), capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_fetches_only_what_is_read(model: Path, tmp_path: Path) -> None:
    for unwanted in ("pytorch_model.bin", "README.md", "consolidated.safetensors", "model.onnx"):
        (model / unwanted).write_bytes(b"unwanted")
    with fake_hub(model) as server:
        first = run(server, tmp_path / "home", "hf:owner/tiny", "--recipe", "q8_0", "-o", tmp_path)
        assert first.returncode == 0, first.stderr
        fetched = {p.rpartition("/")[2] for p in server.asked if "/resolve/" in p}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
        assert not fetched & {"pytorch_model.bin", "README.md", "consolidated.safetensors"}
        server.asked.clear()
        again = run(server, tmp_path / "home", f"hf:owner/tiny@{COMMIT}", "-o", tmp_path / "2")
        assert again.returncode == 0, again.stderr
        assert not any("/resolve/" in path for path in server.asked)
    manifest = open_artifact(tmp_path / "tiny-q8_0.gguf").manifest
    assert manifest is not None
    assert manifest.origin.model_dump() == {
        "kind": "hub", "reference": f"hf:owner/tiny@{COMMIT}", "synthetic": False,
    }  # fmt: skip


def test_synthetic_hub_model_fetches_no_weights(model: Path, tmp_path: Path) -> None:
    with fake_hub(model) as server:
        done = run(server, tmp_path / "home", "hf:owner/tiny", "--synthetic", "-o", tmp_path)
        assert done.returncode == 0, done.stderr
        assert not any("safetensors" in path for path in server.asked)


REFUSALS = """
import sys
from edgegauge import hub
from edgegauge.errors import InputError
for reference in sys.argv[1:]:
    try:
        hub.fetch(reference)
    except InputError as error:
        print(error)
"""


def test_what_the_hub_refuses(model: Path, tmp_path: Path) -> None:
    references = ["hf:owner/gated", "hf:owner/none", "hf:owner/tiny@v9"]
    with fake_hub(model) as server:
        done = subprocess.run(
            [sys.executable, "-c", REFUSALS, *references], text=True, check=True, timeout=120,
            env=os.environ | server.environment(tmp_path), stdout=subprocess.PIPE,
        )  # fmt: skip
    assert done.stdout.splitlines() == [
        "owner/gated is gated: its owner wants you to accept the licence first",
        "the hub has no public model 'owner/none'",
        "owner/tiny has no revision 'v9'",
    ]


def test_pickled_hub_model(tmp_path: Path, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with fake_hub(model) as server:
        done = run(server, tmp_path / "home", "hf:owner/tiny")
    assert done.returncode == 1
    assert "hf:owner/tiny has no model*.safetensors" in done.stderr
    assert not any("pytorch_model" in path for path in server.asked)


def test_hub_out_of_reach(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    monkeypatch.setattr(FakeHub, "environment", lambda self, home: offline)
    with fake_hub(model) as server:
        done = run(server, tmp_path / "home", "hf:owner/tiny")
        assert server.asked == []
    assert done.returncode == 1
    assert "the hub cannot be reached, and hf:owner/tiny is not in the cache" in done.stderr


def test_catalog_id_is_fetched_from_its_place_on_the_hub(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(reference: str, *, weights: bool = True) -> Path:
        asked.append((reference, weights))
        return model

    monkeypatch.setattr(hub, "fetch", fetch)
    prepared = prepare("smollm2-135m", "q4_0", "gguf")
    assert asked == [("hf:HuggingFaceTB/SmolLM2-135M", True)]
    assert (prepared.folder, prepared.spec.id) == (model, "smollm2-135m")


def test_without_the_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency) as caught:
        hub.fetch("hf:owner/tiny")
    assert caught.value.hint == 'pip install "edgegauge[hub]"'


def test_without_the_converter_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.delitem(sys.modules, "edgegauge_converters.gguf", raising=False)
    with pytest.raises(MissingDependency) as caught:
        converter_for("gguf")
    assert caught.value.hint == 'pip install "edgegauge[gguf]"'
