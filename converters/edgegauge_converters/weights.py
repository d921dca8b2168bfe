"""Weights: rows of every tensor of a model, from safetensors or made at random.

    with Checkpoint(folder, spec) as weights:
        weights.rows(tensor, 0, 512)          # float32 (512, cols), as the checkpoint has them

A folder is one `model.safetensors`, or shards with `model.safetensors.index.json`. A folder that
has only pickles is refused: reading one can run any code. Opening checks that every tensor of the
spec is there, in its shape and a type that is converted, and that nothing is left over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgegauge.document import read_json_object
from edgegauge.errors import InputError
from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.names import UNUSED, head_name, hugging_face_name, prefix_of
from edgegauge_converters.safetensors_file import DTYPES, Entry, SafetensorsFile

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
MAX_SHARDS = 512
SLICE_ELEMENTS = 2**20
"""Elements worked on at a time: 4 MiB in float32, which the caches of most machines hold."""

Floats = npt.NDArray[np.float32]


class Checkpoint:
    """The tensors of a Hugging Face folder; InputError with all problems if they do not fit."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self._spec = spec
        self._files: list[SafetensorsFile] = []
        self._places: dict[str, tuple[SafetensorsFile, Entry]] = {}
        try:
            self._open(folder)
            self._prefix = prefix_of(self._places)
            self._check(folder)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()

    def dtype(self, tensor: Tensor) -> str:
        """The type this tensor has in the checkpoint: F32, F16 or BF16."""
        return self._place(tensor)[1].dtype

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Rows of a tensor in float32, a copy (rows, cols); a vector is one row."""
        file, entry = self._place(tensor)
        with file.window(entry, start, stop) as bits:
            return widen(bits, entry.dtype)

    def bits(self, tensor: Tensor, start: int, stop: int) -> npt.NDArray[Any]:
        """The same rows in the checkpoint's own type, a copy."""
        file, entry = self._place(tensor)
        with file.window(entry, start, stop) as bits:
            return bits.copy()

    def _place(self, tensor: Tensor) -> tuple[SafetensorsFile, Entry]:
        return self._places[hugging_face_name(self._spec, tensor, self._prefix)]

    def _open(self, folder: Path) -> None:
        for path, promised in _shards(folder):
            file = SafetensorsFile(path)
            self._files.append(file)
            absent = sorted(promised - file.entries.keys())
            if absent:
                raise InputError(f"{INDEX} promises tensors that are not in {path}", absent[:10])
            for name, entry in file.entries.items():
                if name in self._places:
                    raise InputError(
                        f"{name} is in two files: {path}, {self._places[name][0].path}"
                    )
                self._places[name] = (file, entry)

    def _check(self, folder: Path) -> None:
        expected = {
            hugging_face_name(self._spec, tensor, self._prefix): tensor
            for tensor in self._spec.tensors(unrolled=True)
        }
        problems = [p for name, tensor in expected.items() for p in self._problems(name, tensor)]
        head = head_name(self._prefix)
        for name in sorted(self._places.keys() - expected.keys()):
            if not UNUSED.search(name) and not (name == head and self._spec.tied):
                problems.append(f"{name}: {self._spec.family} has no such tensor")
        if problems:
            more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
            raise InputError(
                f"the weights do not fit config.json @ {folder}", [*problems[:20], *more],
                hint="the files may be of different models, or of a quantised or adapted one",
            )  # fmt: skip
        if self._spec.tied and head in self._places:
            self._check_tied_head(head)

    def _problems(self, name: str, tensor: Tensor) -> Iterator[str]:
        if name not in self._places:
            yield f"{name}: missing"
            return
        entry = self._places[name][1]
        shape = (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)
        if entry.shape != shape:
            yield f"{name}: expected shape {list(shape)}, got {list(entry.shape)}"
        if entry.dtype not in DTYPES:
            yield f"{name}: stored as {entry.dtype}; {', '.join(DTYPES)} are converted"

    def _check_tied_head(self, head: str) -> None:
        """A stored head beside a tied embedding must be the embedding, or the config is wrong."""
        embedding = self._places[f"{self._prefix}embed_tokens.weight"]
        if not _equal(embedding, self._places[head]):
            raise InputError(
                f"{head} differs from the embedding, but config.json says that they are tied",
                hint='if the head is meant, set "tie_word_embeddings": false in config.json',
            )


def _shards(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """Every file of the checkpoint, with the tensors that the index promises in it."""
    if (folder / SINGLE).exists():
        yield folder / SINGLE, set()
        return
    if (folder / INDEX).exists():
        yield from _indexed(folder)
        return
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if pickles:
        raise InputError(
            f"{folder} has its weights only as pickles, which are never read", pickles[:10],
            hint="save the model as safetensors: model.save_pretrained(DIR) in transformers",
        )  # fmt: skip
    raise InputError(f"no {SINGLE} and no {INDEX} in {folder}")


def _indexed(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    table = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise InputError(f"weight_map: expected a table of tensor to file @ {folder / INDEX}")
    promised: dict[str, set[str]] = {}
    for name, shard in table.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            raise InputError(f"weight_map.{name}: not a file name: {shard!r} @ {folder / INDEX}")
        promised.setdefault(shard, set()).add(name)
    absent = sorted(shard for shard in promised if not (folder / shard).exists())
    if absent or len(promised) > MAX_SHARDS:
        raise InputError(f"{len(promised)} shards are indexed; missing in {folder}:", absent[:10])
    for shard, names in sorted(promised.items()):
        yield folder / shard, names


def _equal(one: tuple[SafetensorsFile, Entry], other: tuple[SafetensorsFile, Entry]) -> bool:
    (file, entry), (second_file, second) = one, other
    if (entry.dtype, entry.shape) != (second.dtype, second.shape):
        return False
    for start, stop in row_slices(entry.rows, math.prod(entry.shape) // max(entry.rows, 1)):
        with file.window(entry, start, stop) as a, second_file.window(second, start, stop) as b:
            if not np.array_equal(a, b):
                return False
    return True


def row_slices(rows: int, cols: int, step: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges that cover `rows` in turn, about SLICE_ELEMENTS each, in multiples of `step` rows."""
    size = max(SLICE_ELEMENTS // max(cols, 1) // step, 1) * step
    for start in range(0, rows, size):
        yield start, min(start + size, rows)


def widen(bits: npt.NDArray[Any], dtype: str) -> Floats:
    """These bits as float32, in memory of their own."""
    if dtype != "BF16":
        return bits.astype(np.float32)
    wide = np.empty(bits.shape, np.uint32)
    np.left_shift(bits, 16, out=wide, dtype=np.uint32, casting="unsafe")
    return wide.view(np.float32)
