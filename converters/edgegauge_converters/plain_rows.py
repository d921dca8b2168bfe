"""Rows of a checkpoint in the blueprint's plain form: norms as factors, everything in float32.

    PlainRows(checkpoint, spec).rows(tensor, 0, 512)      # float32 (512, cols), a copy

Gemma's checkpoints store norms as factor - 1. Tensors are those of the spec, whose shared blocks
are stored once; a checkpoint counts their executions.
"""

from __future__ import annotations

from dataclasses import replace

from edgegauge.model import ModelSpec, Tensor
from edgegauge_converters.weights import Checkpoint, Floats


class PlainRows:
    """Reads an open checkpoint; may be called from several threads."""

    def __init__(self, checkpoint: Checkpoint, spec: ModelSpec) -> None:
        self._checkpoint, self._repeats = checkpoint, spec.layer_repeats
        self._norm_offset = 1.0 if spec.family == "gemma3" else 0.0

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Rows of a tensor; a vector is one row."""
        layer = None if tensor.layer is None else tensor.layer * self._repeats
        values = self._checkpoint.rows(replace(tensor, layer=layer), start, stop)
        if tensor.role.endswith("_norm"):
            values += self._norm_offset
        return values

    def __call__(self, tensor: Tensor) -> Floats:
        """A whole tensor, (rows, cols) or (cols,): the weights that `Reference` takes."""
        values = self.rows(tensor, 0, tensor.rows)
        return values[0] if tensor.is_vector else values
