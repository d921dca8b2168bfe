"""ONNX and TFLite graphs in their real runtimes, and inputs made for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_graphs import onnx_classifier, onnx_encoder, tflite_sum
from tokenizers import Tokenizer, models, pre_tokenizers

from edgegauge.errors import InputError, MeasurementError
from edgegauge.measure.graphs import TensorSpec, graph_format, graph_runtime_for
from edgegauge.measure.graphs.inputs import (
    SEQUENCE,
    random_inputs,
    text_inputs,
    texts_of,
    tokenizer_beside,
)


def word_tokenizer(folder: Path) -> Path:
    """A tokenizer of the words one to nine, in `tokenizer.json`."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="zero"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def ids_of(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda text: list(tokenizer.encode(text).ids)


def test_an_onnx_graph_runs_on_what_it_was_fed(tmp_path: Path) -> None:
    session = graph_runtime_for("onnx").open(onnx_classifier(tmp_path / "c.onnx"), threads=1)
    assert [str(s) for s in session.inputs] == ["float32 [1, 3, 8, 8]"]
    pixels = np.ones((1, 3, 8, 8), np.float32)
    session.feed({"pixels": pixels})
    session.run()
    binding = session._binding  # type: ignore[attr-defined]
    weights = np.arange(3 * 8 * 8 * 5, dtype=np.float32).reshape(-1, 5) / 1000
    found = binding.copy_outputs_to_cpu()[0]
    np.testing.assert_allclose(found, pixels.reshape(1, -1) @ weights, rtol=1e-5)
    session.close()
    session.close()


def test_a_tflite_graph_takes_new_shapes(tmp_path: Path) -> None:
    path = tflite_sum(tmp_path / "s.tflite", free=True)
    session = graph_runtime_for("tflite").open(path, threads=1)
    assert session.inputs == [TensorSpec("pixels", "float32", (None, 6))]
    for rows in (2, 7):
        values = np.random.default_rng(rows).random((rows, 6), np.float32)
        session.feed({"pixels": values})
        session.run()
        interpreter = session._interpreter  # type: ignore[attr-defined]
        index = interpreter.get_output_details()[0]["index"]
        np.testing.assert_array_equal(interpreter.get_tensor(index), 2 * values)
    session.close()


@pytest.mark.parametrize("name", ["x.onnx", "x.tflite"])
@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"\x08\x09garbage", b"\0\0\0\0TFL3" + b"\xff" * 64]
)
def test_files_that_are_no_graphs_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    kind = graph_format(path)
    assert kind
    with pytest.raises(InputError, match=name):
        graph_runtime_for(kind).open(path, threads=1)


def test_a_truncated_onnx_file_is_refused(tmp_path: Path) -> None:
    whole = onnx_classifier(tmp_path / "c.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.onnx"):
        graph_runtime_for("onnx").open(cut, threads=1)


def test_wrong_shapes_are_an_error_and_not_a_crash(tmp_path: Path) -> None:
    session = graph_runtime_for("tflite").open(tflite_sum(tmp_path / "s.tflite"), threads=1)
    with pytest.raises(MeasurementError):
        session.feed({"pixels": np.zeros((4, 6), np.int32)})
    onnx = graph_runtime_for("onnx").open(onnx_classifier(tmp_path / "c.onnx"), threads=1)
    with pytest.raises(MeasurementError):
        onnx.feed({"pixels": np.zeros((1, 3, 9, 8), np.float32)})
        onnx.run()


def test_random_inputs_make_sense_by_name_and_type() -> None:
    specs = [
        TensorSpec("input_ids", "int64", (None, None), ("batch", "sequence")),
        TensorSpec("attention_mask", "int64", (None, None), ("batch", "sequence")),
        TensorSpec("token_type_ids", "int64", (None, None), ("batch", "sequence")),
        TensorSpec("position_ids", "int64", (1, 4)),
        TensorSpec("image", "uint8", (1, 2, 2, 3)),
        TensorSpec("flag", "bool", ()),
        TensorSpec("half", "float16", (2,)),
    ]
    found = random_inputs(specs, {}, seed=1)
    assert found["input_ids"].shape == (1, SEQUENCE)
    assert found["input_ids"].min() >= 0 and found["input_ids"].max() < 100
    assert found["attention_mask"].all() and not found["token_type_ids"].any()
    assert found["position_ids"].tolist() == [[0, 1, 2, 3]]
    assert found["image"].dtype == np.uint8 and found["image"].max() > 100
    assert found["flag"].shape == () and found["flag"]
    assert found["half"].dtype == np.float16
    again = random_inputs(specs, {}, seed=1)
    assert all((again[name] == value).all() for name, value in found.items())


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({}, r"dimension 2 is not in the file"),
        ({"pixels": [1, 3, 8]}, r"does not fit"),
        ({"pixels": [1, 4, 8, 8]}, r"does not fit"),
        ({"pixels": [1, 3, 0, 8]}, r"does not fit"),
        ({"pixels": [1, 3, 100_000, 100_000]}, r"more than"),
        ({"picture": [1, 3, 8, 8]}, r"no input picture; it has pixels"),
    ],
)
def test_shapes_that_cannot_be(shapes: dict[str, list[int]], says: str) -> None:
    spec = TensorSpec("pixels", "float32", (1, 3, None, None), ("", "", "height", "width"))
    with pytest.raises(InputError, match=says):
        random_inputs([spec], shapes, seed=0)


def test_texts_become_inputs_of_their_own_length(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    session = graph_runtime_for("onnx").open(onnx_encoder(tmp_path / "e.onnx"), threads=1)
    tokenizer = tokenizer_beside(tmp_path / "e.onnx")
    inputs, tokens = text_inputs(
        session.inputs, ids_of(tokenizer), ["one two", "three", "four"], seed=0
    )
    assert sorted(tokens) == [1, 1, 2]
    for arrays, count in zip(inputs, tokens, strict=True):
        assert arrays["input_ids"].shape == (1, count) == arrays["attention_mask"].shape
        assert arrays["attention_mask"].all()
        session.feed(arrays)
        session.run()


def test_texts_are_cut_and_padded_for_a_graph_of_fixed_length(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    path = onnx_encoder(tmp_path / "e.onnx", length=3)
    session = graph_runtime_for("onnx").open(path, threads=1)
    texts = ["one two three four five", "nine"]
    inputs, tokens = text_inputs(session.inputs, ids_of(tokenizer_beside(path)), texts, seed=0)
    by_tokens = dict(zip(tokens, inputs, strict=True))
    assert by_tokens[3]["input_ids"].tolist() == [[1, 2, 3]]
    assert by_tokens[1]["input_ids"].tolist() == [[9, 0, 0]]
    assert by_tokens[1]["attention_mask"].tolist() == [[1, 0, 0]]


def test_text_for_a_graph_that_takes_none(tmp_path: Path) -> None:
    word_tokenizer(tmp_path)
    ids = ids_of(tokenizer_beside(tmp_path / "x.onnx"))
    with pytest.raises(InputError, match="input_ids"):
        text_inputs([TensorSpec("pixels", "float32", (1, 3, 8, 8))], ids, ["one"], seed=0)
    specs = [TensorSpec(n, "int64", (1, None)) for n in ("input_ids", "speaker")]
    with pytest.raises(InputError, match="speaker"):
        text_inputs(specs, ids, ["one"], seed=0)
    with pytest.raises(InputError, match="no token"):
        text_inputs(specs[:1], ids, [" "], seed=0)


def test_no_tokenizer_or_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        tokenizer_beside(tmp_path / "m" / "n" / "x.onnx")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 1}))
    with pytest.raises(InputError, match="is no tokenizer"):
        tokenizer_beside(tmp_path / "x.onnx")


def test_texts_are_the_lines_that_say_something() -> None:
    assert texts_of("one\n\n  \ntwo\r\n three ") == ["one", "two", " three "]


@given(st.binary(max_size=300))
def test_random_bytes_never_crash_the_tflite_loader(content: bytes) -> None:
    """Only files with the identifier reach the interpreter, which maps them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tflite"
        path.write_bytes(content)
        with pytest.raises(InputError):
            graph_runtime_for("tflite").open(path, threads=1)
