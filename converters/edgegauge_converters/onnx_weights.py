"""Writing the weights of ONNX graphs, as the layout has them, a slice at a time.

write_weights(file, layout, rows, threads, progress)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from edgegauge.convert import Progress
from edgegauge.recipe import StoredTensor
from edgegauge_converters.onnx_layout import ALIGNMENT, Group, Layout
from edgegauge_converters.onnx_rows import Encoded
from edgegauge_converters.temporary_file import HashedFile
from edgegauge_converters.weights import row_slices
from edgegauge_converters.workers import in_order

Rows = Callable[[StoredTensor, int, int, int], Encoded]
"""Encoded rows of a tensor, which has this number, from one to another; called by threads."""


def write_weights(
    file: HashedFile, layout: Layout, rows: Rows, threads: int, progress: Progress
) -> None:
    """Encode and write every group: its values, then their scales."""
    scales: list[Encoded] = []
    for (group, last), encoded in in_order(_tasks(layout, rows), threads):
        file.write(encoded.values)
        scales.append(encoded)
        if not last:
            continue
        file.pad(ALIGNMENT)
        for each in scales:
            if each.scales is not None:
                file.write(each.scales)
        file.pad(ALIGNMENT)
        scales.clear()
        assert file.bytes == group.end, group.name
        progress(file.bytes / layout.bytes, group.name)


def _tasks(
    layout: Layout, rows: Rows
) -> Iterator[tuple[tuple[Group, bool], Callable[[], Encoded]]]:
    """Every slice of every tensor, in the order of the file; the flag says it ends its group."""
    index = 0
    for group in layout.groups:
        for member in group.members:
            tensor = member.tensor
            for start, stop in row_slices(tensor.rows, tensor.cols):
                last = member is group.members[-1] and stop == tensor.rows
                yield (group, last), partial(rows, member, index, start, stop)
            index += 1
