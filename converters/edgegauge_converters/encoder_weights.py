"""Weights of an encoder, from safetensors or made at random, in the blueprint's plain form.

    with EncoderCheckpoint(folder, spec) as checkpoint:
        checkpoint.rows(tensor, 0, 512)          # float32 (512, cols)
        EncoderReference(spec, checkpoint)       # callable: whole tensors

Reading and checking are those of `weights.Checkpoint`; only the names differ.
"""

from __future__ import annotations

from pathlib import Path

from edgegauge.encoder import EncoderSpec
from edgegauge.errors import InputError
from edgegauge.model import Tensor
from edgegauge.recipe import StoredTensor
from edgegauge_converters.encoder_names import UNUSED, checkpoint_names
from edgegauge_converters.safetensors_file import Entry, SafetensorsFile
from edgegauge_converters.synthetic import SyntheticBlocks
from edgegauge_converters.weights import Checkpoint, Floats

MOST_PROBLEMS = 20


class EncoderCheckpoint(Checkpoint):
    """The tensors of an encoder's folder; InputError with all problems if they do not fit."""

    def __init__(self, folder: Path, spec: EncoderSpec) -> None:
        self._files: list[SafetensorsFile] = []
        self._places: dict[str, tuple[SafetensorsFile, Entry]] = {}
        self._names: dict[Tensor, str] = {}
        self._about = spec
        try:
            self._open(folder)
            self._names = checkpoint_names(spec, self._places)
            self._check(folder)
        except BaseException:
            self.close()
            raise

    def __call__(self, tensor: Tensor) -> Floats:
        """A whole tensor, (rows, cols) or (cols,)."""
        values = self.rows(tensor, 0, tensor.rows)
        return values[0] if tensor.is_vector else values

    def _place(self, tensor: Tensor) -> tuple[SafetensorsFile, Entry]:
        return self._places[self._names[tensor]]

    def _check(self, folder: Path) -> None:
        problems = [p for tensor, name in self._names.items() for p in self._problems(name, tensor)]
        for name in sorted(self._places.keys() - self._names.values()):
            if not UNUSED.search(name):
                problems.append(f"{name}: {self._about.family} has no such tensor")
        if problems:
            left = len(problems) - MOST_PROBLEMS
            more = [f"... and {left} more"] if left > 0 else []
            raise InputError(
                f"the weights do not fit config.json @ {folder}",
                [*problems[:MOST_PROBLEMS], *more],
                hint="the files may be of different models, or of one with another head",
            )  # fmt: skip


class SyntheticEncoder:
    """Random weights: norms 1, biases 0, matrices with a variance of 1 / cols."""

    def __init__(self, spec: EncoderSpec, seed: int = 0) -> None:
        self._numbers = {tensor: number for number, tensor in enumerate(spec.tensors())}
        self._blocks = SyntheticBlocks(seed)

    def rows(self, tensor: Tensor, start: int, stop: int) -> Floats:
        """Rows of a tensor; may be called from several threads."""
        stored = StoredTensor(tensor, "F32", 4 * tensor.elements, "F32")
        made: Floats = self._blocks.rows(stored, self._numbers[tensor], start, stop).view("<f4")
        return made.reshape(stop - start, tensor.cols)

    def __call__(self, tensor: Tensor) -> Floats:
        """A whole tensor, (rows, cols) or (cols,)."""
        values = self.rows(tensor, 0, tensor.rows)
        return values[0] if tensor.is_vector else values
