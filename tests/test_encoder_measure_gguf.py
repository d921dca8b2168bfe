"""`edgegauge measure` on encoders in GGUF: real children, llama.cpp, the file's own vocabulary."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from make_encoders import KINDS, make_encoder
from make_gguf import write_gguf
from test_encoder_gguf import convert, opened
from test_encoder_onnx import cosine
from tokenizers import Tokenizer

from edgegauge.artifact import manifest_path
from edgegauge.cli.measure import command, graph_of
from edgegauge.errors import InputError, MeasurementError
from edgegauge.gguf_reader import read_header
from edgegauge.graph_result import GraphResult, GraphWorkload
from edgegauge.measure.graph_manager import measure_graph
from edgegauge.measure.graphs import graph_format, graph_runtime_for
from edgegauge.measure.runtimes.llama_encoder import LlamaEncoder

QUICK = ["--threads", "1", "--runs", "1", "--inferences", "6", "--meter", "none"]
TEXTS = ["a small model", "The quick brown fox jumps over the lazy dog", "light"]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments, standalone_mode=False)


def texts(folder: Path) -> Path:
    path = folder / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_an_encoder_on_text(kind: str, tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", kind)
    (tmp_path / "out").mkdir()
    path, out = convert(tmp_path / "m", "q8_0", tmp_path / "out"), tmp_path / "r.json"
    # By the folder that the converter wrote into, whose one artifact it is.
    shown = invoke(str(path.parent), *QUICK, "--text", str(texts(tmp_path)), "-o", str(out))
    assert shown.return_value in (0, 4), shown.output
    assert "fed with texts.txt" in shown.output and "tokens" in shown.output
    result = GraphResult.model_validate(json.loads(out.read_text()))
    assert (result.graph.format, result.tool.runtime) == ("gguf", "llama.cpp")
    assert result.graph.outputs == {"embedding": "float32 [1, 64]"}
    (run,) = result.samples
    assert list(run.phases) == ["import", "load", "warm_up", "inference"]
    assert run.load_s > 0 and len(run.latencies_s) >= 6 and min(run.latencies_s) > 0
    assert run.runtime_facts["context_tokens"] >= 96 and run.runtime_facts["threads"] == 1
    summary = result.summary
    assert summary.tokens_per_s and summary.inferences_per_s.value > 0
    assert summary.latency_s.p50.source.startswith("llama.cpp ")
    assert summary.memory.peak_rss_bytes and summary.memory.outcome == "fits"
    tokenizer = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    assert run.tokens and len(run.tokens) % 3 == 0
    assert sorted(run.tokens[:3]) == sorted(len(tokenizer.encode(text).ids) for text in TEXTS)


def test_runs_what_it_was_fed(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    path = convert(tmp_path / "m", "f32", tmp_path)
    session = graph_runtime_for("gguf").open(path, threads=1)
    with closing(session):
        theirs = opened(path)
        for text in TEXTS:
            tokens = session.tokenize(text)  # type: ignore[attr-defined]
            assert tokens == theirs.tokenize(text.encode(), add_bos=True)
            session.feed({"input_ids": np.array([tokens], np.int32)})
            session.run()
            vector = session._encoder.run()  # type: ignore[attr-defined]
            found = np.ctypeslib.as_array(vector, (64,)).copy()
            # Flash attention, which `Llama` turns off, rounds keys and values to half floats.
            assert cosine(found, np.array(theirs.embed(text, normalize=False))) > 0.99999
    session.close()


def test_texts_are_cut_to_the_positions_of_the_model(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm", positions=16)
    path = convert(tmp_path / "m", "f32", tmp_path)
    with closing(graph_runtime_for("gguf").open(path, threads=1)) as session:
        tokens = session.tokenize("lamp " * 40)  # type: ignore[attr-defined]
        assert len(tokens) == 16
        session.feed({"input_ids": np.array([tokens], np.int32)})
        session.run()
        with pytest.raises(MeasurementError, match="17 tokens do not fit into 16"):
            session.feed({"input_ids": np.zeros((1, 17), np.int32)})


def test_a_bare_file_without_a_manifest_is_told_from_its_header(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "bert")
    path = convert(tmp_path / "m", "f32", tmp_path)
    manifest_path(path).unlink()
    assert graph_format(path) == "gguf" and graph_of(path, text=False) == path
    shown = invoke(str(path), *QUICK)
    assert isinstance(shown.exception, InputError) and "--text FILE" in str(shown.exception.hint)


@pytest.mark.parametrize("text", [True, False])
def test_a_decoder_is_no_graph(text: bool, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "d.gguf")
    assert graph_format(path) is None and graph_of(path, text=text) is None
    shown = invoke(str(path), *QUICK[:4], "--text", str(texts(tmp_path)))
    assert "--text means nothing for a language model" in str(shown.exception)


@pytest.mark.parametrize("with_manifest", [True, False])
@pytest.mark.parametrize("part", [0.1, 0.9])
def test_a_truncated_file_is_refused(part: float, with_manifest: bool, tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    path = convert(tmp_path / "m", "f32", tmp_path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    if not with_manifest:
        manifest_path(path).unlink()
    shown = invoke(str(path), *QUICK, "--text", str(texts(tmp_path)))
    assert isinstance(shown.exception, InputError) and path.name in str(shown.exception)
    with pytest.raises(InputError, match=path.name):
        graph_runtime_for("gguf").open(path, threads=1)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such"):
        measure_graph(tmp_path / "absent.gguf", GraphWorkload(threads=1, runs=1), text="a")
    with pytest.raises(InputError, match="no such file"):
        graph_runtime_for("gguf").open(tmp_path / "absent.gguf", threads=1)


def test_an_encoder_that_pools_nothing_is_refused(tmp_path: Path) -> None:
    make_encoder(tmp_path / "m", "minilm")
    path = convert(tmp_path / "m", "f32", tmp_path)
    assert read_header(path).metadata["bert.pooling_type"] == 1
    data, key = path.read_bytes(), b"bert.pooling_type"
    at = data.index(key) + len(key) + 4
    path.write_bytes(data[:at] + b"\0\0\0\0" + data[at + 4 :])
    with pytest.raises(InputError, match="does not pool"):
        LlamaEncoder(path, threads=1, length=32)
