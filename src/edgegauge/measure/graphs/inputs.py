"""Inputs of a graph: random ones of its shapes, or texts through a tokenizer.

Values follow from the name and type of an input, because some graphs fail on values that make no
sense: masks are ones, token types zeros, positions count up, token ids stay below 100 (every
vocabulary has so many), other numbers are uniform in 0..1. The speed of dense kernels does not
depend on values.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgegauge.errors import InputError, MissingDependency
from edgegauge.measure.graphs import TensorSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEQUENCE = 128
"""Length of a sequence dimension that the caller leaves open."""
MOST_ID = 100
MOST_ELEMENTS = 2**28
MOST_TEXTS = 10_000
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"


def random_inputs(
    specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, Any]:
    """An array for every input; `shapes` gives the free ones. InputError where one is missing."""
    import numpy as np

    unknown = sorted(set(shapes) - {s.name for s in specs})
    if unknown:
        names = ", ".join(s.name for s in specs)
        raise InputError(f"the graph has no input {', '.join(unknown)}; it has {names}")
    generator = np.random.default_rng(seed)
    return {s.name: _values(s, _shape(s, shapes.get(s.name)), generator) for s in specs}


def _shape(spec: TensorSpec, given: Sequence[int] | None) -> tuple[int, ...]:
    shape = tuple(given) if given else tuple(_guess(spec, i) for i in range(len(spec.shape)))
    fits = len(shape) == len(spec.shape) and all(
        own is None or own == n for own, n in zip(spec.shape, shape, strict=False)
    )
    if not fits or any(n < 1 for n in shape):
        raise InputError(f"{spec.name} is {spec}, which {list(shape)} does not fit")
    elements = 1
    for n in shape:
        elements *= n
    if elements > MOST_ELEMENTS:
        raise InputError(f"{spec.name} would have {elements} values, more than {MOST_ELEMENTS}")
    return shape


def _guess(spec: TensorSpec, axis: int) -> int:
    """The size of a free dimension: 1 for a batch, `SEQUENCE` for a sequence, else an error."""
    own = spec.shape[axis]
    if own is not None:
        return own
    label = spec.labels[axis].lower() if spec.labels else ""
    if axis == 0 or "batch" in label:
        return 1
    if "seq" in label or spec.name in (IDS, MASK, TYPES):
        return SEQUENCE
    raise InputError(
        f"{spec.name} is {spec}: the size of dimension {axis} is not in the file",
        hint=f"give it: --shape {spec.name}="
        + ",".join("1" if n is None else str(n) for n in spec.shape),
    )


def _values(spec: TensorSpec, shape: tuple[int, ...], generator: Any) -> Any:
    import numpy as np

    kind, name = np.dtype(spec.dtype), spec.name.lower()
    if kind.kind == "b" or "mask" in name:
        return np.ones(shape, kind)
    if kind.kind == "f":
        return generator.random(shape, np.float32).astype(kind)
    if "type" in name:
        return np.zeros(shape, kind)
    if "position" in name:
        return np.broadcast_to(np.arange(shape[-1], dtype=kind), shape).copy()
    most = 256 if kind.itemsize == 1 and kind.kind == "u" else MOST_ID
    return generator.integers(0, most, shape).astype(kind)


def texts_of(text: str) -> list[str]:
    """The lines that are not blank, in order, the first `MOST_TEXTS` of them."""
    return [line for line in text.splitlines() if line.strip()][:MOST_TEXTS]


def tokenizer_beside(model: Path) -> Tokenizer:
    """The tokenizer in `tokenizer.json` beside the model or one folder up; InputError."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingDependency("reading text for encoder models", "onnx") from None
    for folder in (model.parent, model.parent.parent):
        file = folder / "tokenizer.json"
        if file.is_file():
            try:
                tokenizer = Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises bare Exception
                raise InputError(f"{file} is no tokenizer: {error}") from None
            tokenizer.no_padding()  # published encoders' files pad every text to 128 tokens
            return tokenizer
    raise InputError(f"no tokenizer.json beside {model}", hint="copy the model's tokenizer there")


def text_inputs(
    specs: Sequence[TensorSpec],
    tokenize: Callable[[str], list[int]],
    texts: Sequence[str],
    seed: int,
) -> tuple[list[dict[str, Any]], list[int]]:
    """The inputs of each text, and its number of tokens; shuffled, so that lengths mix.

    A graph of fixed length gets texts cut or padded to it, with a mask where it takes one.
    """
    ids = next((s for s in specs if s.name == IDS or len(specs) == 1), None)
    if ids is None or len(ids.shape) != 2:
        names = ", ".join(f"{s.name} {s}" for s in specs)
        raise InputError(f"text needs an input {IDS} of two dimensions, the graph has {names}")
    order = list(texts)
    random.Random(seed).shuffle(order)
    encoded = [tokenize(text) for text in order]
    fixed = ids.shape[1]
    rows = [row[:fixed] if fixed else row for row in encoded if row]
    if not rows:
        raise InputError("the tokenizer finds no token in any line")
    return [_text(specs, ids, row, fixed or len(row)) for row in rows], [len(r) for r in rows]


def _text(
    specs: Sequence[TensorSpec], ids: TensorSpec, row: list[int], length: int
) -> dict[str, Any]:
    import numpy as np

    found: dict[str, Any] = {}
    for spec in specs:
        values = np.zeros((1, length), spec.dtype)
        if spec is ids:
            values[0, : len(row)] = row
        elif "mask" in spec.name.lower():
            values[0, : len(row)] = 1
        elif "position" in spec.name.lower():
            values[0] = np.arange(length)
        elif "type" not in spec.name.lower():
            raise InputError(f"{spec.name} {spec} is an input that text does not fill")
        found[spec.name] = values
    return found
