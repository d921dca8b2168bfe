"""Checkpoints: safetensors read exactly, and every kind of wrong file refused by name."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from make_models import make_folder, make_spec, random_weights, tensor_name

from edgegauge.errors import ConversionError, InputError
from edgegauge.model import Tensor
from edgegauge_converters.safetensors_file import SafetensorsFile
from edgegauge_converters.weights import Checkpoint, row_slices

SINGLE = "model.safetensors"
EMBEDDING = "model.embed_tokens.weight"


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def edit_header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite the header of a checkpoint, its data untouched."""
    path = folder / SINGLE
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    write(path, header, content[8 + length :])


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


# --- the file format


def test_reads_what_the_formats_own_library_writes(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1.5], dtype=np.float16),
        "c": np.zeros((0, 4), dtype=np.float32),
        "d": np.random.default_rng(0).standard_normal((7, 1000)).astype(np.float32),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", {"format": "np"})
    with SafetensorsFile(tmp_path / "x.safetensors") as file:
        assert file.entries.keys() == arrays.keys()
        for name in ("a", "b", "d"):
            found = file.entries[name]
            with file.window(found, 0, found.rows) as rows:
                assert np.array_equal(rows.reshape(found.shape), arrays[name])
        for start, stop in ((0, 1), (3, 6), (6, 7)):
            with file.window(file.entries["d"], start, stop) as rows:
                assert np.array_equal(rows, arrays["d"][start:stop])


def test_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.ones((100, 1000), np.float32)}, path)
    with SafetensorsFile(path) as file:
        os.truncate(path, 1000)
        with pytest.raises(ConversionError, match=r"cannot map .*x\.safetensors"):
            file.window(file.entries["a"], 50, 100).__enter__()


BAD_HEADERS: dict[str, tuple[Any, bytes, str]] = {
    "not json": (b"{'a'", b"", "not valid JSON"),
    "not utf-8": (b'{"\xff": 1}', b"", "not valid JSON"),
    "endless nesting": (b"[" * 100_000, b"", "not valid JSON"),
    "a list": ([], b"", "not a JSON object"),
    "a key twice": (b'{"a": 1, "a": 2}', b"", "twice"),
    "no dtype": ({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4), "expected exactly"),
    "unknown dtype": ({"a": entry("F3", [1], 0, 4)}, bytes(4), r"a\.dtype: unknown type 'F3'"),
    "dtype is a table": ({"a": entry({}, [1], 0, 4)}, bytes(4), "unknown type"),  # type: ignore[arg-type]
    "negative size": ({"a": entry("F32", [-1], 0, 4)}, bytes(4), r"a\.shape"),
    "true is no size": ({"a": entry("F32", [True], 0, 4)}, bytes(4), r"a\.shape"),
    "fractional size": ({"a": entry("F32", [1.0], 0, 4)}, bytes(4), r"a\.shape"),  # type: ignore[list-item]
    "huge sizes": ({"a": entry("F32", [2**59] * 8, 0, 4)}, bytes(4), "needs"),
    "offsets reversed": ({"a": entry("F32", [1], 4, 0)}, bytes(4), r"a\.data_offsets"),
    "shape and offsets differ": ({"a": entry("F32", [2], 0, 4)}, bytes(4), "needs 8 bytes, got 4"),
    "beyond the end": ({"a": entry("F32", [2], 0, 8)}, bytes(4), "truncated"),
    "data left over": ({"a": entry("F32", [1], 0, 4)}, bytes(8), "followed by other data"),
    "overlap": (
        {"a": entry("F32", [2], 0, 8), "b": entry("F32", [1], 4, 8)}, bytes(8), "b: overlaps",
    ),
    "gap": ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, bytes(12), "b: leaves"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_header(tmp_path: Path, case: str) -> None:
    header, data, message = BAD_HEADERS[case]
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(InputError, match=message) as caught:
        SafetensorsFile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [3, 2**20, 2**40, 2**64 - 1])
def test_header_length_lies(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b'{"a": 1}' + bytes(100))
    with pytest.raises(InputError, match="header"):
        SafetensorsFile(path)


@pytest.mark.parametrize("content", [b"", b"abc", bytes(8)])
def test_tiny_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError):
        SafetensorsFile(tmp_path / "x.safetensors")


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_files_never_crash(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    safetensors.numpy.save_file(
        {"a": np.ones((3, 5), np.float32), "b": np.ones(4, np.float16)}, folder / "x.safetensors"
    )
    content = bytearray((folder / "x.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    (folder / "x.safetensors").write_bytes(content)
    try:
        with SafetensorsFile(folder / "x.safetensors") as file:
            assert sum(e.bytes for e in file.entries.values()) < len(content)
    except InputError:
        pass


# --- the folder


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_rows_are_the_written_values(tmp_path: Path, dtype: str, shards: int) -> None:
    spec = make_folder(tmp_path, "qwen2", dtype=dtype, shards=shards)
    precision = {"f32": 0, "f16": 2**-11, "bf16": 2**-8}[dtype]
    with Checkpoint(tmp_path, spec) as weights:
        for tensor, written in random_weights(spec, 0):
            rows = weights.rows(tensor, 0, tensor.rows)
            assert rows.shape == (tensor.rows, tensor.cols)
            assert rows.dtype == np.float32
            assert weights.dtype(tensor) == dtype.upper()
            assert np.allclose(rows.reshape(written.shape), written, rtol=precision, atol=6e-8)
            if not tensor.is_vector:
                assert np.array_equal(weights.rows(tensor, 5, 9), rows[5:9])


def append(folder: Path, name: str, shape: list[int]) -> None:
    """Add a tensor of zeros in F32 to a checkpoint."""
    with SafetensorsFile(folder / SINGLE) as file:
        end = sum(e.bytes for e in file.entries.values())
    size = 4 * int(np.prod(shape))
    edit_header(folder, lambda h: h.update({name: entry("F32", shape, end, end + size)}))
    with (folder / SINGLE).open("ab") as stream:
        stream.write(bytes(size))


def test_decoder_of_a_vision_model(tmp_path: Path) -> None:
    spec = make_folder(tmp_path, "gemma3")

    def rename(header: dict[str, Any]) -> None:
        for name in [n for n in header if n.startswith("model.")]:
            header[f"language_model.{name}"] = header.pop(name)

    edit_header(tmp_path, rename)
    append(tmp_path, "vision_tower.patch.weight", [3, 3])
    with Checkpoint(tmp_path, spec) as weights:
        assert weights.rows(Tensor("output_norm", None, 1, spec.hidden), 0, 1).shape == (1, 64)


def test_old_position_tables_are_passed_over(tmp_path: Path) -> None:
    spec = make_folder(tmp_path, "llama")
    append(tmp_path, "model.layers.0.self_attn.rotary_emb.inv_freq", [8])
    Checkpoint(tmp_path, spec).close()


def test_every_misfit_is_listed(tmp_path: Path) -> None:
    spec = make_folder(tmp_path, "llama")

    def damage(header: dict[str, Any]) -> None:
        header["model.norms.weight"] = header.pop("model.norm.weight")
        name = "model.layers.0.mlp.up_proj.weight"
        header[name]["shape"] = header[name]["shape"][::-1]
        header["model.layers.1.mlp.up_proj.weight"]["dtype"] = "I16"

    edit_header(tmp_path, damage)
    with pytest.raises(InputError) as caught:
        Checkpoint(tmp_path, spec)
    assert caught.value.problems == [
        "model.layers.0.mlp.up_proj.weight: expected shape [160, 64], got [64, 160]",
        "model.layers.1.mlp.up_proj.weight: stored as I16; F32, F16, BF16 are converted",
        "model.norm.weight: missing",
        "model.norms.weight: llama has no such tensor",
    ]


def test_weights_of_another_model(tmp_path: Path) -> None:
    make_folder(tmp_path, "qwen2")
    with pytest.raises(InputError, match=r"q_proj\.bias: qwen3 has no such tensor"):
        Checkpoint(tmp_path, make_spec("qwen3"))


def test_checkpoint_without_embedding(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"lora_A": np.ones(2, np.float32)}, tmp_path / SINGLE)
    with pytest.raises(InputError, match="no token embedding"):
        Checkpoint(tmp_path, make_spec("llama"))


# --- shards


def test_missing_shard(tmp_path: Path) -> None:
    spec = make_folder(tmp_path, "llama", shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"missing(.|\n)*model-00002-of-00003"):
        Checkpoint(tmp_path, spec)


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "a\\b", "..", "", 7, None])
def test_index_cannot_name_other_folders(tmp_path: Path, name: object) -> None:
    spec = make_folder(tmp_path, "llama", shards=2)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {EMBEDDING: name}}))
    with pytest.raises(InputError, match="not a file name"):
        Checkpoint(tmp_path, spec)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}', "[1]", "{"])
def test_bad_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(InputError):
        Checkpoint(tmp_path, make_spec("llama"))


def test_index_promises_what_a_shard_lacks(tmp_path: Path) -> None:
    spec = make_folder(tmp_path, "llama", shards=2)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    first, second = sorted(set(table["weight_map"].values()))
    table["weight_map"] = {n: first if s == second else s for n, s in table["weight_map"].items()}
    index.write_text(json.dumps(table))
    with pytest.raises(InputError, match="promises tensors"):
        Checkpoint(tmp_path, spec)


# --- pickles and heads


class _Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickles_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(tmp_path / "executed")))
    with pytest.raises(InputError, match=r"never read\n  pytorch_model.bin") as caught:
        Checkpoint(tmp_path, make_spec("llama"))
    assert "safetensors" in str(caught.value.hint)
    assert not (tmp_path / "executed").exists()


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        Checkpoint(tmp_path, make_spec("llama"))


@pytest.mark.parametrize("same", [True, False])
def test_stored_head_of_a_tied_model(tmp_path: Path, same: bool) -> None:
    spec = make_folder(tmp_path, "llama")
    weights = {tensor_name(spec, t): w.astype(np.float32) for t, w in random_weights(spec, 0)}
    weights["lm_head.weight"] = weights[EMBEDDING].copy()
    if not same:
        weights["lm_head.weight"][-1, -1] += 1
    safetensors.numpy.save_file(weights, tmp_path / SINGLE)
    if same:
        Checkpoint(tmp_path, spec).close()
        return
    with pytest.raises(InputError, match="differs from the embedding") as caught:
        Checkpoint(tmp_path, spec)
    assert '"tie_word_embeddings": false' in str(caught.value.hint)


@given(rows=st.integers(1, 5000), cols=st.integers(1, 100_000), step=st.sampled_from([1, 2, 64]))
def test_slices_cover_all_rows_once(rows: int, cols: int, step: int) -> None:
    slices = list(row_slices(rows * step, cols, step))
    assert slices[0][0] == 0
    assert slices[-1][1] == rows * step
    assert all(a[1] == b[0] for a, b in pairwise(slices))
    assert all((stop - start) % step == 0 for start, stop in slices)
    assert all((stop - start) * cols <= max(2**20, step * cols) for start, stop in slices)
