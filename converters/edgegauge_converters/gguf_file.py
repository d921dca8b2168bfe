"""Writing a GGUF file in pieces: what language models and encoders have in common.

add_tensors(writer, stored)                         # after the model's metadata
write_header(writer, file)
write_tensors(file, stored, rows, threads, progress)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from edgegauge.convert import Progress
from edgegauge.gguf_header import tensor_name
from edgegauge.model import Tensor
from edgegauge.recipe import StoredTensor
from edgegauge_converters.quantize import Bytes
from edgegauge_converters.temporary_file import HashedFile
from edgegauge_converters.weights import row_slices
from edgegauge_converters.workers import in_order

ALIGNMENT = 32
"""Tensor data begins at multiples of this (GGUF's default)."""

Rows = Callable[[StoredTensor, int, int, int], Bytes]
"""Encoded rows of a tensor, which has this number, from one to another; called by threads."""


def add_tensors(writer: Any, stored: list[StoredTensor]) -> None:
    """Say of every tensor what it is, in the order of the file."""
    for each in stored:
        tensor = each.tensor
        shape = (tensor.cols,) if tensor.is_vector else (tensor.rows, tensor.cols)
        kind = GGMLQuantizationType[each.type]
        writer.add_tensor_info(tensor_name(tensor), shape, np.dtype(np.float32), each.bytes, kind)


def padded_bytes(stored: list[StoredTensor]) -> int:
    """Bytes of the tensor data in the file."""
    return sum(-(-each.bytes // ALIGNMENT) * ALIGNMENT for each in stored)


def write_header(writer: Any, file: HashedFile) -> None:
    """Write all that the writer knows, which is everything but tensor data."""
    writer.write_header_to_file(file.path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    file.adopt()
    file.pad(ALIGNMENT)


def write_tensors(
    file: HashedFile,
    stored: list[StoredTensor],
    rows: Rows,
    threads: int,
    progress: Progress,
    step: Callable[[Tensor], int] = lambda tensor: 1,
) -> None:
    """Encode and write every tensor, a slice at a time; its rows in multiples of `step`."""
    total, done = sum(each.bytes for each in stored), 0
    for (each, last), encoded in in_order(_tasks(stored, rows, step), threads):
        file.write(encoded)
        done += encoded.nbytes
        if last:
            file.pad(ALIGNMENT)
            progress(done / total, tensor_name(each.tensor))


def _tasks(
    stored: list[StoredTensor], rows: Rows, step: Callable[[Tensor], int]
) -> Iterator[tuple[tuple[StoredTensor, bool], Callable[[], Bytes]]]:
    """Every slice in the order of the file; the flag says that it is a tensor's last."""
    for index, each in enumerate(stored):
        tensor = each.tensor
        for start, stop in row_slices(tensor.rows, tensor.cols, step(tensor)):
            last = stop == tensor.rows
            yield (each, last), partial(rows, each, index, start, stop)
